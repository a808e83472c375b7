/** `npm run bench`: see README.md here. Progress goes to standard error, the tables to standard output. */
import { createHash } from 'node:crypto';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { cpus, loadavg, release, totalmem } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { down, up } from '../test/lab/index.ts';
import { buildHugeImage } from './huge.ts';
import { buildImages } from './images.ts';
import { holdingsOf } from './node.ts';
import { play, type Stage } from './play.ts';
import { freePort, raiseRegistry } from './registry.ts';
import type { Failure, Sample } from './samples.ts';
import { type Story, storiesFor } from './scenes.ts';
import { measureStart } from './start.ts';
import { formatBytes } from './table.ts';
import { diskTable, memoryTable, timeline, timeTable, wireTable } from './tables.ts';
import { judge, targetTable } from './targets.ts';
import { CLI, makeFloorArchive, wayOf } from './ways.ts';

const { values: options } = parseArgs({
  options: {
    rounds: { type: 'string', default: '3' },
    only: { type: 'string', default: '' },
    quick: { type: 'boolean', default: false },
    all: { type: 'boolean', default: false },
    huge: { type: 'boolean', default: false },
    lab: { type: 'string', default: 'bench' },
    scale: { type: 'string', default: '1' },
  },
});
const rounds = options.quick ? 1 : Number(options.rounds);
if (!Number.isInteger(rounds) || rounds < 1) {
  throw new Error(`--rounds is a number of rounds, not ${options.rounds}`);
}
const scale = Number(options.scale);
if (!(scale > 0)) {
  throw new Error(`--scale is a number above 0, not ${options.scale}`);
}
const stories = storiesFor(options.quick ? 'quick' : options.all ? 'all' : 'targets', new RegExp(options.only));
const HUGE: Story = { way: 'ours', link: 'unlimited', nodes: 1, level: 'all', scenes: ['cold'] };
const MINUTE_MS = 60_000;
const resultFile = join(import.meta.dirname, 'result.json');

const startedAt = performance.now();
const log = (line: string) => {
  const seconds = Math.round((performance.now() - startedAt) / 1000);
  console.error(`${String(Math.floor(seconds / 60)).padStart(3)}:${String(seconds % 60).padStart(2, '0')}  ${line}`);
};

const machine = `${cpus().length} × ${cpus()[0]?.model ?? 'unknown CPU'}, ${formatBytes(totalmem())}, Linux ${release()}, Node ${process.version}`;
const load = loadavg()[0] ?? 0;
if (load > 0.5) {
  log(`warning: the machine is at work already (load ${load.toFixed(1)}): do not publish what follows`);
}
const lab = await up({ name: options.lab, nodes: 4, cluster: false, log });
try {
  const workspace = join(lab.directory, 'bench');
  mkdirSync(workspace);
  const raised = new Map(await Promise.all(lab.nodes.map(async node => [node.name, await holdingsOf(node)] as const)));
  const stage = { lab, raised, workspace, port: await freePort(), log };
  const samples: Sample[] = [];
  const huge: Sample[] = [];
  const failures: Failure[] = [];
  const sizes: string[] = [];
  const unavailable = new Map(stories.map(({ way }) => [way, wayOf(way).unavailable?.()]));
  const run = async (stage: Stage, story: Story, round: number, into: Sample[]) => {
    const played = await play(stage, story, round);
    into.push(...played.samples);
    failures.push(...played.failures);
  };

  if (stories.length > 0) {
    log('build the images');
    const images = await buildImages(lab, workspace, scale);
    sizes.push(`images of ${formatBytes(images.first.sizeBytes)} in 3 layers`);
    if (stories.some(({ way }) => way === 'registry')) {
      await Promise.all(lab.nodes.map(node => raiseRegistry(node, log)));
    }
    if (stories.some(({ way }) => way === 'floor')) {
      makeFloorArchive({ ...stage, image: images.first, nodes: lab.nodes.slice(0, 1) });
    }
    for (let round = 0; round < rounds; round++) {
      log(`round ${round + 1} of ${rounds}`);
      for (const story of stories) {
        if (unavailable.get(story.way) === undefined) {
          await run({ ...stage, images, timeoutMs: 5 * MINUTE_MS }, story, round, samples);
        }
      }
    }
  }
  log('start of the bundle');
  const start = await measureStart(workspace);
  if (options.huge) {
    log('build the huge image');
    const image = await buildHugeImage(lab, workspace, scale);
    sizes.push(`one of ${formatBytes(image.sizeBytes)}, pushed once`);
    const images = { first: image, retagged: image, changed: image, changedAgain: image, second: image };
    await run({ ...stage, images, timeoutMs: 30 * MINUTE_MS }, HUGE, 0, huge);
  }

  const targets = judge({ samples, huge, start });
  const about = `${sizes.join(', ')}; medians of ${rounds}; dist/cli ${digestOf(CLI)}; ${machine}, load ${load.toFixed(1)} before`;
  console.log(`${about}\n`);
  for (const print of [timeTable, wireTable, memoryTable, diskTable, timeline]) {
    console.log(print(samples));
  }
  if (huge.length > 0) {
    console.log(['The huge image', '', timeTable(huge), memoryTable(huge), diskTable(huge)].join('\n'));
  }
  console.log(targetTable(targets));
  for (const [way, reason] of unavailable) {
    if (reason !== undefined) {
      console.log(`not measured: ${wayOf(way).title}: ${reason}`);
    }
  }
  for (const { name, round, message } of failures) {
    console.log(`FAILED: ${name}, round ${round + 1}: ${message}`);
  }
  writeFileSync(
    resultFile,
    `${JSON.stringify({ about, machine, load, rounds, scale, targets, failures, start, samples, huge })}\n`,
  );
  log(`written to ${resultFile}`);
  process.exitCode = failures.length > 0 ? 1 : 0;
} finally {
  await down(options.lab);
}

/** Names the bundle that was measured. */
function digestOf(file: string): string {
  return createHash('sha256').update(readFileSync(file)).digest('hex').slice(0, 12);
}

/**
 * `npm run bench`: the plain recipe against kube-sideload, in one run, on one lab node that does not have the image.
 * Prints medians and ratios, and writes `bench/result.json`. Options: `--rounds N` (default 3).
 */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { cpus, release, tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { down, enter, sshCommand, up } from '../test/lab/index.ts';
import { buildBenchImage } from './image.ts';
import { type Measurement, measure, median } from './measure.ts';

const NAME = 'bench-push';
const IMAGE = 'bench:1';
const REFERENCE = `docker.io/library/${IMAGE}`;
const root = resolve(import.meta.dirname, '..');
const { values } = parseArgs({ options: { rounds: { type: 'string', default: '3' } } });

const lab = await up({ name: NAME, nodes: 1, cluster: false, log: line => console.error(`  ${line}`) });
const directory = mkdtempSync(join(tmpdir(), 'kube-sideload-bench-'));
try {
  const [node] = lab.nodes;
  if (node === undefined) {
    throw new Error('the lab has no node');
  }
  const env = { ...process.env, PATH: `${lab.bin}:${process.env.PATH}` };
  const image = await buildBenchImage(lab, IMAGE);
  const archive = join(directory, 'image.tar');
  const ssh = sshCommand(lab, node)
    .map(part => `'${part}'`)
    .join(' ');
  const shell = (script: string) => () => measure('sh', ['-ec', script], env);
  const ours = (inputs: readonly string[]) => () =>
    measure(
      process.execPath,
      [
        ...[
          join(root, 'dist', 'cli', 'index.js'),
          'push',
          '--smoke=none',
          `--images=${IMAGE}`,
          `--nodes=${node.address}`,
        ],
        ...[`--ssh-private-key-file=${lab.privateKeyFile}`, `--ssh-known-hosts-file=${lab.knownHostsFile}`, ...inputs],
      ],
      env,
    );
  const importCopy = `${ssh} 'cat >/tmp/image.tar'  <${archive}; ${ssh} 'ctr -n k8s.io images import /tmp/image.tar >/dev/null; rm /tmp/image.tar'`;
  const ways: Readonly<Record<string, () => Promise<Measurement>>> = {
    'recipe: docker save, copy, ctr images import': shell(`docker save -o ${archive} ${IMAGE}; ${importCopy}`),
    'kube-sideload from docker': ours(['--source=docker']),
    'recipe from a ready archive: copy, ctr images import': shell(importCopy),
    'kube-sideload from a ready archive': ours([`--archive=${archive}`]),
  };
  const forget = () => enter(node, ['ctr', '-n', 'k8s.io', 'images', 'rm', '--sync', REFERENCE]);

  const results = Object.fromEntries(Object.keys(ways).map(way => [way, [] as Measurement[]]));
  for (let round = 0; round < Number(values.rounds); round++) {
    for (const [way, run] of Object.entries(ways)) {
      await forget();
      const result = await run();
      results[way]?.push(result);
      console.error(`  ${way}: ${result.seconds.toFixed(1)} s`);
    }
  }

  const baseline = {
    docker: 'recipe: docker save, copy, ctr images import',
    archive: 'recipe from a ready archive: copy, ctr images import',
  };
  const rows = Object.entries(results).map(([way, measurements]) => {
    const seconds = measurements.map(measurement => measurement.seconds);
    const base = median(
      (results[way.includes('archive') ? baseline.archive : baseline.docker] ?? []).map(one => one.seconds),
    );
    return {
      way,
      median: median(seconds),
      spread: [Math.min(...seconds), Math.max(...seconds)],
      ratio: median(seconds) / base,
      peakBytes: way.startsWith('kube-sideload') ? Math.max(...measurements.map(one => one.peakBytes)) : undefined,
    };
  });
  const machine = `${cpus().length} × ${cpus()[0]?.model ?? 'unknown CPU'}, Linux ${release()}, Node ${process.version}`;
  console.log(
    `image of ${(image.sizeBytes / 1e6).toFixed(0)} MB in 3 layers, 1 node, cold, medians of ${values.rounds}; ${machine}`,
  );
  for (const row of rows) {
    const memory = row.peakBytes === undefined ? '' : `  peak ${(row.peakBytes / 1e6).toFixed(0)} MB`;
    console.log(
      `${row.way.padEnd(54)} ${row.median.toFixed(1).padStart(6)} s  (${row.spread.map(one => one.toFixed(1)).join('–')})  ratio ${row.ratio.toFixed(2)}${memory}`,
    );
  }
  writeFileSync(
    join(root, 'bench', 'result.json'),
    `${JSON.stringify({ machine, imageBytes: image.sizeBytes, rows }, null, 2)}\n`,
  );
} finally {
  rmSync(directory, { recursive: true, force: true });
  await down(NAME);
}

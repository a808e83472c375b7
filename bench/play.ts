/** Plays stories on the nodes of a lab, and measures each scene. */
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { must } from '../test/lab/command.ts';
import { type Lab, type LabNode, setRate, traffic } from '../test/lab/index.ts';
import { enterMust } from '../test/lab/machine.ts';
import { growthDuring } from './disk.ts';
import type { BenchImages } from './images.ts';
import { measure } from './measure.ts';
import { assertHasImage, type Holdings, holdingsOf, newBytes, resetNode, temporaryOf } from './node.ts';
import { emptyRegistry } from './registry.ts';
import type { Failure, Sample } from './samples.ts';
import { nameOf, type SceneName, type Story, sceneOf } from './scenes.ts';
import { wayOf } from './ways.ts';

/** Where stories are played. */
export interface Stage {
  readonly lab: Lab;
  readonly images: BenchImages;
  /** What each node held when it was raised, by its name. */
  readonly raised: ReadonlyMap<string, Holdings>;
  /** A directory on a disk that runner and host both see. */
  readonly workspace: string;
  /** The port of the tunnel to the registry. */
  readonly port: number;
  /** How long one push may take. */
  readonly timeoutMs: number;
  readonly log: (line: string) => void;
}

/** What a story has on the runner for itself. */
interface Home {
  readonly temporary: string;
  readonly env: NodeJS.ProcessEnv;
  /** Directories whose growth is ours. */
  readonly directories: readonly string[];
}

/**
 * One story, from nodes and caches that hold nothing. What fails ends it, and is noted.
 * @throws when a node can't be taken back to the state in which it was raised
 */
export async function play(
  stage: Stage,
  story: Story,
  round: number,
): Promise<{ readonly samples: readonly Sample[]; readonly failures: readonly Failure[] }> {
  const { lab, log, workspace } = stage;
  const samples: Sample[] = [];
  const directory = mkdtempSync(join(workspace, 'story-'));
  const [temporary, cache, home] = ['tmp', 'cache', 'home'].map(name => join(directory, name)) as [
    string,
    string,
    string,
  ];
  for (const path of [temporary, cache, home]) {
    mkdirSync(path);
  }
  const env = {
    PATH: `${lab.bin}:${process.env.PATH}`,
    TMPDIR: temporary,
    XDG_CACHE_HOME: cache,
    HOME: home,
  };
  await reset(stage);
  for (const node of lab.nodes) {
    await setRate(node, story.link === 'unlimited' ? undefined : story.link);
  }
  try {
    for (const scene of story.scenes) {
      const name = nameOf(story, scene);
      try {
        const sample = await playScene(stage, story, scene, round, {
          temporary,
          env,
          directories: [temporary, cache, home],
        });
        samples.push(sample);
        log(`${name}: ${sample.seconds.toFixed(2)} s`);
      } catch (error) {
        const message = error instanceof Error ? error.message : String(error);
        log(`${name}: FAILED: ${message}`);
        return { samples, failures: [{ name, round, message }] };
      }
    }
    return { samples, failures: [] };
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}

async function playScene(stage: Stage, story: Story, scene: SceneName, round: number, home: Home): Promise<Sample> {
  const { lab, images, workspace, port } = stage;
  const { way, link, nodes: count } = story;
  const { image: imageName, toAnotherNode } = sceneOf(scene);
  const image = images[imageName];
  const nodes = toAnotherNode ? lab.nodes.slice(count, count + 1) : lab.nodes.slice(0, count);
  const task = { lab, image, nodes, workspace, port };
  const { prepare, command } = wayOf(way);
  prepare?.(task);
  const run = command(task);
  // What earlier runs have yet to write would slow this one down.
  await must(['sync'], { timeoutMs: 5 * 60_000 });

  const before = await Promise.all(nodes.map(look));
  const {
    result: { result: measured, grownBytes: runnerDiskBytes },
    grownBytes: nodeDiskBytes,
  } = await growthDuring(nodes.flatMap(temporaryOf), () =>
    growthDuring(
      home.directories.map(directory => ({ directory })),
      () => measure(run, home.env, home.temporary, stage.timeoutMs),
    ),
  );
  const after = await Promise.all(nodes.map(look));
  await Promise.all(nodes.map(node => assertHasImage(lab, node, image)));

  const sum = (value: (before: Look, after: Look) => number) =>
    before.reduce((total, one, index) => total + value(one, after[index] ?? one), 0);
  return {
    ...measured,
    ...{ round, way, scene, link, nodes: count },
    toNodesBytes: sum((one, other) => other.toBytes - one.toBytes),
    fromNodesBytes: sum((one, other) => other.fromBytes - one.fromBytes),
    missingBytes: sum((one, other) => newBytes(one.holdings, other.holdings)),
    runnerDiskBytes,
    nodeDiskBytes,
  };
}

interface Look {
  readonly toBytes: number;
  readonly fromBytes: number;
  readonly holdings: Holdings;
}

/** Goes by namespaces and not by the network, and so leaves nothing on the counters. */
async function look(node: LabNode): Promise<Look> {
  const holdings = await holdingsOf(node);
  return { ...(await traffic(node)), holdings };
}

/** Nodes as they were raised, an empty registry, and a docker that has never pushed. */
async function reset({ lab, raised }: Stage): Promise<void> {
  await Promise.all(
    lab.nodes.map(async node => {
      const holdings = raised.get(node.name);
      if (holdings === undefined) {
        throw new Error(`nobody has looked at ${node.name}`);
      }
      await resetNode(node, holdings);
      await emptyRegistry(node);
    }),
  );
  // Docker's classic store notes here which digest a layer was pushed under, and to where. It reads the files each time.
  await enterMust(lab.runner, ['sh', '-c', 'rm -rf /var/lib/docker/image/overlay2/distribution/*/*']);
}

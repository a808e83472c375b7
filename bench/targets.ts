/** What was promised, and whether it was kept. */
import { type Choice, type Sample, secondsOf, select } from './samples.ts';
import type { SceneName } from './scenes.ts';
import { ratio, type Spread, spread } from './statistics.ts';
import { formatBytes, table } from './table.ts';
import { formatRatio, recipeFor } from './tables.ts';
import { type WayName, wayOf } from './ways.ts';

interface Target {
  readonly measure: string;
  /** As it was promised. */
  readonly target: string;
  /** As it was measured; `undefined` when it was not. */
  readonly value: string | undefined;
  readonly isMet: boolean | undefined;
}

/** The results of everything that a run measured. */
export interface Results {
  readonly samples: readonly Sample[];
  /** The push of an image of some GB, if it was made. */
  readonly huge: readonly Sample[];
  readonly start: { readonly node: readonly number[]; readonly bundle: readonly number[] } | undefined;
}

/** What the nodes' sizes of blobs may be exceeded by: the archive's headers, SSH's packets, questions and answers. */
const WIRE = { factor: 1.02, perNodeBytes: 64 * 1024 };
const MEMORY_BYTES = 150e6;
const START_SECONDS = 0.15;
/** Directories, lock files and other small things. */
const SMALL_BYTES = { runner: 1e6, node: 64 * 1024 };

export function judge({ samples, huge, start }: Results): readonly Target[] {
  const time = (measure: string, ours: Required<Choice>, base: Required<Choice>, most: number): Target =>
    atMost(measure, most, ratio(secondsOf(samples, ours), secondsOf(samples, base)));
  const one = (scene: SceneName, way: WayName = 'ours'): Required<Choice> => ({
    ...{ way, scene, link: 'unlimited', nodes: 1 },
  });
  const slow = (way?: WayName): Required<Choice> => ({ ...one('cold', way), link: '200mbit' });
  const four: Required<Choice> = { ...one('same'), nodes: 4 };
  const asking: readonly (readonly [string, Required<Choice>, number])[] = [
    ['cold from docker', one('cold', 'ours-asking'), 0.7],
    ['cold from podman', one('cold', 'ours-podman-asking'), 0.6],
    ['cold from docker, 200 Mbit/s', slow('ours-asking'), 0.45],
    ['one layer of three changed, first time', one('changed-first', 'ours-asking'), 0.1],
    ['one layer of three changed, again', one('changed', 'ours-asking'), 0.1],
  ];
  const againstRecipe = (measure: string, ours: Required<Choice>, most: number) =>
    time(`${measure}, against the recipe`, ours, recipeFor(ours), most);
  return [
    againstRecipe('cold from docker', one('cold'), 0.7),
    againstRecipe('cold from podman', one('cold', 'ours-podman'), 0.6),
    againstRecipe('cold from a ready archive', one('cold', 'ours-archive'), 0.6),
    againstRecipe('cold from docker, 200 Mbit/s', slow(), 0.45),
    time("second node later, against an import from the node's disk", one('second-node'), one('cold', 'floor'), 1.4),
    againstRecipe('one layer of three changed, first time', one('changed-first'), 0.1),
    againstRecipe('one layer of three changed, again', one('changed'), 0.1),
    againstRecipe('nothing changed', one('same'), 0.06),
    ...asking.map(([measure, choice, most]) => againstRecipe(`${measure}, by a job that is not root`, choice, most)),
    time('nothing changed, 4 nodes against 1', four, one('same'), 2),
    time('cold, against the registry', one('cold'), one('cold', 'registry'), 0.8),
    time(
      'one layer changed, first time, against the registry',
      one('changed-first'),
      one('changed-first', 'registry'),
      1,
    ),
    time('one layer changed, again, against the registry', one('changed'), one('changed', 'registry'), 1),
    wire([...samples, ...huge]),
    memory('650 MB, 1 node', select(samples, { nodes: 1 })),
    memory('650 MB, 4 nodes', select(samples, { nodes: 4 })),
    memory('5 GB, 1 node', huge),
    nodeDisk([...samples, ...huge]),
    runnerDisk([...samples, ...huge]),
    startUp(start),
  ];
}

export function targetTable(targets: readonly Target[]): string {
  return table(
    'Targets',
    ['measure', 'target', 'met', 'measured'],
    targets.map(({ measure, target, value, isMet }) => [
      measure,
      target,
      isMet === undefined ? '–' : isMet ? 'yes' : 'NO',
      value ?? 'not measured',
    ]),
  );
}

function atMost(measure: string, most: number, measured: Spread | undefined): Target {
  return {
    measure,
    target: `≤ ${most}`,
    value: measured && formatRatio(measured),
    isMet: measured && measured.median <= most,
  };
}

/** The worst of all our pushes, each against what it may have used. */
function worst(
  about: Pick<Target, 'measure' | 'target'>,
  samples: readonly Sample[],
  used: (sample: Sample) => number,
  allowed: (sample: Sample) => number,
): Target {
  const ours = samples.filter(({ way }) => wayOf(way).isOurs);
  const [sample] = ours.toSorted((a, b) => used(b) / allowed(b) - used(a) / allowed(a));
  if (sample === undefined) {
    return { ...about, value: undefined, isMet: undefined };
  }
  const { way, scene, link, nodes } = sample;
  const value = `${formatBytes(used(sample))} of ${formatBytes(allowed(sample))}: ${way}, ${scene}, ${link}, ${nodes} ${nodes === 1 ? 'node' : 'nodes'}`;
  return { ...about, value, isMet: used(sample) <= allowed(sample) };
}

function wire(samples: readonly Sample[]): Target {
  return worst(
    { measure: 'bytes on the wire, both ways, worst push', target: 'new blobs × 1.02 + 64 KiB per node' },
    samples,
    ({ toNodesBytes, fromNodesBytes }) => toNodesBytes + fromNodesBytes,
    ({ missingBytes, nodes }) => missingBytes * WIRE.factor + nodes * WIRE.perNodeBytes,
  );
}

function memory(about: string, samples: readonly Sample[]): Target {
  const target = `≤ ${formatBytes(MEMORY_BYTES)}`;
  return worst(
    { measure: `peak memory, ${about}`, target },
    samples,
    ({ peakBytes }) => peakBytes,
    () => MEMORY_BYTES,
  );
}

function nodeDisk(samples: readonly Sample[]): Target {
  return worst(
    { measure: 'disk for a time on a node, worst push', target: '0 (≤ 64 KiB)' },
    samples,
    ({ nodeDiskBytes }) => nodeDiskBytes,
    ({ nodes }) => nodes * SMALL_BYTES.node,
  );
}

/** Nodes that lack the same share the runner's blobs. */
function runnerDisk(samples: readonly Sample[]): Target {
  return worst(
    { measure: 'disk for a time on the runner, worst push', target: 'new blobs × 1.02 + 1 MB' },
    samples,
    ({ runnerDiskBytes }) => runnerDiskBytes,
    ({ missingBytes, nodes }) => (missingBytes / nodes) * WIRE.factor + SMALL_BYTES.runner,
  );
}

function startUp(start: Results['start']): Target {
  const about = { measure: 'start of the bundle over bare Node', target: `≤ ${formatMilliseconds(START_SECONDS)}` };
  const [node, bundle] = [spread(start?.node ?? []), spread(start?.bundle ?? [])];
  if (node === undefined || bundle === undefined) {
    return { ...about, value: undefined, isMet: undefined };
  }
  const seconds = bundle.median - node.median;
  const value = `${formatMilliseconds(seconds)}: ${formatMilliseconds(bundle.median)} and ${formatMilliseconds(node.median)}`;
  return { ...about, value, isMet: seconds <= START_SECONDS };
}

function formatMilliseconds(seconds: number): string {
  return `${(seconds * 1000).toFixed(0)} ms`;
}

/** One table for each measure. */
import { type Choice, type Sample, secondsOf, select } from './samples.ts';
import { type SceneName, sceneOf, scenes } from './scenes.ts';
import { ratio, type Spread, spread } from './statistics.ts';
import { formatBytes, formatSeconds, table } from './table.ts';
import { type WayName, wayOf, ways } from './ways.ts';

/** What a push is compared with: the recipe from the same source. It does the same work at each change. */
export function recipeFor({ way, scene, link, nodes }: Required<Choice>): Required<Choice> {
  const recipes: Partial<Record<WayName, WayName>> = {
    'recipe-archive': 'recipe-archive',
    'ours-archive': 'recipe-archive',
    'recipe-podman': 'recipe-podman',
    'ours-podman': 'recipe-podman',
    'ours-podman-asking': 'recipe-podman',
  };
  const same: Partial<Record<SceneName, SceneName>> = { 'changed-first': 'changed', 'second-node': 'cold' };
  return { way: recipes[way] ?? 'recipe', scene: same[scene] ?? scene, link, nodes };
}

export function timeTable(samples: readonly Sample[]): string {
  const rows = groups(samples).map(({ choice, group }) => {
    const seconds = spread(group.map(sample => sample.seconds));
    const against = ratio(secondsOf(samples, choice), secondsOf(samples, recipeFor(choice)));
    return [
      ...labels(choice),
      seconds === undefined ? '' : formatSeconds(seconds.median),
      seconds === undefined ? '' : `${formatSeconds(seconds.lowest)} – ${formatSeconds(seconds.highest)}`,
      against === undefined ? '' : formatRatio(against),
    ];
  });
  return table('Time of one push', [...HEADINGS, 'median', 'lowest – highest', 'against its recipe'], rows);
}

export function wireTable(samples: readonly Sample[]): string {
  const rows = groups(samples).map(({ choice, group }) => {
    const middle = (value: (sample: Sample) => number) => spread(group.map(value))?.median ?? Number.NaN;
    const missing = middle(sample => sample.missingBytes);
    return [
      ...labels(choice),
      formatBytes(middle(sample => sample.toNodesBytes)),
      formatBytes(middle(sample => sample.fromNodesBytes)),
      formatBytes(missing),
    ];
  });
  return table(
    'Bytes at the interfaces of the nodes, medians',
    [...HEADINGS, 'to nodes', 'from nodes', 'new blobs'],
    rows,
  );
}

export function diskTable(samples: readonly Sample[]): string {
  const rows = groups(samples).map(({ choice, group }) => [
    ...labels(choice),
    formatBytes(Math.max(...group.map(sample => sample.runnerDiskBytes))),
    formatBytes(Math.max(...group.map(sample => sample.nodeDiskBytes))),
  ]);
  return table('Disk for a time, the most in any round', [...HEADINGS, 'on the runner', 'on the nodes'], rows);
}

export function memoryTable(samples: readonly Sample[]): string {
  const rows = groups(samples.filter(({ way }) => wayOf(way).isOurs)).map(({ choice, group }) => [
    ...labels(choice),
    formatBytes(Math.max(...group.map(sample => sample.peakBytes))),
    formatBytes(Math.max(...group.map(sample => sample.treePeakBytes))),
  ]);
  return table('Memory, the most in any round', [...HEADINGS, 'the process', 'with its children'], rows);
}

/** Where the time of the shortest run goes: what the last one said, and when. */
export function timeline(samples: readonly Sample[]): string {
  const last = select(samples, { way: 'ours', scene: 'same', link: 'unlimited', nodes: 1 }).at(-1);
  const rows = (last?.lines ?? []).map(({ atMs, text }) => [`${atMs.toFixed(0)} ms`, text.slice(0, 110)]);
  return table(
    'What our push says when nothing changed',
    ['after', 'line'],
    [...rows, ...(last === undefined ? [] : [[`${(last.seconds * 1000).toFixed(0)} ms`, '(ended)']])],
  );
}

export function formatRatio({ median, lowest, highest }: Spread): string {
  return `${median.toFixed(3)} (${lowest.toFixed(3)} – ${highest.toFixed(3)})`;
}

const HEADINGS = ['scene', 'way', 'link', 'nodes'];

function labels({ scene, way, link, nodes }: Required<Choice>): readonly string[] {
  return [sceneOf(scene).title, wayOf(way).title, link, String(nodes)];
}

/** The samples of each push, in the order of scenes, links, nodes and ways. */
function groups(samples: readonly Sample[]): readonly { choice: Required<Choice>; group: readonly Sample[] }[] {
  const order = {
    scene: Object.keys(scenes) as SceneName[],
    link: ['unlimited', '200mbit'] as const,
    nodes: [1, 4] as const,
    way: Object.keys(ways) as WayName[],
  };
  return order.scene.flatMap(scene =>
    order.link.flatMap(link =>
      order.nodes.flatMap(nodes =>
        order.way.flatMap(way => {
          const choice = { way, scene, link, nodes };
          const group = select(samples, choice);
          return group.length === 0 ? [] : [{ choice, group }];
        }),
      ),
    ),
  );
}

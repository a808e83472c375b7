/** What happens, one thing after the other, and with which ways it is measured. */
import type { BenchImages } from './images.ts';
import type { WayName } from './ways.ts';

/** One push: which of the images, and to which of the nodes. */
interface Scene {
  readonly title: string;
  readonly image: keyof BenchImages;
  /** To the node after those that the earlier scenes went to. */
  readonly toAnotherNode?: boolean;
}

/**
 * In the order in which a story plays them. `cold` finds nodes, the runner's cache and docker's memory of pushes
 * empty; each later scene finds what the earlier ones of its story have left. The first change after a cold run is apart
 * from the later ones: docker gzips and uploads a layer when it is first pushed, and knows it from then on.
 */
export const scenes = {
  cold: { title: 'cold', image: 'first' },
  'second-node': { title: 'second node later', image: 'first', toAnotherNode: true },
  same: { title: 'nothing changed', image: 'first' },
  tag: { title: 'new tag of the same image', image: 'retagged' },
  'changed-first': { title: 'one layer of three changed, first time', image: 'changed' },
  changed: { title: 'one layer of three changed, again', image: 'changedAgain' },
  'second-image': { title: 'second image, same base', image: 'second' },
} as const satisfies Readonly<Record<string, Scene>>;

export type SceneName = keyof typeof scenes;

export function sceneOf(name: SceneName): Scene {
  return scenes[name];
}

/** Links, by what `tc` calls their rate. */
export type Link = 'unlimited' | '200mbit';

/** Scenes that one way goes through, from cold nodes on. */
export interface Story {
  readonly way: WayName;
  readonly link: Link;
  readonly nodes: 1 | 4;
  readonly scenes: readonly SceneName[];
  /** `quick`: part of the shortest run. `targets`: a target needs it. `all`: of interest. */
  readonly level: Level;
}

export const LEVELS = ['quick', 'targets', 'all'] as const;
export type Level = (typeof LEVELS)[number];

const everything = Object.keys(scenes) as SceneName[];
const onSameNodes = everything.filter(scene => scene !== 'second-node');

const stories: readonly Story[] = [
  { way: 'recipe', link: 'unlimited', nodes: 1, level: 'quick', scenes: ['cold', 'same', 'changed'] },
  { way: 'ours', link: 'unlimited', nodes: 1, level: 'quick', scenes: everything },
  {
    ...{ way: 'ours-asking', link: 'unlimited', nodes: 1, level: 'targets' },
    scenes: ['cold', 'same', 'changed-first', 'changed'],
  },
  { way: 'floor', link: 'unlimited', nodes: 1, level: 'quick', scenes: ['cold'] },
  { way: 'registry', link: 'unlimited', nodes: 1, level: 'quick', scenes: onSameNodes },
  { way: 'recipe-archive', link: 'unlimited', nodes: 1, level: 'targets', scenes: ['cold'] },
  { way: 'ours-archive', link: 'unlimited', nodes: 1, level: 'targets', scenes: ['cold'] },
  { way: 'recipe-podman', link: 'unlimited', nodes: 1, level: 'targets', scenes: ['cold'] },
  { way: 'ours-podman', link: 'unlimited', nodes: 1, level: 'targets', scenes: ['cold'] },
  { way: 'ours-podman-asking', link: 'unlimited', nodes: 1, level: 'targets', scenes: ['cold'] },
  { way: 'ours-openssh', link: 'unlimited', nodes: 1, level: 'targets', scenes: ['cold', 'same'] },
  { way: 'pipe', link: 'unlimited', nodes: 1, level: 'targets', scenes: ['cold'] },
  { way: 'pipe-zstd', link: 'unlimited', nodes: 1, level: 'targets', scenes: ['cold'] },
  { way: 'recipe', link: '200mbit', nodes: 1, level: 'targets', scenes: ['cold'] },
  { way: 'ours', link: '200mbit', nodes: 1, level: 'targets', scenes: ['cold'] },
  { way: 'ours-asking', link: '200mbit', nodes: 1, level: 'targets', scenes: ['cold'] },
  { way: 'ours', link: 'unlimited', nodes: 4, level: 'targets', scenes: ['cold', 'same'] },
  // In the place of the shorter ones above.
  { way: 'recipe', link: 'unlimited', nodes: 1, level: 'all', scenes: onSameNodes },
  { way: 'ours-archive', link: 'unlimited', nodes: 1, level: 'all', scenes: onSameNodes },
  { way: 'ours-podman', link: 'unlimited', nodes: 1, level: 'all', scenes: onSameNodes },
  { way: 'ours-openssh', link: 'unlimited', nodes: 1, level: 'all', scenes: onSameNodes },
  { way: 'registry', link: '200mbit', nodes: 1, level: 'all', scenes: onSameNodes },
  { way: 'ours', link: '200mbit', nodes: 1, level: 'all', scenes: onSameNodes },
  { way: 'pipe-zstd', link: '200mbit', nodes: 1, level: 'all', scenes: ['cold'] },
  { way: 'recipe', link: 'unlimited', nodes: 4, level: 'all', scenes: ['cold', 'same'] },
  { way: 'ours', link: 'unlimited', nodes: 4, level: 'all', scenes: onSameNodes },
];

/** The stories to play, each as far as the last scene that is wanted. */
export function storiesFor(level: Level, wanted: RegExp): readonly Story[] {
  const levels = LEVELS.slice(0, LEVELS.indexOf(level) + 1);
  const chosen = new Map(
    stories
      .filter(story => levels.includes(story.level))
      .map(story => [`${story.way} ${story.link} ${story.nodes}`, story]),
  );
  return [...chosen.values()].flatMap(story => {
    const last = story.scenes.findLastIndex(scene => wanted.test(nameOf(story, scene)));
    return last < 0 ? [] : [{ ...story, scenes: story.scenes.slice(0, last + 1) }];
  });
}

/** Such as `ours changed unlimited 1`; what `--only` is matched with. */
export function nameOf({ way, link, nodes }: Pick<Story, 'way' | 'link' | 'nodes'>, scene: SceneName): string {
  return `${way} ${scene} ${link} ${nodes}`;
}

import type { Measurement } from './measure.ts';
import type { Link, SceneName, Story } from './scenes.ts';
import type { WayName } from './ways.ts';

/** One push, measured. Sizes are in bytes; those of nodes are sums over the nodes that were pushed to. */
export interface Sample extends Measurement {
  readonly round: number;
  readonly way: WayName;
  readonly scene: SceneName;
  readonly link: Link;
  readonly nodes: Story['nodes'];
  /** What passed the nodes' interfaces, to them and from them. */
  readonly toNodesBytes: number;
  readonly fromNodesBytes: number;
  /** Blobs that the nodes have now, as they lie there, and had not before. */
  readonly missingBytes: number;
  /** The most that the temporary directory, the cache and the home directory grew by on the runner. */
  readonly runnerDiskBytes: number;
  /** The most that anything grew by on the nodes that is neither the runtime's own store nor a log. */
  readonly nodeDiskBytes: number;
}

/** A push that failed, or after which a node did not have the image: it counts for nothing, and is not hidden. */
export interface Failure {
  readonly name: string;
  readonly round: number;
  readonly message: string;
}

export interface Choice {
  readonly way?: WayName;
  readonly scene?: SceneName;
  readonly link?: Link;
  readonly nodes?: Story['nodes'];
}

export function select(samples: readonly Sample[], choice: Choice): readonly Sample[] {
  const wanted = Object.entries(choice) as [keyof Choice, unknown][];
  return samples.filter(sample => wanted.every(([key, value]) => sample[key] === value));
}

/** The seconds of one push, by round. */
export function secondsOf(samples: readonly Sample[], choice: Choice): readonly (number | undefined)[] {
  const seconds: (number | undefined)[] = [];
  for (const sample of select(samples, choice)) {
    seconds[sample.round] = sample.seconds;
  }
  return seconds;
}

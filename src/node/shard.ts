import { SideloadError } from '../errors.ts';

/** One of `count` parts of a list of nodes; `index` counts from 1. */
export interface Shard {
  readonly index: number;
  readonly count: number;
}

/** More runners than this have not been thought of; a typo has. */
const MOST = 1000;

/** Parses `i/N`, as in `2/4`; `1/1` is no part. @throws SideloadError INPUT_INVALID */
export function parseShard(text: string): Shard | undefined {
  const match = /^(\d{1,4})\/(\d{1,4})$/.exec(text);
  const [index, count] = [Number(match?.[1]), Number(match?.[2])];
  if (match === null || index < 1 || index > count || count > MOST) {
    throw new SideloadError(
      'INPUT_INVALID',
      `\`shard\` must be \`i/N\` with i from 1 to N, not ${JSON.stringify(text)}`,
      {
        hint: 'write `2/4` for the second of four runners that share the nodes',
      },
    );
  }
  return count === 1 ? undefined : { index, count };
}

/**
 * Every N-th node, the first for shard 1: no node is in two shards, and every node is in one, as long as all shards see
 * the same list.
 * @throws SideloadError INPUT_INVALID when no node is left, because a job that does nothing proves nothing
 */
export function takeShard<T>(nodes: readonly T[], shard: Shard | undefined): readonly T[] {
  if (shard === undefined) {
    return nodes;
  }
  const taken = nodes.filter((_, place) => place % shard.count === shard.index - 1);
  if (taken.length === 0 && nodes.length > 0) {
    throw new SideloadError(
      'INPUT_INVALID',
      `\`shard\`: there is no node for ${shard.index}/${shard.count}, the list has ${nodes.length}`,
      { hint: 'start as many shards as there are nodes, or fewer' },
    );
  }
  return taken;
}

import { describe, expect, it } from 'vitest';
import { parseShard, takeShard } from '../../../src/node/shard.ts';

const NODES = ['a', 'b', 'c', 'd', 'e', 'f', 'g'];

describe('a shard', () => {
  it.each([1, 2, 3, 7])('of %i has each node in exactly one, and no shard has two more than another', count => {
    const shards = Array.from({ length: count }, (_, place) => takeShard(NODES, { index: place + 1, count }));
    expect(shards.flat().sort()).toEqual(NODES);
    const sizes = shards.map(shard => shard.length);
    expect(Math.max(...sizes) - Math.min(...sizes)).toBeLessThanOrEqual(1);
  });

  it('is the whole list when there is none', () => {
    expect(takeShard(NODES, undefined)).toBe(NODES);
  });

  it('takes every N-th node, from the first on', () => {
    expect(takeShard(NODES, parseShard('1/3'))).toEqual(['a', 'd', 'g']);
    expect(takeShard(NODES, parseShard('3/3'))).toEqual(['c', 'f']);
  });

  it('without a node is an error: a job that does nothing proves nothing', () => {
    expect(() => takeShard(['a', 'b'], { index: 3, count: 3 })).toThrow(/no node for 3\/3, the list has 2/);
  });

  it.each(['', '0/2', '3/2', '1', '1/0', '/1', '1/', 'a/b', '1/2/3', '-1/2', '1 / 2', '1/2000', '1/12345'])(
    '%j is refused',
    text => {
      expect(() => parseShard(text)).toThrow(/`shard` must be `i\/N`/);
    },
  );
});

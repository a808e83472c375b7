import { expect, it } from 'vitest';
import { docker } from '../../../src/runtime/docker.ts';

const digest = (character: string) => `sha256:${character.repeat(64)}` as const;
const asked = ['1', '2', '3'].map(character => ({ diffId: digest(character), chainId: digest('0'), blob: undefined }));
const held = (...chains: readonly string[][]) =>
  docker
    .heldLayers(new Map([['chains', chains.map(chain => JSON.stringify(chain.map(digest))).join('\n')]]), asked)
    .map(([blob]) => blob?.digest);

it('has the layers that lie on top of the same layers, of the image that has most of them', () => {
  expect(held(['1', '9'], ['1', '2', '8'], ['4'])).toEqual([digest('1'), digest('2'), undefined]);
  expect(held(['1', '2', '3', '4'])).toEqual([digest('1'), digest('2'), digest('3')]);
});

it('does not have a layer that lies on others there', () => {
  expect(held(['2', '3'])).toEqual([undefined, undefined, undefined]);
  expect(held()).toEqual([undefined, undefined, undefined]);
});

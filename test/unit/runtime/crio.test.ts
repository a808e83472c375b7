import { expect, it } from 'vitest';
import { crio } from '../../../src/runtime/crio.ts';

const digest = (character: string) => `sha256:${character.repeat(64)}` as const;
const asked = ['1', '2'].map(character => ({ diffId: digest(character), chainId: digest('0'), blob: undefined }));
const held = (layers: string) => crio.heldLayers(new Map([['layers', layers]]), asked);

it('has a layer under the digest of its plain tar, whatever it was compressed with', () => {
  const entry = `"id":"x","compressed-diff-digest":"${digest('a')}","compressed-size":3,"diff-digest":"${digest('2')}","diff-size":1427456,"compression":4}`;
  expect(held(entry)).toEqual([[], [{ digest: digest('2'), sizeBytes: 1_427_456, compression: 'none' }]]);
});

it('has none by an entry that tells no size, or when the list cannot be read', () => {
  expect(held(`"diff-digest":"${digest('2')}"}`)).toEqual([[], []]);
  expect(crio.heldLayers(new Map(), asked)).toEqual([[], []]);
});

it('says of a missing blob what skopeo says', () => {
  const said = `open /var/tmp/kube-sideload.x/oci/blobs/sha256/${'a'.repeat(64)}: no such file or directory`;
  expect(crio.lacksContent(said)).toBe(true);
  expect(crio.lacksContent('no space left on device')).toBe(false);
});

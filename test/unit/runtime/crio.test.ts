import { describe, expect, it } from 'vitest';
import type { NodeFacts } from '../../../src/node/facts.ts';
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

describe('the answer', () => {
  const NAME = 'docker.io/library/app:1';
  const CONFIG = { os: 'linux', architecture: 'amd64' };
  const bare = 'a'.repeat(64);

  function said(sections: Readonly<Record<string, unknown>>) {
    const texts = Object.entries(sections).map(([name, text]) => [
      name,
      typeof text === 'string' ? text : JSON.stringify(text),
    ]) as [string, string][];
    return crio.held(new Map(texts), [NAME]).get(NAME);
  }

  it('is what the CRI says, which leaves the algorithm out', () => {
    const known = { imageId: digest('a'), ...CONFIG, unpacked: true, witness: 'crictl' };
    expect(said({ 'config 0': CONFIG, 'cri 0': { status: { id: bare } } })).toEqual({ ...known, isPinned: false });
    expect(said({ 'config 0': CONFIG, 'cri 0': { status: { id: bare, pinned: true } } })).toEqual({
      ...known,
      isPinned: true,
    });
  });

  it.each<[what: string, sections: Readonly<Record<string, unknown>>]>([
    ['the CRI does not have it', { 'config 0': CONFIG, 'cri 0': '' }],
    ['the CRI does not have what podman has', { 'config 0': { ...CONFIG, id: bare }, 'cri 0': '' }],
    ['its storage does not have it', { 'cri 0': { status: { id: bare } } }],
  ])('is that nothing is held: %s', (_what, sections) => {
    expect(said(sections)).toBeUndefined();
  });

  it('is what podman says to a user who may not ask the CRI', () => {
    const known = { imageId: digest('a'), ...CONFIG, unpacked: true, witness: 'podman' };
    expect(said({ 'config 0': { ...CONFIG, id: bare } })).toEqual(known);
    // What was staged has the ID that podman told when it stored it.
    expect(said({ 'config 0': { ...CONFIG, id: 'b'.repeat(64) }, 'loaded 0': bare })).toEqual(known);
  });

  it.each<[what: string, sections: Readonly<Record<string, unknown>>]>([
    ['podman says nothing', {}],
    ['there is no config', { 'loaded 0': bare }],
    ['podman stored nothing', { 'config 0': CONFIG, 'loaded 0': '' }],
    ['podman tells no ID', { 'config 0': CONFIG }],
    ['podman tells something else', { 'config 0': { ...CONFIG, id: `${bare}0` } }],
    ['podman tells something else than a hash', { 'config 0': { ...CONFIG, id: `x${bare}` } }],
  ])('is that nothing is held by podman: %s', (_what, sections) => {
    expect(said(sections)).toBeUndefined();
  });
});

it('moves and removes names, but for a user who may not', () => {
  expect(crio.names({ privilege: 'root' } as NodeFacts)).toContain('give_name');
  expect(crio.names({ privilege: 'user' } as NodeFacts)).toBeUndefined();
});

describe('the layers of its storage', () => {
  const facts = { imageRoot: '/var/lib/containers/storage/overlay-images', privilege: 'root' } as NodeFacts;

  it('are asked for in the list beside the images', () => {
    expect(crio.layers(facts, asked).variables).toEqual({
      LIST: '/var/lib/containers/storage/overlay-layers/layers.json',
      WANTED: [digest('1'), digest('2')].join('\n'),
    });
  });

  it('are not asked for when there are none, or by a user who may not read the list', () => {
    expect(crio.layers(facts, []).body).toBe('');
    expect(crio.layers({ ...facts, privilege: 'user' }, asked).body).toBe('');
    expect(crio.layers(facts, asked).body).not.toBe('');
  });
});

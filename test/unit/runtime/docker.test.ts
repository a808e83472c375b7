import { describe, expect, it } from 'vitest';
import type { NodeFacts } from '../../../src/node/facts.ts';
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

describe('the answer', () => {
  const NAME = 'docker.io/library/app:1';
  const IMAGE = { Id: digest('a'), Os: 'linux', Architecture: 'amd64' };

  function said(sections: Readonly<Record<string, unknown>>) {
    const texts = Object.entries(sections).map(([name, text]) => [name, JSON.stringify(text)] as const);
    return docker.held(new Map(texts), [NAME]).get(NAME);
  }

  it('is what the CRI says, also when Docker says something else', () => {
    const answer = said({ 'image 0': [IMAGE], 'cri 0': { status: { id: digest('b') } } });
    expect(answer).toMatchObject({
      imageId: digest('b'),
      os: 'linux',
      architecture: 'amd64',
      unpacked: true,
      witness: 'crictl',
    });
  });

  it('is what Docker says on a node without crictl', () => {
    expect(said({ 'image 0': [IMAGE] })).toMatchObject({ imageId: digest('a'), witness: 'docker' });
  });

  it.each<[what: string, sections: Readonly<Record<string, unknown>>]>([
    ['Docker has no such image', { 'cri 0': { status: { id: digest('a') } } }],
    ['Docker has none of them', { 'image 0': [], 'cri 0': { status: { id: digest('a') } } }],
    ['Docker answers with something else', { 'image 0': IMAGE, 'cri 0': { status: { id: digest('a') } } }],
    ['the CRI does not have it', { 'image 0': [IMAGE], 'cri 0': '' }],
    ['the CRI answers with something else', { 'image 0': [IMAGE], 'cri 0': { status: {} } }],
    ['Docker tells no ID', { 'image 0': [{ Os: 'linux' }] }],
  ])('is that nothing is held: %s', (_what, sections) => {
    expect(said(sections)).toBeUndefined();
  });
});

it('asks for no layers when there are none, or in a store that loads otherwise', () => {
  const facts = {
    tools: { docker: ['docker'] },
    criSocket: '/run/cri-dockerd.sock',
    imageIds: [],
  } as unknown as NodeFacts;
  expect(docker.layers(facts, []).body).toBe('');
  expect(docker.layers(facts, asked)).toMatchObject({
    body: expect.stringContaining('io.containerd.snapshotter'),
    variables: { WANTED: asked.map(({ diffId }) => diffId).join('\n'), DOCKER: 'docker' },
  });
});

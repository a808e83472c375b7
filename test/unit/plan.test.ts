import { describe, expect, it } from 'vitest';
import type { SideloadError } from '../../src/errors.ts';
import type { Layer, PlatformImage, SourceImage } from '../../src/image/image.ts';
import type { Platform } from '../../src/image/platform.ts';
import type { NodeFacts } from '../../src/node/facts.ts';
import { faultOf, planLayers, planNode, sentBytes, unpackedBytes } from '../../src/plan.ts';
import type { HeldImage } from '../../src/runtime/runtime.ts';

const AMD64: Platform = { os: 'linux', architecture: 'amd64' };
const ARM64: Platform = { os: 'linux', architecture: 'arm64', variant: 'v8' };

function image(character: string, platform = AMD64): PlatformImage {
  return {
    platform,
    imageId: `sha256:${character.repeat(64)}` as PlatformImage['imageId'],
    user: '',
    config: async () => Buffer.from('{}'),
    layers: [],
  };
}

function source(reference: string, ...variants: readonly PlatformImage[]): SourceImage {
  return { reference, origin: 'podman', variants };
}

const BUILT = image('a');
const HELD: HeldImage = {
  imageId: BUILT.imageId,
  os: 'linux',
  architecture: 'amd64',
  unpacked: true,
  witness: 'crictl',
};

/** Only the platform counts here. */
function node(platform: Platform): NodeFacts {
  return { platform } as NodeFacts;
}

describe('what a node holds', () => {
  it('is what CI built when image ID, platform and layers are', () => {
    expect(faultOf(HELD, BUILT)).toBeUndefined();
  });

  it.each<[what: string, held: HeldImage | undefined, fault: RegExp]>([
    ['nothing', undefined, /does not have it/],
    [
      'another image',
      { ...HELD, imageId: image('b').imageId },
      /crictl reports image ID sha256:bbb.*CI built sha256:aaa/,
    ],
    ['another architecture', { ...HELD, architecture: 'arm64' }, /it is for linux\/arm64, not for linux\/amd64/],
    ['another system', { ...HELD, os: 'windows' }, /windows\/amd64/],
    ['a config that cannot be read', { ...HELD, os: 'undefined', architecture: 'undefined' }, /undefined/],
    ['layers that are not unpacked', { ...HELD, unpacked: false }, /not unpacked/],
  ])('is not: %s', (_what, held, fault) => {
    expect(faultOf(held, BUILT)).toMatch(fault);
    const [plan] = planNode([source('app', BUILT)], node(AMD64), new Map([['app', held]]));
    expect(plan?.action).toBe('send');
  });
});

describe('a plan', () => {
  it('sends what is missing and keeps what is there, in the order of the images', () => {
    const sources = [source('one', image('b')), source('two', BUILT), source('three', image('c'))];
    const plan = planNode(sources, node(AMD64), new Map([['two', HELD]]));
    expect(plan.map(({ reference, action }) => `${action} ${reference}`)).toEqual([
      'send one',
      'keep two',
      'send three',
    ]);
  });

  it('takes the variant for the node', () => {
    const both = source('app', image('a', AMD64), image('b', ARM64));
    expect(planNode([both], node(ARM64), new Map())[0]?.image.imageId).toBe(image('b').imageId);
    expect(planNode([both], node(AMD64), new Map())[0]?.image.imageId).toBe(image('a').imageId);
  });

  it('does not keep the right name of another node’s architecture', () => {
    const both = source('app', image('a', AMD64), image('b', ARM64));
    expect(planNode([both], node(ARM64), new Map([['app', HELD]]))[0]?.action).toBe('send');
  });

  it('fails when no variant runs on the node, and says what there is', () => {
    const attempt = () =>
      planNode(
        [source('app', image('a', ARM64), image('b', { os: 'linux', architecture: 's390x' }))],
        node(AMD64),
        new Map(),
      );
    let error: SideloadError | undefined;
    try {
      attempt();
    } catch (thrown) {
      error = thrown as SideloadError;
    }
    expect(error?.code).toBe('PLATFORM_MISMATCH');
    expect(error?.message).toBe('app is built for linux/arm64/v8, linux/s390x, and the node is linux/amd64');
  });

  it('names every image that does not run on the node', () => {
    const images = [source('one', image('a', ARM64)), source('two', image('b')), source('three', image('c', ARM64))];
    expect(() => planNode(images, node(AMD64), new Map())).toThrow(/^one is built .*\nthree is built .*$/);
  });
});

it('a layer that several images share counts once', () => {
  const layer = (character: string, sourceSizeBytes: number) =>
    ({ diffId: `sha256:${character.repeat(64)}`, sourceSizeBytes }) as Layer;
  const images = [
    { ...BUILT, layers: [layer('1', 100), layer('2', 20)] },
    { ...image('b'), layers: [layer('1', 100), layer('3', 3)] },
  ];
  expect(unpackedBytes(images.map(image => ({ image, held: [] })))).toBe(123);
});

describe('an image that has not been read', () => {
  const layer = (character: string, sourceSizeBytes?: number) =>
    ({ diffId: `sha256:${character.repeat(64)}`, sourceSizeBytes }) as Layer;
  const unread = { ...BUILT, layers: [layer('1'), layer('2')], sizeBytes: 500 };
  const blob = (sizeBytes: number) => ({ digest: `sha256:${'f'.repeat(64)}`, sizeBytes, compression: 'zstd' }) as const;

  it('counts as a whole, once, unless the node has some of it', () => {
    const missing = { image: unread, held: [] };
    expect(unpackedBytes([missing])).toBe(500);
    expect(unpackedBytes([missing, missing])).toBe(500);
    expect(unpackedBytes([{ image: unread, held: [blob(1)] }])).toBe(0);
    const partly = { ...unread, layers: [layer('3', 7), layer('4')] };
    expect(unpackedBytes([missing, { image: partly, held: [] }])).toBe(1007);
    // One layer of it has been counted with another image, and one has not.
    expect(unpackedBytes([missing, { image: { ...unread, layers: [layer('1'), layer('5')] }, held: [] }])).toBe(1000);
    expect(unpackedBytes([{ image: { ...BUILT, layers: [layer('1')] }, held: [] }])).toBe(0);
  });

  it('is sent as what lies on the runner, and at most as the whole of it', () => {
    const missing = { image: unread, held: [] };
    expect(sentBytes(missing, [blob(30), blob(4)])).toBe(34);
    expect(sentBytes(missing, [blob(30), undefined])).toBe(500);
    expect(sentBytes(missing, [blob(600), undefined])).toBe(600);
    const read = { ...unread, layers: [layer('1', 100), layer('2', 20)] };
    expect(sentBytes({ image: read, held: [] }, [undefined, blob(4)])).toBe(104);
    expect(sentBytes({ image: read, held: [blob(1)] }, [])).toBe(20);
    expect(sentBytes({ image: { ...BUILT, layers: [layer('1')] }, held: [] }, [])).toBe(0);
  });
});

describe('the layers that a node has', () => {
  const digest = (character: string) => `sha256:${character.repeat(64)}` as const;
  const blob = (character: string, compression: 'gzip' | 'zstd' | 'none' = 'zstd') =>
    ({ digest: digest(character), sizeBytes: 7, compression }) as const;
  const layer = (character: string) => ({ diffId: digest(character), sourceSizeBytes: 100 }) as Layer;
  const layered = { ...BUILT, layers: [layer('1'), layer('2')] };

  it('are left out, under the first name that the node finds them by', () => {
    const held = [[blob('a', 'gzip'), blob('b')], []];
    expect(planLayers(layered, held)).toEqual([blob('a', 'gzip'), undefined]);
    expect(unpackedBytes([{ image: layered, held: planLayers(layered, held) }])).toBe(100);
  });

  it('are left out of an image that keeps its manifest only under the names in there', () => {
    const manifest = {
      digest: digest('f'),
      mediaType: '',
      bytes: Buffer.of(),
      layerDigests: [digest('b'), digest('c')],
    };
    const kept = { ...layered, manifest };
    expect(planLayers(kept, [[blob('a', 'gzip'), blob('b')], [blob('d')]])).toEqual([blob('b'), undefined]);
  });

  it('are none when the node has not been asked', () => {
    expect(planLayers(layered, [])).toEqual([undefined, undefined]);
  });
});

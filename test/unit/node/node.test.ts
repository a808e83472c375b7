import { expect, it } from 'vitest';
import type { PlatformImage } from '../../../src/image/image.ts';
import { newNode, nodeReport } from '../../../src/node/node.ts';
import { nodeSettings } from './settings.ts';

it('estimates an image once, although it has several names', () => {
  const image: PlatformImage = {
    platform: { os: 'linux', architecture: 'amd64' },
    imageId: `sha256:${'a'.repeat(64)}`,
    user: '',
    config: async () => Buffer.from('{}'),
    layers: [{ diffId: `sha256:${'b'.repeat(64)}`, sourceSizeBytes: 100 } as PlatformImage['layers'][0]],
  };
  const node = newNode(nodeSettings('w1'));
  const named = (reference: string, stage: string | undefined) => ({
    ...{
      reference,
      spelling: reference,
      image,
      stage,
      isSandbox: false,
      held: [],
      isWhole: false,
      estimate: { bytes: 100, isExact: true },
    },
    ...({ outcome: 'none', hasMoved: false, isPinned: false, bytesSent: 0, smoke: undefined } as const),
  });
  node.images = [named('one:1', 'stage:0'), named('two:1', 'stage:0'), named('three:1', undefined)];
  expect(nodeReport(node).images.map(({ estimatedBytes }) => estimatedBytes)).toEqual([0, 100, 0]);
});

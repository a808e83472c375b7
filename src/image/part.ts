import { digestOf } from './digest.ts';
import type { PlatformImage } from './image.ts';

/**
 * An image of the lowest layers of another: what a node imports of a large image before the rest of it has come. Its
 * chain IDs are those of the whole, so that the layers lie on the node unpacked when the whole one is imported.
 */
export function partOf({ platform, layers }: PlatformImage, count: number): PlatformImage {
  const lowest = layers.slice(0, count);
  const config = Buffer.from(
    JSON.stringify({
      ...platform,
      config: {},
      rootfs: { type: 'layers', diff_ids: lowest.map(({ diffId }) => diffId) },
    }),
  );
  return { platform, imageId: digestOf(config), user: '', config: async () => config, layers: lowest };
}

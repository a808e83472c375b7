import { follow } from '../abort.ts';
import { SideloadError } from '../errors.ts';
import type { Digest } from './digest.ts';
import type { Layer, PlatformImage, StoredBlob } from './image.ts';
import type { Platform } from './platform.ts';
import type { Scratch } from './scratch.ts';

/** What an engine says of an image before it is read. */
export interface KnownImage {
  readonly imageId: Digest;
  readonly platform: Platform;
  readonly user: string;
  /** Lowest first. */
  readonly diffIds: readonly Digest[];
  /** Of all layers together, unpacked; `undefined` when the engine does not say. */
  readonly sizeBytes: number | undefined;
}

/**
 * An image of which the engine has told what it consists of, and nothing more: it is read when somebody needs its
 * config, or a layer, that is not stored yet. Each layer is there as soon as it has passed, and not only at the end.
 * @param read reads the whole image; called once
 */
export function lazyImage(known: KnownImage, scratch: Scratch, read: () => Promise<PlatformImage>): PlatformImage {
  let reading: Promise<PlatformImage> | undefined;
  const start = () => {
    reading ??= read().then(async image => {
      if (image.imageId !== known.imageId) {
        throw new SideloadError('IMAGE_AMBIGUOUS', `the image was ${known.imageId} and is ${image.imageId} now`, {
          hint: 'Something has built it anew meanwhile; run the job again.',
        });
      }
      await scratch.keepConfig(image.imageId, await image.config());
      return image;
    });
    reading.catch(() => {}); // told to whoever waits for a part of it
    return reading;
  };
  const { platform, imageId, user, diffIds, sizeBytes } = known;
  const readConfig = async () => (await scratch.findConfig(imageId)) ?? (await (await start()).config());
  let config: Promise<Buffer> | undefined;
  const layers = diffIds.map((diffId, index): Layer => {
    const stored = async () => (await scratch.find(diffId))?.blob;
    return {
      diffId,
      sourceSizeBytes: undefined,
      known: stored,
      store: async signal => (await stored()) ?? (await arrival(scratch, diffId, start(), index, signal)),
    };
  });
  return {
    platform,
    imageId,
    user,
    sizeBytes,
    config() {
      config ??= readConfig();
      return config;
    },
    layers,
    prefetch() {
      // Whoever needs a layer is told why it cannot be had.
      for (const layer of layers) layer.store(scratch.signal).catch(() => {});
    },
  };
}

/** The layer as it passes, or what the whole image has in its place at the end. */
async function arrival(
  scratch: Scratch,
  diffId: Digest,
  reading: Promise<PlatformImage>,
  index: number,
  signal: AbortSignal,
): Promise<StoredBlob> {
  const waiting = follow(signal);
  const passed = (async () => {
    const content = await scratch.passing(diffId, waiting.signal);
    await scratch.keep(content);
    return content.blob;
  })();
  const atTheEnd = reading.then(async ({ layers }) => {
    const layer = layers[index];
    if (layer?.diffId !== diffId) {
      throw new SideloadError('INTERNAL', `the layer ${diffId} is none of the image that was read`);
    }
    return await layer.store(signal);
  });
  try {
    return await Promise.race([passed, atTheEnd]);
  } finally {
    waiting.abort();
    for (const promise of [passed, atTheEnd]) promise.catch(() => {}); // the one that lost
  }
}

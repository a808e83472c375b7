import { SideloadError } from './errors.ts';
import type { Digest } from './image/digest.ts';
import type { BlobDescriptor, Layer, PlatformImage, SourceImage } from './image/image.ts';
import { bestMatch, formatPlatform, type Platform } from './image/platform.ts';
import type { MachineFacts } from './node/facts.ts';
import type { HeldImage } from './runtime/runtime.ts';

/** What a node needs to hold one image under its reference. */
export interface ImagePlan {
  readonly reference: string;
  /** The image for the node's platform. */
  readonly image: PlatformImage;
  readonly action: 'keep' | 'send';
}

/**
 * Decides what to send to a node.
 * @param held what the node's runtime holds under each reference now
 * @throws SideloadError PLATFORM_MISMATCH, with all images that have no variant that the node can run
 */
export function planNode(
  images: readonly SourceImage[],
  { platform }: Pick<MachineFacts, 'platform'>,
  held: ReadonlyMap<string, HeldImage | undefined>,
): readonly ImagePlan[] {
  const chosen = images.map(({ reference, variants }) => ({
    reference,
    variants,
    image: bestMatch(variants, platform),
  }));
  const unfit = chosen.filter(({ image }) => image === undefined);
  if (unfit.length > 0) {
    const faults = unfit.map(({ reference, variants }) => {
      const built = variants.map(variant => formatPlatform(variant.platform)).join(', ');
      return `${reference} is built for ${built}, and the node is ${formatPlatform(platform)}`;
    });
    throw new SideloadError('PLATFORM_MISMATCH', faults.join('\n'), {
      hint: `Build it for the node’s architecture too (\`docker build --platform ${formatPlatform(platform)}\`), or take the node off the list (by \`node-selector\` with nodes from the cluster).`,
    });
  }
  return chosen.flatMap(({ reference, image }) =>
    image === undefined
      ? []
      : [{ reference, image, action: faultOf(held.get(reference), image) === undefined ? 'keep' : 'send' } as const],
  );
}

/**
 * Decides which layers of an image are sent and under which name the manifest has those that the node holds.
 * @param held by layer, the blobs by which the node would find it
 * @returns by layer, the blob that is left out; `undefined` for one that is sent
 */
export function planLayers(
  { manifest, layers }: PlatformImage,
  held: readonly (readonly BlobDescriptor[])[],
): readonly (BlobDescriptor | undefined)[] {
  // A manifest that keeps its digest names its blobs and no others.
  return layers.map((_, index) =>
    held[index]?.find(({ digest }) => manifest === undefined || manifest.layerDigests[index] === digest),
  );
}

/** An image, and what the node has of it. */
interface PartlyHeld {
  readonly image: PlatformImage;
  readonly held: readonly (BlobDescriptor | undefined)[];
}

/** The layers that have to be sent. */
export function missingLayers({ image, held }: PartlyHeld): readonly Layer[] {
  return image.layers.filter((_, index) => held[index] === undefined);
}

/**
 * How much room the layers that a node lacks of these images take unpacked, each counted once: at least this, since they
 * may be compressed in the source. Of an image that has not been read its whole size is known and that of no layer.
 */
export function unpackedBytes(images: readonly PartlyHeld[]): number {
  const layers = new Map<Digest, number>();
  let wholeBytes = 0;
  for (const image of images) {
    const missing = missingLayers(image);
    const isUnread = missing.some(({ sourceSizeBytes }) => sourceSizeBytes === undefined);
    if (isUnread && missing.length === image.image.layers.length && missing.some(({ diffId }) => !layers.has(diffId))) {
      wholeBytes += image.image.sizeBytes ?? 0;
    }
    for (const { diffId, sourceSizeBytes = 0 } of missing) layers.set(diffId, sourceSizeBytes);
  }
  return [...layers.values()].reduce((sum, bytes) => sum + bytes, wholeBytes);
}

/**
 * What the layers amount to that have to be sent: as they lie on the runner, else as they are in the source.
 * @param blobs what the runner has of the missing layers, in their order
 */
export function sentBytes(image: PartlyHeld, blobs: readonly (BlobDescriptor | undefined)[]): number {
  const missing = missingLayers(image);
  const known = missing.map(({ sourceSizeBytes }, index) => blobs[index]?.sizeBytes ?? sourceSizeBytes);
  const sum = known.reduce<number>((total, bytes) => total + (bytes ?? 0), 0);
  // Never more than the whole of it.
  return known.includes(undefined) ? Math.max(sum, image.image.sizeBytes ?? 0) : sum;
}

/** How what a node holds differs from what CI built, and in words; `undefined` when it is exactly that. */
export function differenceOf(
  held: HeldImage | undefined,
  { imageId, platform }: { readonly imageId: string; readonly platform: Platform },
): { readonly kind: 'missing' | 'other-image' | 'not-unpacked'; readonly says: string } | undefined {
  if (held === undefined) {
    return { kind: 'missing', says: 'the runtime does not have it' };
  }
  if (held.imageId !== imageId) {
    return { kind: 'other-image', says: `${held.witness} reports image ID ${held.imageId}, CI built ${imageId}` };
  }
  if (held.os !== platform.os || held.architecture !== platform.architecture) {
    const says = `it is for ${held.os}/${held.architecture}, not for ${formatPlatform(platform)}`;
    return { kind: 'other-image', says };
  }
  return held.unpacked ? undefined : { kind: 'not-unpacked', says: 'its layers are not unpacked' };
}

/** The words of {@link differenceOf}. */
export function faultOf(held: HeldImage | undefined, image: PlatformImage): string | undefined {
  return differenceOf(held, image)?.says;
}

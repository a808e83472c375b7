import { SideloadError } from './errors.ts';
import type { PlatformImage, SourceImage } from './image/image.ts';
import { bestMatch, formatPlatform } from './image/platform.ts';
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
    throw new SideloadError('PLATFORM_MISMATCH', faults.join('\n'));
  }
  return chosen.flatMap(({ reference, image }) =>
    image === undefined
      ? []
      : [{ reference, image, action: faultOf(held.get(reference), image) === undefined ? 'keep' : 'send' } as const],
  );
}

/**
 * How much the layers of these images are, each counted once: at least what they take unpacked, since they may be
 * compressed in the source, and about what their archive can be at most.
 */
export function layersBytes(images: readonly PlatformImage[]): number {
  const layers = new Map(images.flatMap(({ layers }) => layers.map(layer => [layer.diffId, layer] as const)));
  return [...layers.values()].reduce((sum, layer) => sum + layer.sourceSizeBytes, 0);
}

/** What is wrong with what a node holds, compared with what CI built; `undefined` when it is exactly that. */
export function faultOf(held: HeldImage | undefined, image: PlatformImage): string | undefined {
  if (held === undefined) {
    return 'the runtime does not have it';
  }
  if (held.imageId !== image.imageId) {
    return `${held.witness} reports image ID ${held.imageId}, CI built ${image.imageId}`;
  }
  if (held.os !== image.platform.os || held.architecture !== image.platform.architecture) {
    return `it is for ${held.os}/${held.architecture}, not for ${formatPlatform(image.platform)}`;
  }
  return held.unpacked ? undefined : 'its layers are not unpacked';
}

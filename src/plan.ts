import { SideloadError } from './errors.ts';
import type { PlatformImage, SourceImage } from './image/image.ts';
import { bestMatch, formatPlatform } from './image/platform.ts';
import type { NodeFacts } from './node/facts.ts';
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
 * @throws SideloadError PLATFORM_MISMATCH when an image has no variant that the node can run
 */
export function planNode(
  images: readonly SourceImage[],
  facts: NodeFacts,
  held: ReadonlyMap<string, HeldImage | undefined>,
): readonly ImagePlan[] {
  return images.map(({ reference, variants }) => {
    const image = bestMatch(variants, facts.platform);
    if (image === undefined) {
      const built = variants.map(variant => formatPlatform(variant.platform)).join(', ');
      throw new SideloadError(
        'PLATFORM_MISMATCH',
        `${reference} is built for ${built}, and the node is ${formatPlatform(facts.platform)}`,
      );
    }
    return { reference, image, action: faultOf(held.get(reference), image) === undefined ? 'keep' : 'send' };
  });
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

import { messageOf } from './errors.ts';
import type { ImageSet, SourceImage } from './image/image.ts';
import { normalise } from './image/reference.ts';
import type { Node } from './node/node.ts';

/** The images that sandboxes are made of and that nodes lack, by the names that their runtimes have for them. */
export interface SandboxImages {
  readonly images: readonly SourceImage[];
  /** Those that a node lacks. */
  of(node: Node): readonly SourceImage[];
  close(): Promise<void>;
}

export const NO_SANDBOX_IMAGES: SandboxImages = { images: [], of: () => [], close: async () => {} };

/**
 * Opens what nodes lack to start pods at all, each by itself: one that cannot be opened is logged, and stays what the
 * preflight finds missing.
 * @param sent the images of the run; what is among them is not opened again
 */
export async function openSandboxImages(
  nodes: readonly Node[],
  sent: readonly SourceImage[],
  open: (reference: string) => Promise<ImageSet>,
  log: (line: string) => void,
): Promise<SandboxImages> {
  const lacking = new Set(nodes.flatMap(node => missingOn(node) ?? []));
  const sets: ImageSet[] = [];
  for (const reference of lacking) {
    if (sent.some(image => image.reference === reference || image.aliases?.includes(reference))) {
      continue;
    }
    try {
      sets.push(await open(reference));
    } catch (error) {
      log(`${reference}, which nodes lack, cannot be sent along: ${messageOf(error)}`);
    }
  }
  const images = sets.flatMap(set => set.images);
  return {
    images,
    of: node => images.filter(({ reference }) => reference === missingOn(node)),
    close: async () => {
      await Promise.all(sets.map(set => set.close()));
    },
  };
}

/** A name in a runtime's configuration that is none is that of no image. */
function missingOn({ facts }: Node): string | undefined {
  const sandbox = facts?.sandbox;
  if (sandbox === undefined || sandbox.isHeld) {
    return undefined;
  }
  try {
    return normalise(sandbox.reference);
  } catch {
    return undefined;
  }
}

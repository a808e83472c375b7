import { chainIds } from '../image/chain-id.ts';
import type { BlobDescriptor, PlatformImage, StoredBlob } from '../image/image.ts';
import { missingLayers, planLayers, sentBytes } from '../plan.ts';
import type { Run } from '../run.ts';
import { runtimeOf } from '../runtime/detect.ts';
import type { AskedLayer } from '../runtime/runtime.ts';
import type { Settings } from '../settings.ts';
import { type Node, type NodeImage, ready } from './node.ts';
import { runScript } from './script.ts';

/** About what config, manifest, index and the headers of an archive take. */
export const METADATA_BYTES = 8 * 1024;

/** Asks the node which layers it has of the images that it lacks. */
export async function askLayers(
  node: Node,
  images: readonly NodeImage[],
  { delta }: Pick<Settings, 'delta'>,
  run: Run,
): Promise<void> {
  if (images.length === 0) {
    return;
  }
  const { connection, facts } = ready(node);
  const runtime = runtimeOf(facts.runtime.name);
  const asked = await Promise.all(images.map(({ image }) => askedLayers(image)));
  const ask = () =>
    runScript(connection, runtime.layers(facts, asked.flat()), run.signal, 'reading which layers it has');
  const sections = delta ? await ask() : new Map();
  for (const [index, target] of images.entries()) {
    target.held = delta ? planLayers(target.image, runtime.heldLayers(sections, asked[index] ?? [])) : [];
    const blobs = missingLayers(target).map(({ diffId }) => asked[index]?.find(layer => layer.diffId === diffId)?.blob);
    target.estimate = {
      bytes: METADATA_BYTES + sentBytes(target, blobs),
      isExact: !blobs.includes(undefined),
    };
  }
}

async function askedLayers({ layers }: PlatformImage): Promise<readonly AskedLayer[]> {
  const chain = chainIds(layers.map(({ diffId }) => diffId));
  const blobs = await Promise.all(layers.map(async layer => describe(await layer.known())));
  return layers.map(({ diffId }, index) => ({ diffId, chainId: chain[index] ?? diffId, blob: blobs[index] }));
}

/** A blob without its bytes: what is left out of an archive is told from what is sent by that. */
export function describe(blob: StoredBlob): BlobDescriptor;
export function describe(blob: StoredBlob | undefined): BlobDescriptor | undefined;
export function describe(blob: StoredBlob | undefined): BlobDescriptor | undefined {
  return blob && { digest: blob.digest, sizeBytes: blob.sizeBytes, compression: blob.compression };
}

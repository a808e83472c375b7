import { open, rename, rm } from 'node:fs/promises';
import { basename, dirname, join, resolve } from 'node:path';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { follow } from '../abort.ts';
import { makeDirectory } from '../directory.ts';
import { messageOf, SideloadError } from '../errors.ts';
import { isDiskFull } from './blob-file.ts';
import { createTally, type Digest, digestOf } from './digest.ts';
import { type BlobDescriptor, type PlatformImage, referencesOf, type SourceImage, type StoredBlob } from './image.ts';
import type { MetadataFile } from './layout.ts';
import { blobPath, type Descriptor, dockerManifest, INDEX_TYPE, indexOf, json, manifestOf, tarOf } from './layout.ts';
import { formatPlatform } from './platform.ts';
import { parseReference } from './reference.ts';

/** What is in a bundle besides the layout, for whoever wants to know what it will do before a push. */
const CONTENTS_FILE = 'kube-sideload.json';

interface BundleOptions {
  /** The file to write; what is there stays until the new one is complete. */
  readonly path: string;
  readonly runId: string;
  /** Of this program. */
  readonly version: string;
  readonly signal: AbortSignal;
}

/** A bundle that is complete. */
export interface BundleFile {
  readonly sizeBytes: number;
  readonly digest: Digest;
}

/**
 * Writes images into one file: an OCI archive with all of their names and platforms, and layers as they would be sent.
 * Every blob is named by its digest, so that whoever reads one can prove it.
 * @throws SideloadError DISK_FULL, BUNDLE_FAILED, CANCELLED, and what reading the images throws; nothing is left then
 */
export async function writeBundle(
  images: readonly SourceImage[],
  { path, runId, version, signal }: BundleOptions,
): Promise<BundleFile> {
  const aside = partialPath(path, runId);
  const leaving = follow(signal);
  const stored = storeAll(images, leaving.signal);
  const metadata = async () => ({ files: await filesOf(images, stored, version) });
  const tally = createTally();
  async function* tallied(): AsyncGenerator<Buffer> {
    for await (const chunk of tarOf([...stored.values()].flat(), metadata)) {
      tally.add(chunk);
      yield chunk;
    }
  }
  try {
    await makeDirectory(dirname(aside));
    const file = await open(aside, 'wx');
    await pipeline(Readable.from(tallied(), { objectMode: false, highWaterMark: 1 << 20 }), file.createWriteStream(), {
      signal,
    });
    await syncFile(aside);
    await rename(aside, path);
    return tally.result();
  } catch (error) {
    await removePartial(path, runId);
    if (signal.aborted || error instanceof SideloadError) throw error;
    if (isDiskFull(error)) {
      throw new SideloadError('DISK_FULL', `no space left for ${path}`, { cause: error });
    }
    throw new SideloadError('BUNDLE_FAILED', `${path}: ${messageOf(error)}`, { cause: error });
  } finally {
    leaving.abort(new SideloadError('CANCELLED', 'the bundle is not written any more'));
  }
}

/** Removes what a run that was killed has left of a bundle. */
export async function removePartial(path: string, runId: string): Promise<void> {
  await rm(partialPath(path, runId), { force: true });
}

function partialPath(path: string, runId: string): string {
  const whole = resolve(path);
  return join(dirname(whole), `.${basename(whole)}.${runId}.partial`);
}

/** A disk that is pulled out next must have the whole file under its name. */
async function syncFile(path: string): Promise<void> {
  const file = await open(path, 'r');
  try {
    await file.sync();
  } finally {
    await file.close();
  }
}

type Stored = ReadonlyMap<PlatformImage, readonly Promise<StoredBlob>[]>;

/** Begins to store all layers; images that share one store it once. */
function storeAll(images: readonly SourceImage[], signal: AbortSignal): Stored {
  const variants = images.flatMap(image => image.variants);
  return new Map(
    variants.map(variant => {
      const blobs = variant.layers.map(layer => layer.store(signal));
      for (const blob of blobs) blob.catch(() => {}); // whoever reads the archive is told
      return [variant, blobs] as const;
    }),
  );
}

/** An image with what names it in the layout. */
interface Laid {
  readonly image: SourceImage;
  /** Of its manifest, or of the index of its manifests when there are several platforms. */
  readonly descriptor: Descriptor;
  readonly variants: readonly {
    readonly variant: PlatformImage;
    readonly manifest: Digest;
    readonly blobs: readonly BlobDescriptor[];
  }[];
}

async function filesOf(
  images: readonly SourceImage[],
  stored: Stored,
  version: string,
): Promise<readonly MetadataFile[]> {
  const blobs = new Map<string, MetadataFile>();
  const add = (bytes: Buffer) => blobs.set(blobPath(digestOf(bytes)), { name: blobPath(digestOf(bytes)), bytes });
  const laid: Laid[] = [];
  for (const image of images) {
    const described: Descriptor[] = [];
    const variants: Laid['variants'][number][] = [];
    for (const variant of image.variants) {
      const layers = await Promise.all(stored.get(variant) ?? []);
      const config = await variant.config();
      const { descriptor, bytes } = manifestOf(variant, config, layers);
      add(config);
      add(bytes);
      described.push(descriptor);
      variants.push({ variant, manifest: descriptor.digest, blobs: layers });
    }
    const [only] = described;
    if (only !== undefined && described.length === 1) {
      laid.push({ image, descriptor: only, variants });
      continue;
    }
    const index = indexOf(described);
    add(index);
    const descriptor = { mediaType: INDEX_TYPE, digest: digestOf(index), size: index.length };
    laid.push({ image, descriptor, variants });
  }
  for (const one of laid) assertDigests(one);
  return [
    ...blobs.values(),
    { name: 'index.json', bytes: namesOf(laid) },
    ...forDocker(laid),
    { name: CONTENTS_FILE, bytes: contentsOf(laid, version) },
  ];
}

/** A name by digest must lead to content of this digest: readers would refuse it, or take it for something else. */
function assertDigests({ image, descriptor }: Laid): void {
  for (const reference of referencesOf(image)) {
    const { digest } = parseReference(reference);
    if (digest !== undefined && digest !== descriptor.digest) {
      throw new SideloadError(
        'BUNDLE_FAILED',
        `${reference} would have the digest ${descriptor.digest} in the bundle`,
        {
          hint: 'Name the image by a tag: its layers are compressed anew, and an index of several platforms is written anew.',
        },
      );
    }
  }
}

/** Whole names in both annotations: two images may have the same tag, and skopeo looks for the whole text. */
function namesOf(laid: readonly Laid[]): Buffer {
  return indexOf(
    laid.flatMap(({ image, descriptor }) =>
      referencesOf(image).map(reference => ({
        ...descriptor,
        annotations: { 'io.containerd.image.name': reference, 'org.opencontainers.image.ref.name': reference },
      })),
    ),
  );
}

/** A docker-archive has one platform under a name: it would hide all but one. */
function forDocker(laid: readonly Laid[]): readonly MetadataFile[] {
  if (laid.some(({ variants }) => variants.length !== 1)) return [];
  const entries = laid.flatMap(({ image, variants }) =>
    variants.map(({ variant, blobs }) => ({ imageId: variant.imageId, references: referencesOf(image), blobs })),
  );
  return [dockerManifest(entries)];
}

function contentsOf(laid: readonly Laid[], version: string): Buffer {
  return json({
    schemaVersion: 1,
    tool: { name: 'kube-sideload', version },
    created: new Date().toISOString(),
    images: laid.map(({ image, variants }) => ({
      reference: image.reference,
      aliases: image.aliases ?? [],
      platforms: Object.fromEntries(
        variants.map(({ variant, manifest, blobs }) => [
          formatPlatform(variant.platform),
          {
            imageId: variant.imageId,
            manifest,
            layers: variant.layers.map(({ diffId }, index) => ({
              diffId,
              blob: blobs[index]?.digest,
              sizeBytes: blobs[index]?.sizeBytes,
            })),
          },
        ]),
      ),
    })),
  });
}

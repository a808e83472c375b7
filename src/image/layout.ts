import { once } from 'node:events';
import { Readable } from 'node:stream';
import { pack } from 'tar-stream';
import { SideloadError } from '../errors.ts';
import { type Digest, digestOf, hexOf } from './digest.ts';
import type { BlobDescriptor, Compression, PlatformImage, StoredBlob } from './image.ts';
import type { Platform } from './platform.ts';
import { parseReference } from './reference.ts';

const MANIFEST_TYPE = 'application/vnd.oci.image.manifest.v1+json';
export const INDEX_TYPE = 'application/vnd.oci.image.index.v1+json';
const CONFIG_TYPE = 'application/vnd.oci.image.config.v1+json';
const LAYER_TYPES: Readonly<Record<Compression, string>> = {
  none: 'application/vnd.oci.image.layer.v1.tar',
  gzip: 'application/vnd.oci.image.layer.v1.tar+gzip',
  zstd: 'application/vnd.oci.image.layer.v1.tar+zstd',
};
const BLOCK_BYTES = 512;
/** Two zero blocks end a tar (POSIX pax: ustar interchange format). */
const END_OF_ARCHIVE = Buffer.alloc(2 * BLOCK_BYTES);

/** A blob that is sent, now or when it is there; or one that the node has, which is named and left out. */
export type LayoutBlob = StoredBlob | Promise<StoredBlob> | BlobDescriptor;

interface LayoutOptions {
  /** The full name, as in `docker.io/library/app:1`: containerd does not normalise the name in an OCI archive. */
  readonly reference: string;
  readonly image: PlatformImage;
  /** One for each layer of the image, in its order. */
  readonly blobs: readonly LayoutBlob[];
}

/** An OCI image layout in one tar (OCI image-spec, image layout), which can be streamed as often as needed. */
export interface LayoutArchive {
  /** Its chunks are the reader's: the memory of each may be given back. */
  stream(): Readable;
  /** Known when all blobs are there; `sizeBytes` is that of the whole tar. */
  summary(): Promise<{ readonly manifestDigest: Digest; readonly sizeBytes: number }>;
}

/**
 * Lays one image out as an OCI archive that is a docker-archive as well: one form for every runtime. The layers come
 * first, each as soon as it is there, and what names them comes last: a transfer begins before the source has been read
 * to its end, and one that was cut is no image. An archive that leaves blobs out still names them ("thin"), which stock
 * importers accept when they hold those. A manifest that the image wants to keep is sent as it is, as long as the blobs
 * are the ones that it names.
 * The stream fails when a blob does not come, when its file fails, or when that has another size than it says.
 */
export function layoutArchive({ reference, image, blobs }: LayoutOptions): LayoutArchive {
  if (blobs.length !== image.layers.length) {
    throw new SideloadError('INTERNAL', `${blobs.length} blobs for ${image.layers.length} layers of ${reference}`);
  }
  const coming = blobs.map(async blob => await blob);
  for (const blob of coming) blob.catch(() => {}); // whoever reads the stream is told
  const metadata = async () => metadataOf(reference, image, await image.config(), await Promise.all(coming));
  return {
    stream: () => Readable.from(tarOf(coming, metadata), { highWaterMark: 4 }),
    async summary() {
      const all = await Promise.all(coming);
      const { manifestDigest, files } = await metadata();
      const sent = new Map(all.filter(isStored).map(blob => [blob.digest, blob.sizeBytes]));
      const sizes = [LAYOUT_FILE.bytes.length, ...sent.values(), ...files.map(({ bytes }) => bytes.length)];
      const sizeBytes = sizes.reduce((sum, size) => sum + BLOCK_BYTES + size + paddingBytes(size), 0);
      return { manifestDigest, sizeBytes: sizeBytes + END_OF_ARCHIVE.length };
    },
  };
}

/** A small file of a layout, which names what else is in it. */
export interface MetadataFile {
  readonly name: string;
  readonly bytes: Buffer;
}

const LAYOUT_FILE: MetadataFile = { name: 'oci-layout', bytes: json({ imageLayoutVersion: '1.0.0' }) };

/** How an index names what is in it (OCI image-spec, descriptor). */
export interface Descriptor {
  readonly mediaType: string;
  readonly digest: Digest;
  readonly size: number;
  readonly platform?: Platform;
}

/** The manifest of an image with these blobs: the one that it wants to keep when that names them, else a new one. */
export function manifestOf(
  image: PlatformImage,
  config: Buffer,
  blobs: readonly BlobDescriptor[],
): { readonly descriptor: Descriptor; readonly bytes: Buffer } {
  const kept =
    image.manifest?.layerDigests.join() === blobs.map(blob => blob.digest).join() ? image.manifest : undefined;
  const mediaType = kept?.mediaType ?? MANIFEST_TYPE;
  const written = json({
    schemaVersion: 2,
    mediaType: MANIFEST_TYPE,
    config: { mediaType: CONFIG_TYPE, digest: image.imageId, size: config.length },
    layers: blobs.map(blob => ({
      mediaType: LAYER_TYPES[blob.compression],
      digest: blob.digest,
      size: blob.sizeBytes,
    })),
  });
  const bytes = kept?.bytes ?? written;
  // Without its platform containerd takes the image for one of the node's own, whatever it is.
  const { platform } = image;
  return { descriptor: { mediaType, digest: digestOf(bytes), size: bytes.length, platform }, bytes };
}

/** What the classic image store of Docker reads, and nothing else (moby image/tarexport); the others look at index.json first. */
export function dockerManifest(
  entries: readonly {
    readonly imageId: Digest;
    readonly references: readonly string[];
    readonly blobs: readonly BlobDescriptor[];
  }[],
): MetadataFile {
  const described = entries.map(({ imageId, references, blobs }) => {
    // A name without a tag is an error there.
    const tags = references.filter(reference => parseReference(reference).tag !== undefined);
    return {
      Config: blobPath(imageId),
      RepoTags: tags.length === 0 ? null : tags,
      Layers: blobs.map(blob => blobPath(blob.digest)),
    };
  });
  return { name: 'manifest.json', bytes: json(described) };
}

function metadataOf(
  reference: string,
  image: PlatformImage,
  config: Buffer,
  blobs: readonly BlobDescriptor[],
): { readonly manifestDigest: Digest; readonly files: readonly MetadataFile[] } {
  const { descriptor, bytes: manifest } = manifestOf(image, config, blobs);
  const manifestDigest = descriptor.digest;
  const { tag } = parseReference(reference);
  const index = indexOf([
    {
      ...descriptor,
      annotations: {
        'io.containerd.image.name': reference,
        ...(tag === undefined ? {} : { 'org.opencontainers.image.ref.name': tag }),
      },
    },
  ]);
  const files = [
    { name: blobPath(image.imageId), bytes: config },
    { name: blobPath(manifestDigest), bytes: manifest },
    { name: 'index.json', bytes: index },
    dockerManifest([{ imageId: image.imageId, references: [reference], blobs }]),
  ];
  return { manifestDigest, files };
}

/** An index in bytes. */
export function indexOf(
  manifests: readonly (Descriptor & { readonly annotations?: Readonly<Record<string, string>> })[],
): Buffer {
  return json({ schemaVersion: 2, mediaType: INDEX_TYPE, manifests });
}

function isStored(blob: BlobDescriptor | StoredBlob): blob is StoredBlob {
  return 'open' in blob;
}

export function json(value: unknown): Buffer {
  return Buffer.from(JSON.stringify(value));
}

export function blobPath(digest: Digest): string {
  return `blobs/sha256/${hexOf(digest)}`;
}

function paddingBytes(sizeBytes: number): number {
  return (BLOCK_BYTES - (sizeBytes % BLOCK_BYTES)) % BLOCK_BYTES;
}

/** A layout as a tar: the blobs as they come, each once, and then the files that name them. */
// A generator, because leaving it early (the stream is destroyed) ends the inner loop, and that closes the blob's file.
export async function* tarOf(
  blobs: readonly Promise<BlobDescriptor | StoredBlob>[],
  metadata: () => Promise<{ readonly files: readonly MetadataFile[] }>,
): AsyncGenerator<Buffer> {
  yield* memoryEntry(LAYOUT_FILE);
  const sent = new Set<Digest>(); // a blob that two layers share is there once
  for await (const blob of asTheyCome(blobs)) {
    if (!isStored(blob) || sent.has(blob.digest)) continue;
    sent.add(blob.digest);
    yield await headerOf(blobPath(blob.digest), blob.sizeBytes);
    yield* bodyOf(blob);
    yield* padding(blob.sizeBytes);
  }
  for (const file of (await metadata()).files) yield* memoryEntry(file);
  yield END_OF_ARCHIVE;
}

async function* memoryEntry({ name, bytes }: MetadataFile): AsyncGenerator<Buffer> {
  yield await headerOf(name, bytes.length);
  yield Buffer.from(bytes); // a copy: the next archive has the same file
  yield* padding(bytes.length);
}

function* padding(sizeBytes: number): Generator<Buffer> {
  const bytes = paddingBytes(sizeBytes);
  if (bytes > 0) yield Buffer.alloc(bytes);
}

/** The values of promises in the order in which they come; fails with the first that fails. */
async function* asTheyCome<T>(promises: readonly Promise<T>[]): AsyncGenerator<T> {
  const waiting = new Map(promises.map((promise, index) => [index, promise.then(value => ({ index, value }))]));
  for (const promise of waiting.values()) promise.catch(() => {}); // the first that fails is the one to tell
  while (waiting.size > 0) {
    const { index, value } = await Promise.race(waiting.values());
    waiting.delete(index);
    yield value;
  }
}

async function* bodyOf(blob: StoredBlob): AsyncGenerator<Buffer> {
  let readBytes = 0;
  for await (const chunk of blob.open() as AsyncIterable<Buffer>) {
    readBytes += chunk.length;
    // More bytes than the header says would be read as the next header.
    if (readBytes > blob.sizeBytes) break;
    yield chunk;
  }
  if (readBytes !== blob.sizeBytes) {
    throw new SideloadError('INTERNAL', `the stored blob ${blob.digest} is not ${blob.sizeBytes} bytes long any more`);
  }
}

/** The header block of a file: tar-stream writes it, and the entry's body goes past tar-stream in big chunks. */
async function headerOf(name: string, sizeBytes: number): Promise<Buffer> {
  const tar = pack();
  tar.on('error', () => {}); // the entry is abandoned after its header, on purpose
  tar.entry({ name, size: sizeBytes, mtime: new Date(0), mode: 0o644 }).on('error', () => {});
  await once(tar, 'readable');
  const header = tar.read() as Buffer;
  tar.destroy();
  return header;
}

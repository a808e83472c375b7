import { once } from 'node:events';
import { Readable } from 'node:stream';
import { pack } from 'tar-stream';
import { SideloadError } from '../errors.ts';
import { type Digest, digestOf, hexOf } from './digest.ts';
import type { Compression, PlatformImage, StoredBlob } from './image.ts';
import { parseReference } from './reference.ts';

const MANIFEST_TYPE = 'application/vnd.oci.image.manifest.v1+json';
const CONFIG_TYPE = 'application/vnd.oci.image.config.v1+json';
const LAYER_TYPES: Readonly<Record<Compression, string>> = {
  none: 'application/vnd.oci.image.layer.v1.tar',
  gzip: 'application/vnd.oci.image.layer.v1.tar+gzip',
  zstd: 'application/vnd.oci.image.layer.v1.tar+zstd',
};
const BLOCK_BYTES = 512;
/** Two zero blocks end a tar (POSIX pax: ustar interchange format). */
const END_OF_ARCHIVE = Buffer.alloc(2 * BLOCK_BYTES);

interface LayoutOptions {
  /** The full name, as in `docker.io/library/app:1`: containerd does not normalise the name in an OCI archive. */
  readonly reference: string;
  readonly image: PlatformImage;
  /** One for each layer of the image, in its order. */
  readonly blobs: readonly StoredBlob[];
  /** Layer blobs that the node has already, and that are therefore left out. */
  readonly omit?: ReadonlySet<Digest>;
}

/** An OCI image layout in one tar (OCI image-spec, image layout), which can be streamed as often as needed. */
export interface LayoutArchive {
  readonly manifestDigest: Digest;
  /** Size of the whole tar. */
  readonly sizeBytes: number;
  stream(): Readable;
}

interface Entry {
  readonly name: string;
  readonly sizeBytes: number;
  readonly content: Buffer | StoredBlob;
}

/**
 * Lays one image out as an OCI archive that is a docker-archive as well: one form for every runtime. Equal input gives
 * equal bytes. Without `omit` the archive is whole; with it the manifest still names every layer ("thin"), which stock
 * importers accept when they hold the rest. A manifest that the image wants to keep is sent as it is, as long as the
 * blobs are the ones that it names.
 * The stream fails when a blob's file fails or has another size than it says.
 */
export function layoutArchive({ reference, image, blobs, omit = new Set() }: LayoutOptions): LayoutArchive {
  if (blobs.length !== image.layers.length) {
    throw new SideloadError('INTERNAL', `${blobs.length} blobs for ${image.layers.length} layers of ${reference}`);
  }
  const kept =
    image.manifest?.layerDigests.join() === blobs.map(blob => blob.digest).join() ? image.manifest : undefined;
  const mediaType = kept?.mediaType ?? MANIFEST_TYPE;
  const written = json({
    schemaVersion: 2,
    mediaType: MANIFEST_TYPE,
    config: { mediaType: CONFIG_TYPE, digest: image.imageId, size: image.config.length },
    layers: blobs.map(blob => ({
      mediaType: LAYER_TYPES[blob.compression],
      digest: blob.digest,
      size: blob.sizeBytes,
    })),
  });
  const manifest = kept?.bytes ?? written;
  const manifestDigest = digestOf(manifest);
  const { tag } = parseReference(reference);
  const index = json({
    schemaVersion: 2,
    mediaType: 'application/vnd.oci.image.index.v1+json',
    manifests: [
      {
        mediaType,
        digest: manifestDigest,
        size: manifest.length,
        annotations: {
          'io.containerd.image.name': reference,
          ...(tag === undefined ? {} : { 'org.opencontainers.image.ref.name': tag }),
        },
        // Without it containerd takes the image for one of the node's own platform, whatever it is.
        platform: image.platform,
      },
    ],
  });
  // The classic image store of Docker reads nothing but this (moby image/tarexport); the others look at index.json first.
  const dockerManifest = json([
    // A name without a tag is an error there.
    {
      Config: blobPath(image.imageId),
      RepoTags: tag === undefined ? null : [reference],
      Layers: blobs.map(blob => blobPath(blob.digest)),
    },
  ]);
  // A blob that two layers share is there once.
  const sent = new Map(blobs.filter(blob => !omit.has(blob.digest)).map(blob => [blob.digest, blob]));
  const entries: readonly Entry[] = [
    memoryEntry('oci-layout', json({ imageLayoutVersion: '1.0.0' })),
    memoryEntry('index.json', index),
    memoryEntry('manifest.json', dockerManifest),
    memoryEntry(blobPath(manifestDigest), manifest),
    memoryEntry(blobPath(image.imageId), image.config),
    ...[...sent.values()].map(blob => ({ name: blobPath(blob.digest), sizeBytes: blob.sizeBytes, content: blob })),
  ];
  return {
    manifestDigest,
    sizeBytes: entries.reduce(
      (sum, { sizeBytes }) => sum + BLOCK_BYTES + sizeBytes + paddingBytes(sizeBytes),
      END_OF_ARCHIVE.length,
    ),
    stream: () => Readable.from(tarOf(entries), { objectMode: false, highWaterMark: 1 << 20 }),
  };
}

function json(value: unknown): Buffer {
  return Buffer.from(JSON.stringify(value));
}

function memoryEntry(name: string, content: Buffer): Entry {
  return { name, sizeBytes: content.length, content };
}

function blobPath(digest: Digest): string {
  return `blobs/sha256/${hexOf(digest)}`;
}

function paddingBytes(sizeBytes: number): number {
  return (BLOCK_BYTES - (sizeBytes % BLOCK_BYTES)) % BLOCK_BYTES;
}

// A generator, because leaving it early (the stream is destroyed) ends the inner loop, and that closes the blob's file.
async function* tarOf(entries: readonly Entry[]): AsyncGenerator<Buffer> {
  for (const { name, sizeBytes, content } of entries) {
    yield await headerOf(name, sizeBytes);
    if (Buffer.isBuffer(content)) {
      yield content;
    } else {
      yield* bodyOf(content);
    }
    const padding = paddingBytes(sizeBytes);
    if (padding > 0) yield Buffer.alloc(padding);
  }
  yield END_OF_ARCHIVE;
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

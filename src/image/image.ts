import type { Readable } from 'node:stream';
import type { Digest } from './digest.ts';
import type { Platform } from './platform.ts';

/** How the bytes of a blob are compressed; `none` is a plain tar. */
export type Compression = 'none' | 'gzip' | 'zstd';

/** A blob as a manifest names it (OCI image-spec, descriptor). */
export interface BlobDescriptor {
  readonly digest: Digest;
  readonly sizeBytes: number;
  readonly compression: Compression;
}

/** A blob that can be read as often as needed. */
export interface StoredBlob extends BlobDescriptor {
  open(): Readable;
}

/** A layer of an image. */
export interface Layer {
  /** Digest of the uncompressed tar, as the image's config names it. */
  readonly diffId: Digest;
  /** Size as found in the source, where it may be compressed; `undefined` of a layer that has not been read. */
  readonly sourceSizeBytes: number | undefined;
  /**
   * Reads the layer, proves it against its digest and compresses it, once for all callers; the blob then lies in the
   * scratch directory, or where it was when it was compressed there. A caller's signal ends that caller's wait; the work ends when the last caller has left.
   * @throws SideloadError ARCHIVE_CORRUPT, ARCHIVE_INVALID, DISK_FULL, CANCELLED
   */
  store(signal: AbortSignal): Promise<StoredBlob>;
  /** The blob of {@link store} when it is there already; `undefined` when work would have to be done for it. */
  known(): Promise<StoredBlob | undefined>;
}

/** An image for one platform. */
export interface PlatformImage {
  readonly platform: Platform;
  /** Digest of the config, which is the image ID in every engine and runtime. */
  readonly imageId: Digest;
  /** The user that its config names; empty for none, which is root. */
  readonly user: string;
  /** Reads the source when that has not been done yet; throws what reading it throws. */
  config(): Promise<Buffer>;
  readonly layers: readonly Layer[];
  /** Of all layers together, by the source's own word. */
  readonly sizeBytes?: number | undefined;
  /** Begins to read the source, for an image that nobody can have; absent when it has been read. */
  prefetch?(): void;
  /**
   * The source's own manifest, when the reference asks for its digest. Sent as it is, it keeps that digest; a blob with
   * another compression than the source's makes that impossible.
   */
  readonly manifest?: SourceManifest;
}

/** A manifest as it was in the source. */
export interface SourceManifest {
  readonly digest: Digest;
  readonly mediaType: string;
  readonly bytes: Buffer;
  /** The blobs that it names, in the order of the layers. */
  readonly layerDigests: readonly Digest[];
}

/** An image under one name or more, for one or more platforms. */
export interface SourceImage {
  /** The full name that a pod's `image` resolves to, as in `docker.io/library/app:1`. */
  readonly reference: string;
  /** Further full names for it; absent means none. */
  readonly aliases?: readonly string[];
  /** By full name, how pods write it, as far as the user or the archive has said; absent means in full. */
  readonly spellings?: ReadonlyMap<string, string>;
  /** Where it comes from, for the log: `docker engine`, `podman`, `archive FILE (OCI)`. */
  readonly origin: string;
  readonly variants: readonly PlatformImage[];
}

/** All images of a run, and the scratch space that their layers lie in. */
export interface ImageSet {
  readonly images: readonly SourceImage[];
  /** Ends what still runs and removes everything from the scratch directory. */
  close(): Promise<void>;
}

/** All names under which nodes get an image. */
export function referencesOf({
  reference,
  aliases = [],
}: Pick<SourceImage, 'reference' | 'aliases'>): readonly string[] {
  return [reference, ...aliases];
}

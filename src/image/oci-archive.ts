import { SideloadError } from '../errors.ts';
import { parseConfig } from './config.ts';
import { type Digest, digestOf, hexOf, parseDigest } from './digest.ts';
import { type ArchiveEntries, findFile, missingFrom, readMetadata } from './entries.ts';
import type { SourceManifest } from './image.ts';
import { asList, asObject, asText, type JsonObject, parseJson } from './json.ts';
import type { LayerContent } from './layer.ts';
import type { Platform } from './platform.ts';

const INDEX_MAX_DEPTH = 4;
const MANIFEST_TYPE = 'application/vnd.oci.image.manifest.v1+json';
const CONFIG_TYPES: ReadonlySet<string | undefined> = new Set([
  'application/vnd.oci.image.config.v1+json',
  'application/vnd.docker.container.image.v1+json',
]);

/** An image for one platform, as an archive holds it. */
export interface VariantContent {
  readonly platform: Platform;
  readonly imageId: Digest;
  readonly config: Buffer;
  readonly layers: readonly LayerContent[];
  /** Absent in a docker-archive. */
  readonly manifest?: SourceManifest;
}

/** One entry of `index.json`. */
export interface OciImage {
  /** The full name, as in `docker.io/library/app:1`; undefined when the archive gives none, or a tag only. */
  readonly name: string | undefined;
  /** The tag, when that is all that the archive gives. */
  readonly tag: string | undefined;
  /** Digest of the manifest or index that carries the name. */
  readonly digest: Digest;
  readonly variants: readonly VariantContent[];
  /** Why further variants that the index names cannot be used. */
  readonly faults: readonly SideloadError[];
}

/**
 * Reads what `index.json` describes (OCI image-spec, image layout), with indexes inside indexes; attestations and other
 * artifacts are left out. Variants that the archive does not carry whole are faults of their image and not errors:
 * Docker's containerd store saves indexes that name more than it has (kind#3795, moby#49473).
 * @throws SideloadError ARCHIVE_INVALID, ARCHIVE_CORRUPT
 */
export async function readOciArchive(entries: ArchiveEntries): Promise<readonly OciImage[]> {
  const file = findFile(entries, 'index.json');
  if (file === undefined) return [];
  const bytes = await readMetadata(entries.label, 'index.json', file);
  const index = asObject(parseJson(bytes, `index.json in ${entries.label}`));
  const images: OciImage[] = [];
  // null in what docker 25.0 saves by digest (moby#47210)
  for (const descriptor of asList(index.manifests).map(asObject)) {
    const variants: VariantContent[] = [];
    const faults: SideloadError[] = [];
    await readDescriptor(entries, descriptor, 0, variants, faults);
    if (variants.length > 0 || faults.length > 0) {
      images.push({ ...nameOf(descriptor), digest: digestIn(descriptor, 'index.json', entries), variants, faults });
    }
  }
  return images;
}

/** containerd's annotation is a full name; the specification's own may be one (podman) or a mere tag (buildx, skopeo). */
function nameOf(descriptor: JsonObject): Pick<OciImage, 'name' | 'tag'> {
  const annotations = asObject(descriptor.annotations);
  const refName = asText(annotations['org.opencontainers.image.ref.name']);
  const name = asText(annotations['io.containerd.image.name']) ?? (/[/:]/.test(refName ?? '') ? refName : undefined);
  return { name, tag: name === undefined ? refName : undefined };
}

async function readDescriptor(
  entries: ArchiveEntries,
  descriptor: JsonObject,
  depth: number,
  variants: VariantContent[],
  faults: SideloadError[],
): Promise<void> {
  if (isAttestation(descriptor)) return;
  const digest = digestIn(descriptor, 'an index', entries);
  const platform = asObject(descriptor.platform);
  const built = asText(platform.architecture);
  const what = `the manifest ${digest}${built === undefined ? '' : ` for ${asText(platform.os)}/${built}`}`;
  await collectingFaults(faults, entries, async () => {
    const bytes = await readBlob(entries, digest, what);
    const manifest = asObject(parseJson(bytes, `${what} in ${entries.label}`));
    if (manifest.manifests === undefined) {
      // The field may be missing in the manifest itself (OCI image-spec 1.0); the descriptor always has it.
      const mediaType = asText(manifest.mediaType) ?? asText(descriptor.mediaType) ?? MANIFEST_TYPE;
      const variant = await readManifest(entries, manifest, { digest, mediaType, bytes }, what);
      if (variant !== undefined) variants.push(variant);
      return;
    }
    if (depth >= INDEX_MAX_DEPTH) {
      throw new SideloadError('ARCHIVE_INVALID', `${entries.label} nests indexes deeper than ${INDEX_MAX_DEPTH}`);
    }
    for (const child of asList(manifest.manifests).map(asObject)) {
      await readDescriptor(entries, child, depth + 1, variants, faults);
    }
  });
}

/** BuildKit's mark for provenance and SBOMs (docs.docker.com: attestation storage). */
function isAttestation({ annotations, platform }: JsonObject): boolean {
  const { os, architecture } = asObject(platform);
  return (
    asObject(annotations)['vnd.docker.reference.type'] !== undefined || (os === 'unknown' && architecture === 'unknown')
  );
}

async function readManifest(
  entries: ArchiveEntries,
  manifest: JsonObject,
  source: Omit<SourceManifest, 'layerDigests'>,
  what: string,
): Promise<VariantContent | undefined> {
  const { label } = entries;
  const descriptor = asObject(manifest.config);
  if (!CONFIG_TYPES.has(asText(descriptor.mediaType))) return undefined; // a chart, a signature, ...
  const imageId = digestIn(descriptor, what, entries);
  const config = await readBlob(entries, imageId, `the image config ${imageId}`);
  const { platform, diffIds } = parseConfig(config, `the image config ${imageId} in ${label}`);
  const descriptors = asList(manifest.layers).map(asObject);
  if (descriptors.length !== diffIds.length) {
    throw new SideloadError(
      'ARCHIVE_INVALID',
      `${what} in ${label} names ${descriptors.length} layers, and the config of the image ${diffIds.length}`,
    );
  }
  const layers = diffIds.map((diffId, index): LayerContent => {
    const layer = descriptors[index] ?? {};
    const blobDigest = digestIn(layer, what, entries);
    if (/[+.]encrypted/.test(asText(layer.mediaType) ?? '')) {
      throw new SideloadError('ARCHIVE_INVALID', `the layer ${blobDigest} in ${label} is encrypted`, {
        hint: 'Decrypt the image before pushing it to nodes.',
      });
    }
    const file = findFile(entries, blobName(blobDigest));
    if (file === undefined) throw missingFrom(entries, `the layer ${blobDigest}`);
    return { diffId, blobDigest, name: `${blobDigest} in ${label}`, file };
  });
  const layerDigests = layers.flatMap(({ blobDigest }) => blobDigest ?? []);
  return { platform, imageId, config, layers, manifest: { ...source, layerDigests } };
}

function blobName(digest: Digest): string {
  return `blobs/sha256/${hexOf(digest)}`;
}

function digestIn(descriptor: JsonObject, where: string, { label }: ArchiveEntries): Digest {
  const digest = parseDigest(descriptor.digest);
  if (digest !== undefined) return digest;
  const written = JSON.stringify(descriptor.digest);
  throw new SideloadError('ARCHIVE_INVALID', `${where} in ${label} has a digest that is none: ${written}`);
}

async function readBlob(entries: ArchiveEntries, digest: Digest, what: string): Promise<Buffer> {
  const file = findFile(entries, blobName(digest));
  if (file === undefined) throw missingFrom(entries, what);
  const bytes = await readMetadata(entries.label, blobName(digest), file);
  const found = digestOf(bytes);
  if (found !== digest) {
    throw new SideloadError('ARCHIVE_CORRUPT', `${what} in ${entries.label} has the digest ${found}`);
  }
  return bytes;
}

/** What is wrong with one variant says nothing about the others, unless the archive was cut off or its bytes changed. */
async function collectingFaults(
  faults: SideloadError[],
  { ended }: ArchiveEntries,
  read: () => Promise<void>,
): Promise<void> {
  try {
    await read();
  } catch (error) {
    if (!(error instanceof SideloadError) || error.code === 'ARCHIVE_CORRUPT' || !ended) throw error;
    faults.push(error);
  }
}

import { SideloadError } from '../errors.ts';
import { type ImageConfig, parseConfig } from './config.ts';
import { type Digest, digestOf, hexOf, parseDigest } from './digest.ts';
import { type ArchiveEntries, findFile, type MetadataReader, missingFrom } from './entries.ts';
import type { SourceManifest } from './image.ts';
import { asList, asObject, asText, type JsonObject, kindOf, parseJson, shownName } from './json.ts';
import type { LayerContent } from './layer.ts';
import type { Platform } from './platform.ts';

const INDEX_MAX_DEPTH = 4;
/** Descriptors that are followed, all indexes and images of an archive together: hundreds of images for ten platforms, attested. */
const DESCRIPTORS_MAX = 10_000;
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
  /** The user that its config names; empty for none. */
  readonly user: string;
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

/** What the archive has under a digest: read, proven and understood once, however many descriptors name it. */
type Content =
  | { readonly children: readonly JsonObject[] }
  | { readonly variant: VariantContent | undefined; readonly mediaType: string | undefined };

interface Reading {
  readonly entries: ArchiveEntries;
  readonly read: MetadataReader;
  readonly contents: Map<Digest, Promise<Content>>;
  readonly configs: Map<Digest, ImageConfig>;
  /** How many descriptors may still be followed. */
  left: number;
}

/**
 * Reads what `index.json` describes (OCI image-spec, image layout), with indexes inside indexes; attestations and other
 * artifacts are left out. Variants that the archive does not carry whole are faults of their image and not errors:
 * Docker's containerd store saves indexes that name more than it has (kind#3795, moby#49473).
 * @throws SideloadError ARCHIVE_INVALID, ARCHIVE_CORRUPT
 */
export async function readOciArchive(entries: ArchiveEntries, read: MetadataReader): Promise<readonly OciImage[]> {
  const file = findFile(entries, 'index.json');
  if (file === undefined) return [];
  const bytes = await read('index.json', file);
  const index = asObject(parseJson(bytes, `index.json in ${entries.label}`));
  const images: OciImage[] = [];
  const reading: Reading = { entries, read, contents: new Map(), configs: new Map(), left: DESCRIPTORS_MAX };
  // null in what docker 25.0 saves by digest (moby#47210)
  for (const descriptor of asList(index.manifests).map(asObject)) {
    const variants: VariantContent[] = [];
    const faults: SideloadError[] = [];
    await readDescriptor(reading, descriptor, { depth: 0, seen: new Set(), variants, faults });
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

/** What is found below one entry of `index.json`. */
interface Findings {
  readonly depth: number;
  /** What has been followed: a manifest that several indexes name is there once. */
  readonly seen: Set<Digest>;
  readonly variants: VariantContent[];
  readonly faults: SideloadError[];
}

async function readDescriptor(reading: Reading, descriptor: JsonObject, findings: Findings): Promise<void> {
  const { entries } = reading;
  const { depth, seen, variants, faults } = findings;
  reading.left -= 1;
  if (reading.left < 0) {
    throw new SideloadError('ARCHIVE_INVALID', `${entries.label} names more than ${DESCRIPTORS_MAX} manifests`);
  }
  if (isAttestation(descriptor)) return;
  const digest = digestIn(descriptor, 'an index', entries);
  if (seen.has(digest)) return;
  seen.add(digest);
  const platform = asObject(descriptor.platform);
  const [os, built] = [asText(platform.os), asText(platform.architecture)];
  const what = `the manifest ${digest}${built === undefined ? '' : ` for ${shownName(`${os}/${built}`)}`}`;
  await collectingFaults(faults, reading, async () => {
    const content = reading.contents.get(digest) ?? readContent(reading, digest, what);
    reading.contents.set(digest, content);
    const found = await content;
    if ('variant' in found) {
      if (found.variant !== undefined) variants.push(withMediaType(found.variant, found.mediaType, descriptor));
      return;
    }
    if (depth >= INDEX_MAX_DEPTH) {
      throw new SideloadError('ARCHIVE_INVALID', `${entries.label} nests indexes deeper than ${INDEX_MAX_DEPTH}`);
    }
    for (const child of found.children) await readDescriptor(reading, child, { ...findings, depth: depth + 1 });
  });
}

/** The field may be missing in the manifest itself (OCI image-spec 1.0); the descriptor always has it. */
function withMediaType(variant: VariantContent, own: string | undefined, descriptor: JsonObject): VariantContent {
  const mediaType = own ?? asText(descriptor.mediaType) ?? MANIFEST_TYPE;
  return variant.manifest === undefined ? variant : { ...variant, manifest: { ...variant.manifest, mediaType } };
}

async function readContent(reading: Reading, digest: Digest, what: string): Promise<Content> {
  const bytes = await readBlob(reading, digest, what);
  const manifest = asObject(parseJson(bytes, `${what} in ${reading.entries.label}`));
  if (manifest.manifests !== undefined) return { children: asList(manifest.manifests).map(asObject) };
  const mediaType = asText(manifest.mediaType);
  return { variant: await readManifest(reading, manifest, { digest, mediaType: '', bytes }, what), mediaType };
}

/** BuildKit's mark for provenance and SBOMs (docs.docker.com: attestation storage). */
function isAttestation({ annotations, platform }: JsonObject): boolean {
  const { os, architecture } = asObject(platform);
  return (
    asObject(annotations)['vnd.docker.reference.type'] !== undefined || (os === 'unknown' && architecture === 'unknown')
  );
}

async function readManifest(
  reading: Reading,
  manifest: JsonObject,
  source: Omit<SourceManifest, 'layerDigests'>,
  what: string,
): Promise<VariantContent | undefined> {
  const { entries } = reading;
  const { label } = entries;
  const descriptor = asObject(manifest.config);
  if (!CONFIG_TYPES.has(asText(descriptor.mediaType))) return undefined; // a chart, a signature, ...
  const imageId = digestIn(descriptor, what, entries);
  const config = await readBlob(reading, imageId, `the image config ${imageId}`);
  const parsed = reading.configs.get(imageId) ?? parseConfig(config, `the image config ${imageId} in ${label}`);
  reading.configs.set(imageId, parsed);
  const { platform, user, diffIds } = parsed;
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
  return { platform, imageId, config, user, layers, manifest: { ...source, layerDigests } };
}

function blobName(digest: Digest): string {
  return `blobs/sha256/${hexOf(digest)}`;
}

function digestIn(descriptor: JsonObject, where: string, { label }: ArchiveEntries): Digest {
  const digest = parseDigest(descriptor.digest);
  if (digest !== undefined) return digest;
  const written = kindOf(descriptor.digest);
  throw new SideloadError('ARCHIVE_INVALID', `${where} in ${label} has a digest that is none: ${written}`);
}

async function readBlob({ entries, read }: Reading, digest: Digest, what: string): Promise<Buffer> {
  const file = findFile(entries, blobName(digest));
  if (file === undefined) throw missingFrom(entries, what);
  const bytes = await read(blobName(digest), file);
  const found = digestOf(bytes);
  if (found !== digest) {
    throw new SideloadError('ARCHIVE_CORRUPT', `${what} in ${entries.label} has the digest ${found}`);
  }
  return bytes;
}

/** What is wrong with one variant says nothing about the others, unless the archive was cut off or its bytes changed, or it has too many. */
async function collectingFaults(faults: SideloadError[], reading: Reading, read: () => Promise<void>): Promise<void> {
  try {
    await read();
  } catch (error) {
    const isOfAll = !(error instanceof SideloadError) || error.code === 'ARCHIVE_CORRUPT' || reading.left < 0;
    if (isOfAll || !reading.entries.ended) throw error;
    faults.push(error);
  }
}

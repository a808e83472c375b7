import { SideloadError } from '../errors.ts';
import type { Digest } from './digest.ts';
import { readDockerArchive } from './docker-archive.ts';
import { type ArchiveEntries, findFile, metadataReader } from './entries.ts';
import { type OciImage, readOciArchive, type VariantContent } from './oci-archive.ts';
import { formatPlatform } from './platform.ts';
import { normalise } from './reference.ts';

/** How many things that are wrong with an archive the log has. */
const FAULTS_TOLD = 20;

/** An image that an archive holds, under one name or none. */
export interface ArchiveImage {
  /** The full name, as in `docker.io/library/app:1` or podman's `localhost/app:1`. */
  readonly name: string | undefined;
  /** The name as the archive has it: docker-archives have those of Docker's hub short. */
  readonly spelling?: string | undefined;
  /** The tag, when the archive gives no more of a name (skopeo, umoci and buildah write layouts so). */
  readonly tag?: string | undefined;
  /** Digest of its manifest or index, for requests by digest; a docker-archive has none. */
  readonly digest: Digest | undefined;
  /** Empty only for an image with a `fault`. */
  readonly variants: readonly VariantContent[];
  /** Why nothing of this image can be used: whoever asks for it must get this, and never the image beside it. */
  readonly fault?: SideloadError;
  /** The format that it was read from. */
  readonly format: 'OCI' | 'docker';
}

/**
 * Reads which images an archive holds, and proves configs and manifests; layers are proven when they are read.
 * @throws SideloadError ARCHIVE_INVALID, ARCHIVE_INCOMPLETE, ARCHIVE_CORRUPT, IMAGE_AMBIGUOUS
 */
export async function readArchive(
  entries: ArchiveEntries,
  log: (line: string) => void,
  signal: AbortSignal,
): Promise<readonly ArchiveImage[]> {
  const { label } = entries;
  const isOci = findFile(entries, 'index.json') !== undefined;
  const isDocker = findFile(entries, 'manifest.json') !== undefined;
  if (!isOci && !isDocker) throw noManifest(entries);
  const read = metadataReader(label, signal);
  const ociImages = await readOciArchive(entries, read);
  const dockerImages = isDocker && needsDocker(ociImages) ? await readDockerArchive(entries, read) : [];

  // docker 25 and later write both. index.json comes first: its names are fully qualified, and with the containerd
  // store it has every platform where manifest.json has one. manifest.json fills in what index.json lacks: the
  // layers in docker 25.0 (moby#47065), everything in what that saves by digest (moby#47210).
  const named = new Map<string, Merged>();
  const nameless: ArchiveImage[] = [];
  const known = new Set<Digest>();
  const faults: SideloadError[] = [];
  const broken: ArchiveImage[] = [];
  const add = (image: ArchiveImage) => {
    if (image.name === undefined) nameless.push(image);
    else named.set(image.name, merge(label, named.get(image.name), image));
    for (const { imageId } of image.variants) known.add(imageId);
  };
  for (const { name, tag, digest, variants, faults: own } of ociImages) {
    faults.push(...own);
    const image = { name: fullName(name), spelling: name, tag, digest, variants, format: 'OCI' } as const;
    if (variants.length > 0) add(image);
    else if (own[0] !== undefined) broken.push({ ...image, fault: own[0] });
  }
  for (const { names, variant } of dockerImages) {
    const missing = names.filter(name => !named.has(fullName(name) ?? '') && fullName(name) !== undefined);
    const isKnown = known.has(variant.imageId);
    for (const spelling of missing) {
      add({ name: fullName(spelling), spelling, digest: undefined, variants: [variant], format: 'docker' });
    }
    if (names.length === 0 && !isKnown)
      add({ name: undefined, digest: undefined, variants: [variant], format: 'docker' });
  }
  const images = [
    ...[...named.values()].map(({ first, variants }) => ({ ...first, variants })),
    ...joinNameless(nameless),
  ];
  const lost = broken.filter(({ name }) => (name === undefined ? dockerImages.length === 0 : !named.has(name)));
  if (images.length === 0) {
    throw faults[0] ?? new SideloadError('ARCHIVE_INVALID', `${label} holds no container image`);
  }
  for (const fault of faults.slice(0, FAULTS_TOLD)) log(`left out: ${fault.message}`);
  if (faults.length > FAULTS_TOLD) log(`left out: ${faults.length - FAULTS_TOLD} more`);
  return [...images, ...lost];
}

/** Only for what index.json lacks: with the containerd store manifest.json may name layers that are not there. */
function needsDocker(images: readonly OciImage[]): boolean {
  return images.length === 0 || images.some(({ variants }) => variants.length === 0);
}

/**
 * The manifests of a multi-platform image may stand in index.json side by side, without a name; one image under
 * several tags is there once for each. Images of one tag that no platform tells apart stay separate: a layout that
 * several builds were added to has them, and its digests tell which one is wanted.
 */
function joinNameless(images: readonly ArchiveImage[]): readonly ArchiveImage[] {
  const groups = new Map<string | undefined, ArchiveImage[]>();
  const newGroup = (tag: string | undefined): ArchiveImage[] => {
    const group: ArchiveImage[] = [];
    groups.set(tag, group);
    return group;
  };
  for (const image of images) (groups.get(image.tag) ?? newGroup(image.tag)).push(image);
  return [...groups.values()].flatMap(group => {
    const variants = group.flatMap(image => image.variants);
    const platforms = new Set(variants.map(({ platform }) => formatPlatform(platform)));
    const [first] = group;
    return first === undefined || platforms.size < variants.length ? group : [{ ...first, variants }];
  });
}

/** What tells images apart: one under two names has the same. */
export function identityOf({ variants, digest }: ArchiveImage): string | undefined {
  return variants.map(({ imageId }) => imageId).join() || digest;
}

/** What several entries of an archive say of one name. */
interface Merged {
  readonly first: ArchiveImage;
  readonly variants: VariantContent[];
  readonly imageIds: Set<Digest>;
  /** As texts. */
  readonly platforms: Set<string>;
}

function merge(label: string, known: Merged | undefined, image: ArchiveImage): Merged {
  const merged = known ?? { first: image, variants: [], imageIds: new Set(), platforms: new Set() };
  const added = image.variants.filter(({ imageId }) => !merged.imageIds.has(imageId));
  for (const { platform } of added) {
    // In one index they may stand side by side: the first that fits a node is taken.
    if (!merged.platforms.has(formatPlatform(platform))) continue;
    throw new SideloadError(
      'IMAGE_AMBIGUOUS',
      `${label} has two different ${image.name} for ${formatPlatform(platform)}`,
      { hint: 'Save each image under its own name.' },
    );
  }
  for (const variant of added) {
    merged.variants.push(variant);
    merged.imageIds.add(variant.imageId);
    merged.platforms.add(formatPlatform(variant.platform));
  }
  return merged;
}

/** A name that is no reference (annotations are free text) names nothing that a pod could ask for. */
function fullName(name: string | undefined): string | undefined {
  try {
    return name === undefined ? undefined : normalise(name);
  } catch {
    return undefined;
  }
}

function noManifest({ label, ended, sizeBytes, files }: ArchiveEntries): SideloadError {
  if (!ended) {
    return new SideloadError('ARCHIVE_INVALID', `${label} ends after ${sizeBytes} bytes, before its manifest`);
  }
  const exported = files.has('etc/passwd') || files.has('.dockerenv') || files.has('bin/sh');
  return new SideloadError(
    'ARCHIVE_INVALID',
    `${label} has neither manifest.json nor index.json, so it is not an image archive`,
    exported ? { hint: 'This looks like `docker export`, a file system only: write it with `docker save`.' } : {},
  );
}

import { SideloadError } from '../errors.ts';
import type { Digest } from './digest.ts';
import { type DockerImage, readDockerArchive } from './docker-archive.ts';
import { type ArchiveEntries, findFile } from './entries.ts';
import { type OciImage, readOciArchive, type VariantContent } from './oci-archive.ts';
import { formatPlatform } from './platform.ts';
import { normalise } from './reference.ts';

/** An image that an archive holds, under one name or none. */
export interface ArchiveImage {
  /** The full name, as in `docker.io/library/app:1` or podman's `localhost/app:1`. */
  readonly name: string | undefined;
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
): Promise<readonly ArchiveImage[]> {
  const { label } = entries;
  const isOci = findFile(entries, 'index.json') !== undefined;
  const isDocker = findFile(entries, 'manifest.json') !== undefined;
  if (!isOci && !isDocker) throw noManifest(entries);
  const ociImages = await readOciArchive(entries);
  const dockerImages = isDocker && needsDocker(ociImages) ? await readDockerArchive(entries) : [];

  // docker 25 and later write both. index.json comes first: its names are fully qualified, and with the containerd
  // store it has every platform where manifest.json has one. manifest.json fills in what index.json lacks: the
  // layers in docker 25.0 (moby#47065), everything in what that saves by digest (moby#47210).
  const named = new Map<string, ArchiveImage>();
  const nameless: ArchiveImage[] = [];
  const faults: SideloadError[] = [];
  const broken: ArchiveImage[] = [];
  const add = (image: ArchiveImage) => {
    if (image.name === undefined) nameless.push(image);
    else named.set(image.name, mergeVariants(label, named.get(image.name), image));
  };
  for (const { name, tag, digest, variants, faults: own } of ociImages) {
    faults.push(...own);
    const image = { name: fullName(name), tag, digest, variants, format: 'OCI' } as const;
    if (variants.length > 0) add(image);
    else if (own[0] !== undefined) broken.push({ ...image, fault: own[0] });
  }
  for (const { names, variant } of dockerImages) {
    const missing = names.map(fullName).filter(name => name !== undefined && !named.has(name));
    const known = [...named.values(), ...nameless].some(image => has(image, variant));
    for (const name of missing) add({ name, digest: undefined, variants: [variant], format: 'docker' });
    if (names.length === 0 && !known)
      add({ name: undefined, digest: undefined, variants: [variant], format: 'docker' });
  }
  const images = [...named.values(), ...joinNameless(nameless)];
  const lost = broken.filter(({ name }) => (name === undefined ? dockerImages.length === 0 : !named.has(name)));
  if (images.length === 0) {
    throw faults[0] ?? new SideloadError('ARCHIVE_INVALID', `${label} holds no container image`);
  }
  for (const fault of faults) log(`left out: ${fault.message}`);
  return [...images, ...lost];
}

/** Only for what index.json lacks: with the containerd store manifest.json may name layers that are not there. */
function needsDocker(images: readonly OciImage[]): boolean {
  return images.length === 0 || images.some(({ variants }) => variants.length === 0);
}

function has(image: ArchiveImage, variant: DockerImage['variant']): boolean {
  return image.variants.some(({ imageId }) => imageId === variant.imageId);
}

/**
 * The manifests of a multi-platform image may stand in index.json side by side, without a name; one image under
 * several tags is there once for each. Images of one tag that no platform tells apart stay separate: a layout that
 * several builds were added to has them, and its digests tell which one is wanted.
 */
function joinNameless(images: readonly ArchiveImage[]): readonly ArchiveImage[] {
  const tags = [...new Set(images.map(({ tag }) => tag))];
  return tags.flatMap(tag => {
    const group = images.filter(image => image.tag === tag);
    const variants = group.flatMap(image => image.variants);
    const platforms = new Set(variants.map(({ platform }) => formatPlatform(platform)));
    const [first] = group;
    return first === undefined || platforms.size < variants.length ? group : [{ ...first, variants }];
  });
}

/** Whether two are one image under two names. */
export function isSame(first: ArchiveImage, second: ArchiveImage): boolean {
  const ids = ({ variants, digest }: ArchiveImage) => variants.map(({ imageId }) => imageId).join() || digest;
  return ids(first) === ids(second);
}

function mergeVariants(label: string, first: ArchiveImage | undefined, second: ArchiveImage): ArchiveImage {
  if (first === undefined) return second;
  const added = second.variants.filter(variant => !has(first, variant));
  for (const { platform } of added) {
    const twice = first.variants.some(variant => formatPlatform(variant.platform) === formatPlatform(platform));
    if (twice) {
      throw new SideloadError(
        'IMAGE_AMBIGUOUS',
        `${label} has two different ${first.name} for ${formatPlatform(platform)}`,
        {
          hint: 'Save each image under its own name.',
        },
      );
    }
  }
  return { ...first, variants: [...first.variants, ...added] };
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

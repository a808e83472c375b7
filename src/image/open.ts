import { follow } from '../abort.ts';
import { SideloadError } from '../errors.ts';
import { withAliases } from './aliases.ts';
import { type ArchiveImage, identityOf, readArchive } from './archive.ts';
import { type Digest, parseDigest } from './digest.ts';
import type { ImageSet, Layer, PlatformImage, SourceImage } from './image.ts';
import { createLayer, type LayerContent, proveDigest } from './layer.ts';
import { lazyImage } from './lazy.ts';
import { normalise, parseReference } from './reference.ts';
import { openScratch, type Scratch, type ScratchOptions } from './scratch.ts';
import { selectByDigest, selectImages } from './selection.ts';
import { readArchiveFile } from './sources/archive.ts';
import { ambiguous, type EngineName, type EngineOptions, type Found, findImage } from './sources/find.ts';

/** Where images are taken from; `auto` is the archive if there is one, else whichever engine has the image. */
type ImageSourceName = 'auto' | 'archive' | EngineName;

/** What to open. */
export interface OpenImagesOptions extends EngineOptions, ScratchOptions {
  /** As the user wrote them; may be empty for an archive, which means all of its images. */
  readonly references: readonly string[];
  readonly source: ImageSourceName;
  /** Path of an archive, or of a directory with an image layout. */
  readonly archive?: string | undefined;
  /** Further names, as `ALIAS=IMAGE`, or `ALIAS` when there is one image. */
  readonly aliases?: readonly string[] | undefined;
  /** A directory that exists and that nobody else can read. */
  readonly directory: string;
  /** Whether images are to be read at once that no node can have. */
  readonly prefetch?: boolean | undefined;
  readonly log: (line: string) => void;
  readonly signal: AbortSignal;
}

interface Opening extends OpenImagesOptions {
  readonly scratch: Scratch;
  /** One layer for equal content in any of the images, so that it is stored once. */
  readonly layers: Map<string, Layer>;
  /** Content that passed in a stream and that some image needs. */
  readonly needed: Set<Digest>;
  /** One image is read at a time, so that the next one finds the layers that both have. */
  inTurn<T>(task: () => Promise<T>): Promise<T>;
}

/**
 * Opens images by their metadata. Layers in a plain archive stay unread until they are asked for; those that come as a
 * stream are in the scratch directory afterwards. Nothing stays there when opening fails.
 * @throws SideloadError INPUT_INVALID, SOURCE_UNAVAILABLE, IMAGE_NOT_FOUND, IMAGE_AMBIGUOUS, ARCHIVE_INVALID,
 * ARCHIVE_INCOMPLETE, ARCHIVE_CORRUPT, DISK_FULL, CANCELLED
 */
export async function openImages(options: OpenImagesOptions): Promise<ImageSet> {
  const { directory, log } = options;
  const closing = follow(options.signal);
  const { signal } = closing;
  const tasks = oneAtATime();
  let scratch: Scratch | undefined;
  const close = async () => {
    closing.abort();
    await tasks.idle();
    await scratch?.close();
  };
  try {
    signal.throwIfAborted();
    scratch = await openScratch(directory, log, signal, options);
    const opening: Opening = { ...options, signal, scratch, layers: new Map(), needed: new Set(), inTurn: tasks.run };
    const images = await tasks.run(async () => {
      const opened = withAliases(await openFrom(opening), options.aliases ?? []);
      await opening.scratch.retain(opening.needed);
      return opened;
    });
    return { images, close };
  } catch (error) {
    await close();
    if (options.signal.aborted) throw new SideloadError('CANCELLED', 'cancelled', { cause: error });
    throw error;
  }
}

async function openFrom(opening: Opening): Promise<readonly SourceImage[]> {
  const { archive, source, references } = opening;
  if (source === 'archive' || (source === 'auto' && archive !== undefined)) {
    if (archive === undefined) throw new SideloadError('INPUT_INVALID', '`source: archive` needs `archive`');
    return openArchive(opening, archive);
  }
  if (references.length === 0) throw new SideloadError('INPUT_INVALID', '`images` is empty, and no archive is given');
  const images: SourceImage[] = [];
  for (const reference of references) {
    const found = await findImage(source, reference, opening, opening.log, opening.signal);
    images.push(await openFound(opening, found, reference));
  }
  return images;
}

async function openArchive(opening: Opening, path: string): Promise<readonly SourceImage[]> {
  const entries = await readArchiveFile(path, opening.scratch, opening.signal);
  const images = await readArchive(entries, opening.log, opening.signal);
  return selectImages(images, opening.references, entries.label).map(({ spelling, image }) =>
    sourceImage(opening, spelling, `archive ${path} (${image.format})`, image),
  );
}

/** Opens by the engine's word alone where that is enough, else by reading the image. */
async function openFound(opening: Opening, found: Found, reference: string): Promise<SourceImage> {
  const { imageId, platform, diffIds, sizeBytes, user } = found.image;
  const digests = diffIds.flatMap(diffId => parseDigest(diffId) ?? []);
  // What a rival has, and the manifest of a digest, only reading tells.
  const isKnown = found.rival === undefined && parseReference(reference).digest === undefined;
  if (!isKnown || imageId === undefined || platform === undefined || user === undefined || digests.length === 0) {
    return await openSaved(opening, found, reference);
  }
  for (const digest of digests) opening.needed.add(digest);
  const read = () =>
    opening.inTurn(async () => {
      const { variants } = await openSaved(opening, found, reference);
      await opening.scratch.retain(opening.needed);
      const [variant] = variants;
      if (variant === undefined)
        throw new SideloadError('IMAGE_NOT_FOUND', `${found.engine} has no image ${reference}`);
      return variant;
    });
  const image = lazyImage({ imageId, platform, user, diffIds: digests, sizeBytes }, opening.scratch, read);
  // One that has never been here no node can have from here: there is no point in waiting for their answers.
  const stored = await Promise.all(digests.map(digest => opening.scratch.find(digest)));
  if (opening.prefetch === true && stored.includes(undefined)) image.prefetch?.();
  return { ...namesOf(reference), origin: found.engine, variants: [image] };
}

async function openSaved(opening: Opening, found: Found, reference: string): Promise<SourceImage> {
  const entries = await found.image.read(opening.scratch, opening.signal);
  const images = await readArchive(entries, opening.log, opening.signal);
  // The engine has resolved the name, by its own rules: whatever names it writes, one image is the one.
  const [first] = images;
  const same = first !== undefined && new Set(images.map(identityOf)).size === 1;
  const image = same
    ? (selectByDigest(images, normalise(reference)) ?? first)
    : selectImages(images, [reference], entries.label)[0]?.image;
  if (image === undefined) throw new SideloadError('IMAGE_NOT_FOUND', `${entries.label} holds no image`);
  const { rival } = found;
  if (rival !== undefined && image.variants.every(({ imageId }) => imageId !== rival.id)) {
    throw ambiguous(reference, found, rival);
  }
  return sourceImage(opening, reference, found.engine, image);
}

function sourceImage(opening: Opening, spelling: string, origin: string, image: ArchiveImage): SourceImage {
  const { digest } = parseReference(spelling);
  const variants = image.variants.map(
    ({ platform, imageId, config, user, layers, manifest }): PlatformImage => ({
      platform,
      imageId,
      user,
      config: async () => config,
      layers: layers.map(content => layerOf(opening, content)),
      ...(manifest !== undefined && manifest.digest === digest ? { manifest } : {}),
    }),
  );
  return { ...namesOf(spelling), origin, variants };
}

function namesOf(spelling: string): Pick<SourceImage, 'reference' | 'spellings'> {
  const reference = normalise(spelling);
  return { reference, spellings: new Map([[reference, spelling]]) };
}

function layerOf({ layers, scratch, needed }: Opening, content: LayerContent): Layer {
  const { stored } = content.file;
  if (stored !== undefined) {
    proveDigest(content, stored);
    needed.add(stored.digest);
  }
  const key = `${content.diffId} ${content.blobDigest ?? ''}`;
  const layer = layers.get(key) ?? createLayer(content, scratch);
  layers.set(key, layer);
  return layer;
}

/** Runs tasks in the order in which they come. */
function oneAtATime(): { run<T>(task: () => Promise<T>): Promise<T>; idle(): Promise<void> } {
  let last: Promise<unknown> = Promise.resolve();
  return {
    run(task) {
      const job = last.then(task);
      last = job.catch(() => {});
      return job;
    },
    async idle() {
      await last;
    },
  };
}

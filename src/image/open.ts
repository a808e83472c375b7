import { SideloadError } from '../errors.ts';
import { type ArchiveImage, readArchive } from './archive.ts';
import type { Digest } from './digest.ts';
import type { ImageSet, Layer, PlatformImage, SourceImage } from './image.ts';
import { createLayer, type LayerContent, proveDigest } from './layer.ts';
import { normalise } from './reference.ts';
import { openScratch, type Scratch } from './scratch.ts';
import { selectImages } from './selection.ts';
import { readArchiveFile } from './sources/archive.ts';
import { dockerEngine } from './sources/docker.ts';
import { type Engine, readSaved } from './sources/engine.ts';
import { podmanEngine } from './sources/podman.ts';

/** Where images are taken from; `auto` is the archive if there is one, else whichever engine has the image. */
type ImageSourceName = 'auto' | 'docker' | 'podman' | 'archive';

/** What to open. */
export interface OpenImagesOptions {
  /** As the user wrote them; may be empty for an archive, which means all of its images. */
  readonly references: readonly string[];
  readonly source: ImageSourceName;
  /** Path of an archive. */
  readonly archive?: string | undefined;
  /** Program names or paths. */
  readonly docker?: string | undefined;
  readonly podman?: string | undefined;
  /** A directory that exists and that nobody else can read. */
  readonly directory: string;
  readonly log: (line: string) => void;
  readonly signal: AbortSignal;
}

interface Opening extends OpenImagesOptions {
  readonly scratch: Scratch;
  /** One layer for equal content in any of the images, so that it is stored once. */
  readonly layers: Map<string, Layer>;
  /** Content that passed in a stream and that some image needs. */
  readonly needed: Set<Digest>;
}

/**
 * Opens images by their metadata. Layers in a plain archive stay unread until they are asked for; those that come as a
 * stream are in the scratch directory afterwards. Nothing stays there when opening fails.
 * @throws SideloadError INPUT_INVALID, SOURCE_UNAVAILABLE, IMAGE_NOT_FOUND, IMAGE_AMBIGUOUS, ARCHIVE_INVALID,
 * ARCHIVE_INCOMPLETE, ARCHIVE_CORRUPT, DISK_FULL, CANCELLED
 */
export async function openImages(options: OpenImagesOptions): Promise<ImageSet> {
  const { directory, log, signal } = options;
  let scratch: Scratch | undefined;
  try {
    signal.throwIfAborted();
    scratch = await openScratch(directory, log, signal);
    const opening: Opening = { ...options, scratch, layers: new Map(), needed: new Set() };
    const images = await openFrom(opening);
    await scratch.retain(opening.needed);
    return { images, close: scratch.close };
  } catch (error) {
    await scratch?.close();
    if (signal.aborted) throw new SideloadError('CANCELLED', 'cancelled', { cause: error });
    throw error;
  }
}

async function openFrom(opening: Opening): Promise<readonly SourceImage[]> {
  const { archive, source, references } = opening;
  if (source === 'archive' || (source === 'auto' && archive !== undefined)) {
    if (archive === undefined) throw new SideloadError('INPUT_INVALID', '`source: archive` needs `archive`, a file');
    return openArchive(opening, archive);
  }
  if (references.length === 0) throw new SideloadError('INPUT_INVALID', '`images` is empty, and no archive is given');
  const images: SourceImage[] = [];
  for (const reference of references) {
    const engine = await findEngine(opening, reference);
    opening.log(`${reference} is taken from ${engine.name}`);
    images.push(await openSaved(opening, engine, reference));
  }
  return images;
}

async function openArchive(opening: Opening, path: string): Promise<readonly SourceImage[]> {
  const entries = await readArchiveFile(path, opening.scratch, opening.signal);
  const images = await readArchive(entries, opening.log);
  return selectImages(images, opening.references, entries.label).map(({ reference, image }) =>
    sourceImage(opening, reference, `archive ${path} (${image.format})`, image),
  );
}

async function openSaved(opening: Opening, engine: Engine, reference: string): Promise<SourceImage> {
  const entries = await readSaved(engine, reference, opening.scratch, opening.signal);
  const images = await readArchive(entries, opening.log);
  // The engine has resolved the name, by its own rules: whatever names it writes, one image is the one.
  const [first] = images;
  const same = new Set(images.map(({ variants }) => variants.map(({ imageId }) => imageId).join())).size === 1;
  const image = same ? first : selectImages(images, [reference], entries.label)[0]?.image;
  if (image === undefined) throw new SideloadError('IMAGE_NOT_FOUND', `${entries.label} holds no image`);
  return sourceImage(opening, normalise(reference), engine.name, image);
}

function sourceImage(opening: Opening, reference: string, origin: string, image: ArchiveImage): SourceImage {
  const variants = image.variants.map(
    ({ platform, imageId, config, layers }): PlatformImage => ({
      platform,
      imageId,
      config,
      layers: layers.map(content => layerOf(opening, content)),
    }),
  );
  return { reference, origin, variants };
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

async function findEngine(opening: Opening, reference: string): Promise<Engine> {
  const { source, signal, log } = opening;
  const engines = [
    ...(source === 'podman' ? [] : [dockerEngine(opening.docker ?? 'docker')]),
    ...(source === 'docker' ? [] : [podmanEngine(opening.podman ?? 'podman')]),
  ];
  const answers = await Promise.all(
    engines.map(async engine => ({ engine, answer: await engine.find(reference, signal) })),
  );
  const found = answers.flatMap(({ engine, answer }) => (answer.state === 'found' ? [{ engine, id: answer.id }] : []));
  const reasons = answers.flatMap(({ answer }) => (answer.state === 'unavailable' ? [answer.reason] : []));
  const absent = answers.flatMap(({ engine, answer }) => (answer.state === 'absent' ? [engine.name] : []));
  const [first, second] = found;
  if (first !== undefined && second !== undefined && plainId(first.id) !== plainId(second.id)) {
    // With Docker's containerd store its ID is a manifest's digest, which equals nothing that podman says: then the
    // images may be the same, and nobody can tell before both are read.
    const both = found.map(({ engine, id }) => `${engine.name} (${plainId(id).slice(0, 12)})`).join(' and ');
    throw new SideloadError('IMAGE_AMBIGUOUS', `${both} both have an image ${reference}, with different IDs`, {
      hint: 'Set `source` to `docker` or `podman`.',
    });
  }
  for (const reason of reasons) log(reason);
  if (first !== undefined) return first.engine;
  const also = reasons.length === 0 ? '' : `; ${reasons.join('; ')}`;
  if (absent.length === 0) {
    throw new SideloadError('SOURCE_UNAVAILABLE', `nobody can be asked for ${reference}: ${reasons.join('; ')}`);
  }
  const [one, two] = absent;
  const nobody = two === undefined ? `${one} has no` : `neither ${one} nor ${two} has an`;
  throw new SideloadError('IMAGE_NOT_FOUND', `${nobody} image ${reference}${also}`);
}

/** docker writes `sha256:HEX`, podman `HEX`. */
function plainId(id: string): string {
  return id.replace(/^sha256:/, '');
}

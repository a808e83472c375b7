import { SideloadError } from '../errors.ts';
import { type ArchiveImage, identityOf } from './archive.ts';
import { shownName } from './json.ts';
import { describeNames } from './names.ts';
import { normalise, parseReference } from './reference.ts';

/** An image of an archive with the name that it is wanted under. */
export interface SelectedImage {
  readonly reference: string;
  /** The same as the user has written it, else as the archive has. */
  readonly spelling: string;
  readonly image: ArchiveImage;
}

const PODMAN_PREFIX = 'localhost/';
const NOT_FOUND_HINT = 'Correct `images`, or tag the image before saving it.';

/**
 * Finds the wanted images in an archive, or takes all of them when none is named.
 * @param requests as the user wrote them
 * @param label how the archive is called in messages
 * @throws SideloadError IMAGE_NOT_FOUND listing the names that are there; IMAGE_AMBIGUOUS listing digests;
 * INPUT_INVALID when `requests` is empty and an image has no name of its own; what is wrong with an image that is wanted
 */
export function selectImages(
  images: readonly ArchiveImage[],
  requests: readonly string[],
  label: string,
): readonly SelectedImage[] {
  if (requests.length > 0) return requests.map(request => selectImage(images, request, label));
  return images.map(image => {
    if (image.fault !== undefined) throw image.fault;
    if (image.name === undefined) {
      throw new SideloadError('INPUT_INVALID', `${label} holds ${describe(image)}`, {
        hint: 'Set `images` to the name that pods use for it.',
      });
    }
    return { reference: image.name, spelling: image.spelling ?? image.name, image };
  });
}

function selectImage(images: readonly ArchiveImage[], request: string, label: string): SelectedImage {
  const reference = normalise(request);
  const image =
    images.find(({ name }) => name === reference) ??
    images.find(({ name }) => name !== undefined && withoutPodmanPrefix(name) === reference) ??
    selectByDigest(images, reference) ??
    selectNameless(images, reference, label);
  if (image === undefined) {
    const names = images.flatMap(({ name }) => name ?? []);
    const [near] = describeNames(reference, names, label);
    throw new SideloadError(
      'IMAGE_NOT_FOUND',
      `${label} does not hold ${reference}; it holds ${listed(images.map(describe))}`,
      { hint: near === undefined ? NOT_FOUND_HINT : `${near}. ${NOT_FOUND_HINT}` },
    );
  }
  if (image.fault !== undefined) throw image.fault;
  return { reference, spelling: request, image };
}

/**
 * The image that a digest in the reference names: that of its index, with all platforms, or that of one platform's
 * manifest, with this platform alone. Content is addressed by its digest, whatever name stands beside it.
 */
export function selectByDigest(images: readonly ArchiveImage[], reference: string): ArchiveImage | undefined {
  const { digest } = parseReference(reference);
  if (digest === undefined) return undefined;
  for (const image of images) {
    const variants = image.variants.filter(({ manifest }) => manifest?.digest === digest);
    if (variants.length > 0) return { ...image, variants };
  }
  return images.find(image => image.digest === digest);
}

/** By the tag where an archive gives tags alone; an image that is alone takes any name. */
function selectNameless(images: readonly ArchiveImage[], reference: string, label: string): ArchiveImage | undefined {
  const { tag } = parseReference(reference);
  if (tag === undefined) return undefined;
  const nameless = images.filter(({ name }) => name === undefined);
  const tagged = nameless.filter(image => image.tag === tag);
  const candidates = distinct(tagged.length === 0 && nameless.length === images.length ? nameless : tagged);
  if (candidates.length < 2) return candidates[0];
  if (tagged.length === 0 && nameless.some(image => image.tag !== undefined)) return undefined;
  const found = listed(candidates.map(({ digest }) => digest ?? 'one without a digest'));
  throw new SideloadError('IMAGE_AMBIGUOUS', `${label} holds several images that could be ${reference}: ${found}`, {
    hint: 'Name one by its digest in `images`, as in `app@sha256:…`, or tag the images.',
  });
}

function distinct(images: readonly ArchiveImage[]): readonly ArchiveImage[] {
  return [...new Map(images.toReversed().map(image => [identityOf(image), image])).values()].toReversed();
}

/** An archive may hold more than anybody would read. */
const NAMES_TOLD = 20;

function listed(names: readonly string[]): string {
  const more = names.length - NAMES_TOLD;
  return more > 0 ? `${names.slice(0, NAMES_TOLD).join(', ')} and ${more} more` : names.join(', ');
}

function describe({ name, tag }: ArchiveImage): string {
  if (name !== undefined) return name;
  return tag === undefined ? 'an image without a name' : `an image without a name, tagged ${shownName(tag)}`;
}

/** podman stores what was built as `app:1` under `localhost/app:1`, and writes that into archives. */
function withoutPodmanPrefix(name: string): string {
  return name.startsWith(PODMAN_PREFIX) ? normalise(name.slice(PODMAN_PREFIX.length)) : name;
}

import { SideloadError } from '../errors.ts';
import type { ArchiveImage } from './archive.ts';
import { normalise } from './reference.ts';

/** An image of an archive with the name that it is wanted under. */
export interface SelectedImage {
  readonly reference: string;
  readonly image: ArchiveImage;
}

const PODMAN_PREFIX = 'localhost/';

/**
 * Finds the wanted images in an archive, or takes all of them when none is named.
 * @param requests as the user wrote them
 * @param label how the archive is called in messages
 * @throws SideloadError IMAGE_NOT_FOUND listing the names that are there; INPUT_INVALID when `requests` is empty and an
 * image has no name of its own.
 */
export function selectImages(
  images: readonly ArchiveImage[],
  requests: readonly string[],
  label: string,
): readonly SelectedImage[] {
  if (requests.length > 0) return requests.map(request => selectImage(images, request, label));
  return images.map(image => {
    if (image.name === undefined) {
      throw new SideloadError('INPUT_INVALID', `${label} holds an image without a name`, {
        hint: 'Set `images` to the name that pods use for it.',
      });
    }
    return { reference: image.name, image };
  });
}

function selectImage(images: readonly ArchiveImage[], request: string, label: string): SelectedImage {
  const reference = normalise(request);
  const digest = /@(.+)$/.exec(reference)?.[1];
  const image =
    images.find(({ name }) => name === reference) ??
    images.find(({ name }) => name !== undefined && withoutPodmanPrefix(name) === reference) ??
    images.find(image => digest !== undefined && image.digest === digest) ??
    (images.length === 1 && images[0]?.name === undefined && digest === undefined ? images[0] : undefined);
  if (image === undefined) {
    const names = images.map(({ name }) => name ?? 'an image without a name').join(', ');
    throw new SideloadError('IMAGE_NOT_FOUND', `${label} does not hold ${reference}; it holds ${names}`, {
      hint: 'Correct `images`, or tag the image before saving it.',
    });
  }
  return { reference, image };
}

/** podman stores what was built as `app:1` under `localhost/app:1`, and writes that into archives. */
function withoutPodmanPrefix(name: string): string {
  return name.startsWith(PODMAN_PREFIX) ? normalise(name.slice(PODMAN_PREFIX.length)) : name;
}

import { SideloadError } from '../errors.ts';
import type { SourceImage } from './image.ts';
import { normalise } from './reference.ts';

/** A further name for an image. */
export interface Alias {
  /** The full name. */
  readonly alias: string;
  /** The same as it was written. */
  readonly spelling: string;
  /** The full name of the image that gets it; absent when there is one image only. */
  readonly image: string | undefined;
}

/**
 * Reads `ALIAS=IMAGE` or `ALIAS`; neither part may contain a `=`, by the grammar of references.
 * @throws SideloadError INPUT_INVALID
 */
export function parseAlias(text: string): Alias {
  const [alias = '', image, ...more] = text.split('=');
  if (more.length > 0) {
    throw new SideloadError('INPUT_INVALID', `${JSON.stringify(text)} in \`aliases\` has more than one \`=\``, {
      hint: 'Write `ALIAS=IMAGE`, as in `app:1=registry.example/team/app:1`.',
    });
  }
  return { alias: normalise(alias), spelling: alias, image: image === undefined ? undefined : normalise(image) };
}

/**
 * Gives each image the further names that are meant for it.
 * @throws SideloadError INPUT_INVALID for a name that is there already or twice, for an image that is not there, and
 * for an alias that does not say which of several images it is for.
 */
export function withAliases(images: readonly SourceImage[], texts: readonly string[]): readonly SourceImage[] {
  if (texts.length === 0) return images;
  const taken = new Set(images.map(({ reference }) => reference));
  const bound = texts.map(parseAlias).map(({ alias, spelling, image }) => {
    if (taken.has(alias)) throw refused(`names ${alias} more than once`, 'Remove one of them.');
    taken.add(alias);
    const [only] = images;
    const reference = image ?? (images.length === 1 ? only?.reference : undefined);
    const there = images.map(each => each.reference).join(', ');
    if (reference === undefined) throw refused(`does not say which image ${alias} is for: ${there}`, HOW);
    if (images.every(each => each.reference !== reference)) {
      throw refused(`is for ${reference}, which is not among the images: ${there}`, HOW);
    }
    return { alias, spelling, reference };
  });
  return images.map(image => {
    const own = bound.filter(({ reference }) => reference === image.reference);
    const spellings = new Map([...(image.spellings ?? []), ...own.map(one => [one.alias, one.spelling] as const)]);
    return own.length === 0 ? image : { ...image, aliases: own.map(({ alias }) => alias), spellings };
  });
}

const HOW = 'Write `ALIAS=IMAGE`, with the image as it is in `images`.';

function refused(what: string, hint: string): SideloadError {
  return new SideloadError('INPUT_INVALID', `\`aliases\` ${what}`, { hint });
}

import { SideloadError } from '../errors.ts';
import { shown } from '../problems.ts';
import { type Digest, parseDigest } from './digest.ts';
import { asList, asObject, asText, kindOf, parseJson } from './json.ts';
import { isPlatformWord, type Platform } from './platform.ts';

/** What matters here of an image config (OCI image-spec, image configuration; Docker's has the same fields). */
export interface ImageConfig {
  readonly platform: Platform;
  /** The `User`; empty when there is none, and the image runs as root. */
  readonly user: string;
  readonly diffIds: readonly Digest[];
}

/** No runtime unpacks more: the kernel mounts some 500 directories over each other at most (containerd#8212: overlay options of a page). */
const LAYERS_MAX = 1000;

/**
 * Reads an image config. The platform is taken from here and never from an index, which may lack it.
 * @throws SideloadError ARCHIVE_INVALID
 */
export function parseConfig(bytes: Buffer, what: string): ImageConfig {
  const config = asObject(parseJson(bytes, what));
  const os = asText(config.os);
  const architecture = asText(config.architecture);
  const variant = asText(config.variant);
  if (os === undefined || architecture === undefined) {
    throw new SideloadError('ARCHIVE_INVALID', `${what} names no os and architecture`, {
      hint: 'Say what the image is for when building it; with crane: `crane mutate --set-platform linux/amd64`.',
    });
  }
  const stray = [os, architecture, variant].find(word => word !== undefined && !isPlatformWord(word));
  if (stray !== undefined) {
    throw new SideloadError('ARCHIVE_INVALID', `${what} names a platform that is none: ${shown(stray)}`, {
      hint: 'Say what the image is for when building it; with crane: `crane mutate --set-platform linux/amd64`.',
    });
  }
  const written = asList(asObject(config.rootfs).diff_ids);
  if (written.length > LAYERS_MAX) {
    throw new SideloadError('ARCHIVE_INVALID', `${what} names ${written.length} layers, more than ${LAYERS_MAX}`);
  }
  const diffIds = written.map(value => {
    const diffId = parseDigest(value);
    if (diffId === undefined) {
      throw new SideloadError('ARCHIVE_INVALID', `${what} has a diff_id that is no digest: ${kindOf(value)}`);
    }
    return diffId;
  });
  if (diffIds.length === 0) throw new SideloadError('ARCHIVE_INVALID', `${what} names no layers`);
  const user = asText(asObject(config.config).User) ?? '';
  return { platform: { os, architecture, ...(variant === undefined ? {} : { variant }) }, user, diffIds };
}

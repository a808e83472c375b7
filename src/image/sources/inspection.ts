import { type Digest, parseDigest } from '../digest.ts';
import { asList, asObject, asText, type JsonObject } from '../json.ts';
import { isPlatformWord, type Platform } from '../platform.ts';
import type { ImageFacts } from './engine.ts';

/** What `image inspect` tells of an image. */
export interface Inspection extends ImageFacts {
  /** As `sha256:HEX`. */
  readonly id: string;
  readonly diffIds: readonly string[];
  /** podman answered, perhaps under docker's name (podman-docker). */
  readonly isPodman: boolean;
  /** Where each layer is, lowest first; none where an engine does not keep them unpacked. */
  readonly directories: readonly string[];
}

/**
 * Reads the JSON that `docker image inspect` and `podman image inspect` print for one image; undefined when it is not
 * that. docker writes the ID as `sha256:HEX`, podman as `HEX`. Only with containerd's image store docker writes a
 * `Descriptor`; the ID is that one's digest then, and not the config's.
 */
export function parseInspection(text: string): Inspection | undefined {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    return undefined;
  }
  const image = asObject(asList(value)[0]);
  const id = asText(image.Id);
  if (id === undefined) return undefined;
  const diffIds = asList(asObject(image.RootFS).Layers).flatMap(layer => asText(layer) ?? []);
  const full = fullId(id);
  const imageId = asText(asObject(image.Descriptor).digest) === undefined ? parseDigest(full) : undefined;
  const isPodman = full !== id;
  const found = { id: full, diffIds, isPodman, directories: directoriesOf(image) };
  return imageId === undefined
    ? found
    : { ...found, imageId, ...platformOf(image), ...userOf(image), ...sizeOf(image) };
}

function platformOf(image: JsonObject): { readonly platform?: Platform } {
  const [os, architecture, variant] = [image.Os, image.Architecture, image.Variant].map(asText);
  if (os === undefined || architecture === undefined) return {};
  // The config is read then, and says what is wrong with it.
  if (![os, architecture, variant ?? '0'].every(isPlatformWord)) return {};
  return { platform: { os, architecture, ...(variant === undefined ? {} : { variant }) } };
}

function userOf({ Config }: JsonObject): { readonly user?: string } {
  return Config === undefined || Config === null ? {} : { user: asText(asObject(Config).User) ?? '' };
}

function sizeOf({ Size }: JsonObject): { readonly sizeBytes?: number } {
  return typeof Size === 'number' ? { sizeBytes: Size } : {};
}

/** Drivers that mount layers over each other tell of the uppermost one, and of the others from there downwards. */
function directoriesOf({ GraphDriver }: JsonObject): readonly string[] {
  const { UpperDir, LowerDir } = asObject(asObject(GraphDriver).Data);
  return [UpperDir, LowerDir].flatMap(directories => asText(directories)?.split(':') ?? []).toReversed();
}

/** `sha256:HEX`, whichever way an engine wrote it. */
export function fullId(id: string): Digest {
  return `sha256:${id.replace(/^sha256:/, '')}`;
}

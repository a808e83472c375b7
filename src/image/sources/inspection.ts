import { type Digest, parseDigest } from '../digest.ts';
import { asList, asObject, asText } from '../json.ts';
import type { Platform } from '../platform.ts';
import type { ImageFacts } from './engine.ts';

/** What `image inspect` tells of an image. */
export interface Inspection extends ImageFacts {
  /** As `sha256:HEX`. */
  readonly id: string;
  readonly diffIds: readonly string[];
  /** podman answered, perhaps under docker's name (podman-docker). */
  readonly isPodman: boolean;
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
  return imageId === undefined
    ? { id: full, diffIds, isPodman }
    : { id: full, diffIds, isPodman, imageId, ...platformOf(image), ...userOf(image), ...sizeOf(image) };
}

function platformOf(image: Readonly<Record<string, unknown>>): { readonly platform?: Platform } {
  const [os, architecture, variant] = [image.Os, image.Architecture, image.Variant].map(asText);
  if (os === undefined || architecture === undefined) return {};
  return { platform: { os, architecture, ...(variant === undefined ? {} : { variant }) } };
}

function userOf({ Config }: Readonly<Record<string, unknown>>): { readonly user?: string } {
  return Config === undefined || Config === null ? {} : { user: asText(asObject(Config).User) ?? '' };
}

function sizeOf({ Size }: Readonly<Record<string, unknown>>): { readonly sizeBytes?: number } {
  return typeof Size === 'number' ? { sizeBytes: Size } : {};
}

/** `sha256:HEX`, whichever way an engine wrote it. */
export function fullId(id: string): Digest {
  return `sha256:${id.replace(/^sha256:/, '')}`;
}

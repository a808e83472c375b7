import { asList, asObject, asText } from '../json.ts';

/** What `image inspect` tells of an image. */
export interface Inspection {
  /** As `sha256:HEX`. */
  readonly id: string;
  readonly diffIds: readonly string[];
}

/**
 * Reads the JSON that `docker image inspect` and `podman image inspect` print for one image; undefined when it is not
 * that. docker writes the ID as `sha256:HEX`, podman as `HEX`.
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
  return { id: fullId(id), diffIds };
}

/** `sha256:HEX`, whichever way an engine wrote it. */
export function fullId(id: string): string {
  return `sha256:${id.replace(/^sha256:/, '')}`;
}

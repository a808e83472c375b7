import { SideloadError } from '../errors.ts';

/** A JSON object whose fields nobody has looked at yet. */
export type JsonObject = Readonly<Record<string, unknown>>;

/**
 * Parses JSON that comes out of an archive, of a size that the caller bounds: V8 does so in linear time at any depth.
 * @throws SideloadError ARCHIVE_INVALID naming `what` it was to be, and nothing of what it is: a link may lead to any file.
 */
export function parseJson(bytes: Buffer, what: string): unknown {
  try {
    return JSON.parse(bytes.toString('utf8'));
  } catch {
    throw new SideloadError('ARCHIVE_INVALID', `${what} is not JSON`);
  }
}

/** The value as an object; anything else becomes an empty one, whose fields are then missing. */
export function asObject(value: unknown): JsonObject {
  return isMapping(value) ? value : {};
}

export function isMapping(value: unknown): value is JsonObject {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** The value as a list; anything else (Go writes an empty list as null) becomes an empty one. */
export function asList(value: unknown): readonly unknown[] {
  return Array.isArray(value) ? value : [];
}

/** The value as a text that is not empty, or undefined. */
export function asText(value: unknown): string | undefined {
  return typeof value === 'string' && value !== '' ? value : undefined;
}

const SHOWN_CHARACTERS = 80;

/** A value that is not what it should be, for a message: a text in part, anything else by its kind. */
export function kindOf(value: unknown): string {
  if (typeof value === 'string') {
    return JSON.stringify(value.slice(0, SHOWN_CHARACTERS)) + (value.length > SHOWN_CHARACTERS ? '…' : '');
  }
  if (Array.isArray(value)) return 'a list';
  return typeof value === 'object' && value !== null ? 'an object' : String(value);
}

/** A name that an archive gives, for a message: as it is, unless nobody would have written it. */
export function shownName(name: string): string {
  const shown = kindOf(name);
  return shown === `"${name}"` ? name : shown;
}

import { messageOf, SideloadError } from '../errors.ts';

/** A JSON object whose fields nobody has looked at yet. */
export type JsonObject = Readonly<Record<string, unknown>>;

/**
 * Parses JSON that comes out of an archive.
 * @throws SideloadError ARCHIVE_INVALID naming `what` it was to be.
 */
export function parseJson(bytes: Buffer, what: string): unknown {
  try {
    return JSON.parse(bytes.toString('utf8'));
  } catch (error) {
    throw new SideloadError('ARCHIVE_INVALID', `${what} is not JSON: ${messageOf(error)}`, { cause: error });
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

import { createHash } from 'node:crypto';
import { Transform } from 'node:stream';

/** A content digest as in OCI image-spec, descriptor: SHA-256 is the only algorithm that images are addressed by. */
export type Digest = `sha256:${string}`;

/** The digest that `text` spells, or undefined: `sha256:` and 64 lowercase hexadecimal digits, nothing else. */
export function parseDigest(text: unknown): Digest | undefined {
  return typeof text === 'string' && /^sha256:[0-9a-f]{64}$/.test(text) ? (text as Digest) : undefined;
}

/** The digest whose 64 hexadecimal digits are `hex`, or undefined. */
export function digestFromHex(hex: string): Digest | undefined {
  return parseDigest(`sha256:${hex}`);
}

/** The 64 hexadecimal digits of a digest, which is also its file name below `blobs/sha256/`. */
export function hexOf(digest: Digest): string {
  return digest.slice('sha256:'.length);
}

/** The digest of bytes in memory. */
export function digestOf(bytes: Buffer | string): Digest {
  return `sha256:${createHash('sha256').update(bytes).digest('hex')}`;
}

/** A pass-through that hashes and counts what flows through it. */
export interface Meter {
  readonly stream: Transform;
  /** Digest and size of everything that went through; to be asked once, after the stream has ended. */
  result(): { readonly digest: Digest; readonly sizeBytes: number };
}

/** Makes a {@link Meter}, to be put into a pipeline. */
export function createMeter(): Meter {
  const hash = createHash('sha256');
  let sizeBytes = 0;
  const stream = new Transform({
    transform(chunk: Buffer, _encoding, done) {
      hash.update(chunk);
      sizeBytes += chunk.length;
      done(null, chunk);
    },
  });
  return { stream, result: () => ({ digest: `sha256:${hash.digest('hex')}`, sizeBytes }) };
}

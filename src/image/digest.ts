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

/** Hashes and counts what it is given. */
export interface Tally {
  add(chunk: Buffer): void;
  /** Digest and size of everything; to be asked once, at the end. */
  result(): { readonly digest: Digest; readonly sizeBytes: number };
}

export function createTally(): Tally {
  const hash = createHash('sha256');
  let sizeBytes = 0;
  return {
    add(chunk) {
      hash.update(chunk);
      sizeBytes += chunk.length;
    },
    result: () => ({ digest: `sha256:${hash.digest('hex')}`, sizeBytes }),
  };
}

/** A {@link Tally} as a pass-through, to be put into a pipeline. */
export interface Meter extends Pick<Tally, 'result'> {
  readonly stream: Transform;
}

export function createMeter(): Meter {
  const { add, result } = createTally();
  const stream = new Transform({
    transform(chunk: Buffer, _encoding, done) {
      add(chunk);
      done(null, chunk);
    },
  });
  return { stream, result };
}

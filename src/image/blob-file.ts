import { createHash } from 'node:crypto';
import type { FileHandle } from 'node:fs/promises';
import { Readable, Writable } from 'node:stream';
import { SideloadError } from '../errors.ts';
import { free } from '../memory.ts';
import type { Digest } from './digest.ts';

const READ_BYTES = 256 << 10;
/** How much is asked for at a time of a full disk. */
const ROOM_BYTES = 256 << 20;

/**
 * A stream into a file, which owns what is written to it when `frees` says so. A disk that is full is written to again as long as there is something that can make room.
 * @param makeRoom returns how many bytes it freed
 */
export function writeTo(
  handle: FileHandle,
  makeRoom: (wantedBytes: number) => Promise<number>,
  frees = false,
): Writable {
  let position = 0;
  const write = async (chunk: Buffer) => {
    let rest = chunk;
    while (rest.length > 0) {
      try {
        const { bytesWritten } = await handle.write(rest, 0, rest.length, position);
        position += bytesWritten;
        rest = rest.subarray(bytesWritten);
      } catch (error) {
        if (!isDiskFull(error) || (await makeRoom(ROOM_BYTES)) === 0) throw error;
      }
    }
    if (frees) free(chunk);
  };
  return new Writable({ write: (chunk, _encoding, done) => void write(chunk).then(() => done(), done) });
}

/** Whether a write failed for lack of space, or of what this user may take of it. */
export function isDiskFull(error: unknown): boolean {
  const { code } = error as NodeJS.ErrnoException;
  return code === 'ENOSPC' || code === 'EDQUOT';
}

/** Whether a file could not be opened because too many are, of this process or on this machine. */
export function isOutOfFiles(error: unknown): boolean {
  const { code } = error as NodeJS.ErrnoException;
  return code === 'EMFILE' || code === 'ENFILE';
}

/**
 * Reads a file and proves its digest on the way: the last bytes come when all of them are known to be right.
 * The stream fails with CACHE_CORRUPT when they are not. Each chunk has memory of its own, which the reader may free.
 * @param onCorrupt called before it fails
 */
export function readProven(
  handle: FileHandle,
  { digest, sizeBytes }: { readonly digest: Digest; readonly sizeBytes: number },
  onCorrupt: () => Promise<void>,
): Readable {
  async function* chunks(): AsyncGenerator<Buffer> {
    const hash = createHash('sha256');
    for (let position = 0; position < sizeBytes; ) {
      const buffer = Buffer.allocUnsafeSlow(Math.min(READ_BYTES, sizeBytes - position));
      const { bytesRead } = await handle.read(buffer, 0, buffer.length, position);
      const chunk = buffer.subarray(0, bytesRead);
      hash.update(chunk);
      position += bytesRead;
      if (bytesRead > 0 && position < sizeBytes) {
        yield chunk;
        continue;
      }
      const found: Digest = `sha256:${hash.digest('hex')}`;
      if (found !== digest || position < sizeBytes) {
        await onCorrupt();
        const what = position < sizeBytes ? `ends after ${position} of ${sizeBytes} bytes` : `is ${found}`;
        throw new SideloadError('CACHE_CORRUPT', `the stored layer ${digest} ${what}`);
      }
      yield chunk;
    }
  }
  // Chunk by chunk: a stream of bytes hands out what waits in it as one copy.
  return Readable.from(chunks(), { highWaterMark: 1 });
}

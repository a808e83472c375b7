import { createReadStream } from 'node:fs';
import { open, stat } from 'node:fs/promises';
import type { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { messageOf, SideloadError } from '../../errors.ts';
import { sniffCompression, startDecompression } from '../compression.ts';
import type { ArchiveEntries } from '../entries.ts';
import type { Compression } from '../image.ts';
import { peek, type Scratch } from '../scratch.ts';
import { scanTarFile } from '../tar-file.ts';
import { readTarStream } from '../tar-pipe.ts';
import { readLayoutDirectory } from './layout-directory.ts';

const READ_BYTES = 1 << 20;
const HEADER_BYTES = 512;
/** Where the magic of a tar header stands (POSIX pax: ustar interchange format). */
const USTAR_OFFSET = 257;

/**
 * Reads what an image archive on disk holds. A plain tar is indexed in place and its layers stay where they are, as do
 * the blobs of a layout in a directory; a compressed tar, or a pipe, is read once from front to back into the scratch directory.
 * @throws SideloadError ARCHIVE_INVALID, saying what the file is instead.
 */
export async function readArchiveFile(path: string, scratch: Scratch, signal: AbortSignal): Promise<ArchiveEntries> {
  const label = `the archive ${path}`;
  const info = await stat(path).catch((error: NodeJS.ErrnoException) => {
    throw unreadable(path, error);
  });
  if (info.isDirectory()) return await readLayoutDirectory(path, label, signal);
  if (info.isFile()) {
    const file = await open(path).catch((error: NodeJS.ErrnoException) => {
      throw unreadable(path, error);
    });
    try {
      const head = Buffer.alloc(HEADER_BYTES);
      const { bytesRead } = await file.read(head, 0, HEADER_BYTES, 0);
      if (recognise(head.subarray(0, bytesRead), label) === 'none') {
        return await scanTarFile(file, path, label, signal);
      }
    } finally {
      await file.close();
    }
  }
  const source = createReadStream(path, { highWaterMark: READ_BYTES, signal });
  try {
    const { head, all } = await peek(source, HEADER_BYTES);
    const compression = recognise(head, label);
    return compression === 'none'
      ? await readTarStream(all, () => source.destroy(), label, scratch, signal)
      : await readCompressed(all, () => source.destroy(), compression, label, scratch, signal);
  } finally {
    source.destroy();
  }
}

async function readCompressed(
  source: AsyncIterable<Buffer>,
  stop: () => void,
  compression: Exclude<Compression, 'none'>,
  label: string,
  scratch: Scratch,
  signal: AbortSignal,
): Promise<ArchiveEntries> {
  const filter = await startDecompression(compression, signal).catch((error: unknown) => {
    throw error instanceof SideloadError
      ? new SideloadError(error.code, `${label} cannot be read: ${error.message}`, { hint: error.hint })
      : error;
  });
  const feeding = pipeline(source, filter.stream, { signal });
  feeding.catch(() => {}); // the reader gets the same error from the stream
  try {
    const bytes = decompressed(filter.stream, filter.finished, compression, label);
    return await readTarStream(bytes, filter.stop, label, scratch, signal);
  } finally {
    filter.stop();
    stop();
    await feeding.catch(() => {});
  }
}

/** The decompressed bytes; they end well only if the compression did. */
async function* decompressed(
  stream: Readable,
  finished: () => Promise<void>,
  compression: string,
  label: string,
): AsyncGenerator<Buffer> {
  try {
    yield* stream as AsyncIterable<Buffer>;
    await finished();
  } catch (error) {
    if (error instanceof SideloadError || (error as Error).name === 'AbortError') throw error;
    throw new SideloadError('ARCHIVE_INVALID', `${label} is broken ${compression}: ${messageOf(error)}`, {
      cause: error,
    });
  }
}

function unreadable(path: string, error: NodeJS.ErrnoException): SideloadError {
  const why = error.code === 'ENOENT' ? 'does not exist' : `cannot be opened: ${error.message}`;
  return new SideloadError('ARCHIVE_INVALID', `the archive ${path} ${why}`, {
    hint: 'Check the path in `archive`, and that an earlier step of this job wrote the file on this machine.',
    cause: error,
  });
}

const FOREIGN: readonly (readonly [RegExp, string])[] = [
  [/^\s*<(?:!doctype|html|\?xml)/i, 'is an HTML or XML page: a download that went wrong looks like this'],
  [/^\s*[[{]/, 'is JSON text'],
  [/^\xfd7zXZ/, 'is compressed with xz: decompress it first'],
  [/^BZh/, 'is compressed with bzip2: decompress it first'],
  [/^PK\W/, 'is a zip file'],
  [/^version https:\/\/git-lfs/, 'is a Git LFS pointer: fetch the file itself first'],
];

/** The compression of a file by its first bytes; throws when they can belong to no image archive. */
function recognise(head: Buffer, label: string): Compression {
  if (head.length === 0) throw new SideloadError('ARCHIVE_INVALID', `${label} is empty`);
  const compression = sniffCompression(head);
  const text = head.toString('latin1');
  const isTar = text.startsWith('ustar', USTAR_OFFSET);
  const foreign = isTar || compression !== 'none' ? undefined : FOREIGN.find(([pattern]) => pattern.test(text));
  if (foreign !== undefined) throw new SideloadError('ARCHIVE_INVALID', `${label} ${foreign[1]}`);
  return compression;
}

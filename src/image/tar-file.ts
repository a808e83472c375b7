import { createReadStream } from 'node:fs';
import type { FileHandle } from 'node:fs/promises';
import { Readable } from 'node:stream';
import { type Extract, extract, type Header } from 'tar-stream';
import { messageOf, SideloadError } from '../errors.ts';
import { type ArchiveEntries, type ArchiveFile, entryName, linkTarget } from './entries.ts';

export const BLOCK_BYTES = 512;
const READ_BYTES = 1 << 20;
/** One header with its pax records and long names: a path has 4096 bytes at most (`PATH_MAX`), and an archive of images no others. */
const HEADER_MAX_BYTES = 64 << 10;
/** All headers of an archive: about 32,000 entries, of which an image needs up to four for each layer. */
const HEADERS_TOTAL_MAX_BYTES = 16 << 20;

/** tar-stream's reader, which goes by the checksum of a header and not by its format; its types lack that option. */
function createExtract(highWaterMark: number): Extract {
  const options = { highWaterMark, allowUnknownFormat: true };
  return extract(options);
}

/**
 * Lists the entries of an uncompressed tar on disk by reading headers and seeking over bodies, so that an image of any
 * size is open at once. Bodies are read from `path` when they are asked for.
 * @throws SideloadError ARCHIVE_INVALID for a broken header or a body that the file is too short for.
 */
export async function scanTarFile(
  file: FileHandle,
  path: string,
  label: string,
  signal: AbortSignal,
): Promise<ArchiveEntries> {
  const { size: sizeBytes } = await file.stat();
  const files = new Map<string, ArchiveFile>();
  const links = new Map<string, string>();
  const headers = headerReader(label, signal);
  let offset = 0;
  let ended = false;
  while (offset < sizeBytes) {
    const at = `byte ${offset}`;
    let start = offset;
    const header = await headers(at, async () => {
      const block = Buffer.alloc(BLOCK_BYTES);
      const { bytesRead } = await file.read(block, 0, BLOCK_BYTES, start);
      start += BLOCK_BYTES;
      return bytesRead < BLOCK_BYTES ? undefined : block;
    });
    if (header === 'end of archive') {
      ended = true;
      break;
    }
    if (header === 'cut off') throw truncated(label, sizeBytes, `the header at ${at}`);
    const name = entryName(header.name);
    // Directories have no body, whatever their size field says (tar-stream reads them so, and GNU tar too).
    const bodyBytes = header.type === 'directory' ? 0 : header.size;
    if (start + bodyBytes > sizeBytes) throw truncated(label, sizeBytes, name);
    files.delete(name);
    links.delete(name);
    if (header.type === 'symlink' || header.type === 'link') {
      links.set(name, linkTarget(header.type, name, header.linkname));
    } else if (header.type === 'file' || header.type === 'contiguous-file') {
      files.set(name, { sizeBytes: bodyBytes, open: () => openRange(path, start, bodyBytes) });
    }
    offset = start + Math.ceil(bodyBytes / BLOCK_BYTES) * BLOCK_BYTES;
    if (offset > sizeBytes) throw truncated(label, sizeBytes, name);
  }
  return { files, links, label, sizeBytes, ended };
}

/** The error for an archive that stops inside an entry. */
export function truncated(label: string, sizeBytes: number, name: string): SideloadError {
  return new SideloadError('ARCHIVE_INVALID', `${label} ends after ${sizeBytes} bytes, in the middle of ${name}`);
}

/** Reads a part of a file, and no more than that whatever becomes of the file. */
export function openRange(path: string, start: number, sizeBytes: number): Readable {
  return sizeBytes === 0
    ? Readable.from([])
    : createReadStream(path, { start, end: start + sizeBytes - 1, highWaterMark: READ_BYTES });
}

/**
 * Returns a function that reads one header with what belongs to it (pax records, GNU long names) of an archive. tar-stream
 * decodes it: it is given block after block until it announces an entry, and is left before the body. So nothing of one
 * entry is kept for the next, and what headers may cost is known; tar-stream alone takes in 4 MiB of records for each, and
 * copies those of a global header for every one that follows.
 * The function throws SideloadError ARCHIVE_INVALID for what is no header, or more of them than any image has.
 */
export function headerReader(
  label: string,
  signal: AbortSignal,
): (at: string, nextBlock: () => Promise<Buffer | undefined>) => Promise<Header | 'end of archive' | 'cut off'> {
  let totalBytes = 0;
  return async (at, nextBlock) => {
    let header: Header | undefined;
    // A high-water mark of one byte: every block that was taken in is followed by `drain`.
    const decoder = createExtract(1);
    try {
      const ready = listen(decoder, entry => {
        header = entry;
      });
      for (let headerBytes = 0; header === undefined; headerBytes += BLOCK_BYTES) {
        signal.throwIfAborted();
        totalBytes += BLOCK_BYTES;
        if (headerBytes >= HEADER_MAX_BYTES) throw excessive(label, `the header at ${at} has`, HEADER_MAX_BYTES);
        if (totalBytes > HEADERS_TOTAL_MAX_BYTES) throw excessive(label, 'its headers have', HEADERS_TOTAL_MAX_BYTES);
        const block = await nextBlock();
        if (block === undefined) return 'cut off';
        if (headerBytes === 0 && block.every(byte => byte === 0)) return 'end of archive';
        decoder.write(block);
        await ready();
      }
      return header;
    } catch (error) {
      if (error instanceof SideloadError || signal.aborted) throw error;
      throw new SideloadError(
        'ARCHIVE_INVALID',
        `${label} is not a tar archive: no header at ${at}: ${messageOf(error)}`,
        {
          cause: error,
        },
      );
    } finally {
      decoder.destroy();
    }
  };
}

function excessive(label: string, what: string, maxBytes: number): SideloadError {
  return new SideloadError('ARCHIVE_INVALID', `${label} is no image archive: ${what} more than ${maxBytes} bytes`, {
    hint: 'Write it with `docker save` or `podman save`; a whole file system (`docker export`) is none.',
  });
}

/** Returns a function that waits until the decoder has taken in what was written, and rejects when it cannot. */
function listen(decoder: Extract, onEntry: (header: Header) => void): () => Promise<void> {
  let settle: { readonly resolve: () => void; readonly reject: (error: unknown) => void } | undefined;
  let failure: unknown;
  decoder.on('entry', (header, body) => {
    body.on('error', () => {}); // it is abandoned on purpose
    onEntry(header);
  });
  decoder.on('drain', () => settle?.resolve());
  decoder.on('error', (error: unknown) => {
    failure = error;
    settle?.reject(error);
  });
  return () =>
    new Promise((resolve, reject) => {
      settle = { resolve, reject };
      if (failure !== undefined) reject(failure);
    });
}

import { createReadStream } from 'node:fs';
import type { FileHandle } from 'node:fs/promises';
import { Readable } from 'node:stream';
import { type Extract, extract, type Header } from 'tar-stream';
import { messageOf, SideloadError } from '../errors.ts';
import { type ArchiveEntries, type ArchiveFile, entryName, linkTarget } from './entries.ts';

const BLOCK_BYTES = 512;
const READ_BYTES = 1 << 20;

/** tar-stream's reader, which goes by the checksum of a header and not by its format; its types lack that option. */
export function createExtract(highWaterMark: number): Extract {
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
  let offset = 0;
  let ended = false;
  while (offset < sizeBytes) {
    signal.throwIfAborted();
    const found = await readHeader(file, offset, sizeBytes, label);
    if (found === 'end of archive') {
      ended = true;
      break;
    }
    const { header, bodyOffset: start } = found;
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

function openRange(path: string, start: number, sizeBytes: number): Readable {
  return sizeBytes === 0
    ? Readable.from([])
    : createReadStream(path, { start, end: start + sizeBytes - 1, highWaterMark: READ_BYTES });
}

/**
 * Reads one header with what belongs to it (pax records, GNU long names). tar-stream decodes it: it is given block
 * after block until it announces an entry, and is left before the body.
 */
async function readHeader(
  file: FileHandle,
  offset: number,
  sizeBytes: number,
  label: string,
): Promise<{ readonly header: Header; readonly bodyOffset: number } | 'end of archive'> {
  let header: Header | undefined;
  // A high-water mark of one byte: every block that was taken in is followed by `drain`.
  const decoder = createExtract(1);
  try {
    const ready = listen(decoder, entry => {
      header = entry;
    });
    let position = offset;
    while (header === undefined) {
      const block = Buffer.alloc(BLOCK_BYTES);
      const { bytesRead } = await file.read(block, 0, BLOCK_BYTES, position);
      if (bytesRead < BLOCK_BYTES) throw truncated(label, sizeBytes, `the header at byte ${offset}`);
      if (position === offset && block.every(byte => byte === 0)) return 'end of archive';
      decoder.write(block);
      await ready();
      position += BLOCK_BYTES;
    }
    return { header, bodyOffset: position };
  } catch (error) {
    if (error instanceof SideloadError) throw error;
    throw new SideloadError('ARCHIVE_INVALID', `${label} has no tar header at byte ${offset}: ${messageOf(error)}`, {
      cause: error,
    });
  } finally {
    decoder.destroy();
  }
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

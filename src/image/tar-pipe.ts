import { Readable } from 'node:stream';
import { SideloadError } from '../errors.ts';
import { digestFromHex } from './digest.ts';
import {
  type ArchiveEntries,
  type ArchiveFile,
  entryName,
  linkTarget,
  METADATA_MAX_BYTES,
  METADATA_TOTAL_MAX_BYTES,
  memoryFile,
} from './entries.ts';
import type { ReadableSource, Scratch } from './scratch.ts';
import { BLOCK_BYTES, headerReader, truncated } from './tar-file.ts';

/** Files that lie in the scratch directory, each of them open until the end: more than the layers of many images. */
const STORED_MAX_FILES = 4000;
/** What may follow the end of an archive: tar fills its last record up, and others a block of the disk. */
const TRAILER_MAX_BYTES = 64 << 20;

/**
 * Reads an uncompressed tar that can be read only once. Small JSON stays in memory; every other file may be a layer,
 * and which ones are is known at the end, so each is compressed into the scratch directory as it passes.
 * @param source whose chunks nobody else looks at
 * @param stop ends the source when its bytes are no good: one that stalls would otherwise be waited for without end
 * @throws SideloadError ARCHIVE_INVALID when it is no tar, ends within an entry, or has more of anything than images have;
 * what `source` or `scratch` throws.
 */
export async function readTarStream(
  source: AsyncIterable<Buffer>,
  stop: () => void,
  label: string,
  scratch: Scratch,
  signal: AbortSignal,
): Promise<ArchiveEntries> {
  const files = new Map<string, ArchiveFile>();
  const links = new Map<string, string>();
  const reader = readerOf(source);
  const headers = headerReader(label, signal);
  const spent = { metadata: 0, stored: 0 };
  const excessive = (what: string) => new SideloadError('ARCHIVE_INVALID', `${label} has more than ${what}`);

  const store = async (entry: ReadableSource, name: string, entryBytes: number): Promise<ArchiveFile> => {
    if (entryBytes === 0) return memoryFile(Buffer.alloc(0));
    if (entryBytes <= METADATA_MAX_BYTES) {
      const bytes = await bytesOf(entry);
      if (looksLikeJson(bytes)) {
        spent.metadata += bytes.length;
        if (spent.metadata > METADATA_TOTAL_MAX_BYTES) throw excessive(`${METADATA_TOTAL_MAX_BYTES} bytes of JSON`);
        return memoryFile(bytes);
      }
      return await keep(() => Readable.from([bytes]), entryBytes);
    }
    // The same base layer in the next image, or the next run: what is stored is proven to be what this name promises.
    const claimed = digestFromHex(/(?:^|\/)([0-9a-f]{64})(?:\.tar(?:\.gz)?)?$/.exec(name)?.[1] ?? '');
    const known = claimed === undefined ? undefined : await scratch.find(claimed);
    // Of one that is known only the bytes behind it are of interest.
    return known === undefined ? await keep(() => entry, entryBytes, 'given') : storedFile(entryBytes, known);
  };

  const keep = async (open: () => ReadableSource, entryBytes: number, chunks?: 'given'): Promise<ArchiveFile> => {
    spent.stored += 1;
    if (spent.stored > STORED_MAX_FILES) throw excessive(`${STORED_MAX_FILES} files that may be layers`);
    return storedFile(entryBytes, await scratch.write(open, signal, chunks));
  };

  const read = async (): Promise<boolean> => {
    let current = 'its first header';
    for (;;) {
      const start = reader.readBytes();
      const header = await headers(current, () => reader.block());
      if (header === 'end of archive') return true;
      if (header === 'cut off') {
        if (reader.readBytes() === start) return false;
        throw truncated(label, reader.readBytes(), current);
      }
      const { type, size, linkname } = header;
      const name = entryName(header.name);
      files.delete(name);
      links.delete(name);
      if (type === 'symlink' || type === 'link') links.set(name, linkTarget(type, name, linkname));
      // Directories have no body, whatever their size field says (tar-stream reads them so, and GNU tar too).
      const bodyBytes = type === 'directory' ? 0 : size;
      const end = reader.readBytes() + bodyBytes + paddingOf(bodyBytes);
      if (type === 'file' || type === 'contiguous-file') {
        const body = Object.assign(reader.chunks(bodyBytes), { destroy: () => {} });
        files.set(name, await store(body, name, bodyBytes));
      }
      await reader.skip(end - reader.readBytes());
      if (reader.readBytes() < end) throw truncated(label, reader.readBytes(), name);
      current = `the header after ${name}`;
    }
  };

  signal.addEventListener('abort', stop);
  try {
    const ended = await read();
    // Only at its very end a compression tells whether it was whole.
    if ((await reader.skip(TRAILER_MAX_BYTES + 1)) > TRAILER_MAX_BYTES) {
      throw new SideloadError('ARCHIVE_INVALID', `${label} goes on for ${TRAILER_MAX_BYTES} bytes after its end`);
    }
    return { files, links, label, sizeBytes: reader.readBytes(), ended };
  } catch (error) {
    stop();
    signal.throwIfAborted();
    throw error;
  } finally {
    signal.removeEventListener('abort', stop);
  }
}

/** Bytes of a source, as many at a time as are wanted. */
function readerOf(source: AsyncIterable<Buffer>) {
  const chunks = source[Symbol.asyncIterator]();
  let rest: Buffer = Buffer.alloc(0);
  let readBytes = 0;
  /** As many bytes as there are, at most so many; none at the end. */
  const take = async (maxBytes: number): Promise<Buffer> => {
    while (rest.length === 0) {
      const next = await chunks.next();
      if (next.done === true) return rest;
      rest = next.value;
    }
    const taken = maxBytes < rest.length ? rest.subarray(0, maxBytes) : rest;
    rest = rest.subarray(taken.length);
    readBytes += taken.length;
    return taken;
  };
  async function* chunksOf(sizeBytes: number): AsyncGenerator<Buffer> {
    for (let leftBytes = sizeBytes; leftBytes > 0; ) {
      const chunk = await take(leftBytes);
      if (chunk.length === 0) return;
      leftBytes -= chunk.length;
      yield chunk;
    }
  }
  return {
    readBytes: () => readBytes,
    chunks: chunksOf,
    /** Reads on, and returns over how many bytes. */
    async skip(sizeBytes: number): Promise<number> {
      const start = readBytes;
      for await (const _ of chunksOf(sizeBytes)) {
        // Nobody wants it.
      }
      return readBytes - start;
    },
    /** One block of a tar; undefined when there is no whole one. */
    async block(): Promise<Buffer | undefined> {
      const block = await bytesOf(chunksOf(BLOCK_BYTES));
      return block.length < BLOCK_BYTES ? undefined : block;
    },
  };
}

function paddingOf(sizeBytes: number): number {
  return (BLOCK_BYTES - (sizeBytes % BLOCK_BYTES)) % BLOCK_BYTES;
}

function storedFile(sizeBytes: number, stored: NonNullable<ArchiveFile['stored']>): ArchiveFile {
  return { sizeBytes, stored, open: stored.blob.open };
}

async function bytesOf(entry: AsyncIterable<Buffer>): Promise<Buffer> {
  const chunks: Buffer[] = [];
  for await (const chunk of entry) chunks.push(chunk);
  return Buffer.concat(chunks);
}

/** A tar may begin with any letter of a file name, but not without zero bytes. */
function looksLikeJson(bytes: Buffer): boolean {
  return /^\s*[[{]/.test(bytes.subarray(0, 64).toString('latin1')) && !bytes.includes(0);
}

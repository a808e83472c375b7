import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { messageOf, SideloadError } from '../errors.ts';
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
import { createExtract, truncated } from './tar-file.ts';

const BLOCK_BYTES = 512;
const READ_BYTES = 1 << 20;

/**
 * Reads an uncompressed tar that can be read only once. Small JSON stays in memory; every other file may be a layer,
 * and which ones are is known at the end, so each is compressed into the scratch directory as it passes.
 * @param source whose chunks nobody else looks at
 * @param stop ends the source when its bytes are no good: one that stalls would otherwise be waited for without end
 * @throws SideloadError ARCHIVE_INVALID when it is no tar or ends within an entry; what `source` or `scratch` throws.
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
  const parser = createExtract(READ_BYTES);
  let sizeBytes = 0;
  let entriesBytes = 0;
  let metadataBytes = 0;
  let current = 'its first header';
  let stopped = false;
  let sourceFailure: { readonly error: unknown } | undefined;

  async function* counted(): AsyncGenerator<Buffer> {
    try {
      for await (const chunk of source) {
        sizeBytes += chunk.length;
        yield chunk;
      }
    } catch (error) {
      if (!stopped) sourceFailure = { error };
      throw error;
    }
  }

  const store = async (entry: ReadableSource, name: string, entryBytes: number): Promise<void> => {
    if (entryBytes <= METADATA_MAX_BYTES) {
      const bytes = await bytesOf(entry);
      if (looksLikeJson(bytes)) {
        metadataBytes += bytes.length;
        if (metadataBytes > METADATA_TOTAL_MAX_BYTES) {
          throw new SideloadError(
            'ARCHIVE_INVALID',
            `${label} has more than ${METADATA_TOTAL_MAX_BYTES} bytes of JSON`,
          );
        }
        files.set(name, memoryFile(bytes));
        return;
      }
      files.set(name, storedFile(entryBytes, await scratch.write(() => Readable.from([bytes]), signal)));
      return;
    }
    // The same base layer in the next image, or the next run: what is stored is proven to be what this name promises.
    const claimed = digestFromHex(/(?:^|\/)([0-9a-f]{64})(?:\.tar(?:\.gz)?)?$/.exec(name)?.[1] ?? '');
    const known = claimed === undefined ? undefined : await scratch.find(claimed);
    if (known === undefined) {
      files.set(name, storedFile(entryBytes, await scratch.write(() => entry, signal, 'given')));
    } else {
      for await (const _ of entry) {
        // Only the bytes behind it are of interest.
      }
      files.set(name, storedFile(entryBytes, known));
    }
  };

  const collect = async (): Promise<void> => {
    for await (const entry of parser) {
      const { name: writtenName, type, size, linkname } = entry.header;
      const name = entryName(writtenName);
      current = name;
      // tar-stream tells the place of the body, its types do not.
      const { byteOffset } = entry.header as { readonly byteOffset?: number };
      entriesBytes = (byteOffset ?? 0) + Math.ceil(size / BLOCK_BYTES) * BLOCK_BYTES;
      files.delete(name);
      links.delete(name);
      if (type === 'symlink' || type === 'link') links.set(name, linkTarget(type, name, linkname));
      if (type === 'file' || type === 'contiguous-file') await store(entry as ReadableSource, name, size);
      else entry.resume();
      current = `the header after ${name}`;
    }
  };

  const feeding = pipeline(counted(), parser, { signal });
  const collecting = collect();
  // A failure of either side ends the other one.
  collecting.catch(error => {
    parser.destroy(error);
    stopped = true;
    stop();
  });
  const failures = (await Promise.allSettled([collecting, feeding])).flatMap((side): unknown[] =>
    side.status === 'rejected' ? [side.reason] : [],
  );
  if (failures.length > 0) {
    // Which side notices first is chance; a stream that was merely closed is never the cause.
    const error =
      failures.find(failure => failure instanceof SideloadError) ??
      failures.find(failure => (failure as NodeJS.ErrnoException).code !== 'ERR_STREAM_PREMATURE_CLOSE') ??
      failures[0];
    if (sourceFailure !== undefined) throw sourceFailure.error;
    if (error instanceof SideloadError || signal.aborted) throw error;
    const message = messageOf(error);
    if (message === 'Unexpected end of data') throw truncated(label, sizeBytes, current);
    if (!/header/i.test(message)) throw error;
    throw new SideloadError('ARCHIVE_INVALID', `${label} is not a tar archive at ${current}: ${message}`, {
      cause: error,
    });
  }
  return { files, links, label, sizeBytes, ended: sizeBytes >= entriesBytes + BLOCK_BYTES };
}

function storedFile(sizeBytes: number, stored: NonNullable<ArchiveFile['stored']>): ArchiveFile {
  return { sizeBytes, stored, open: stored.blob.open };
}

async function bytesOf(entry: ReadableSource): Promise<Buffer> {
  const chunks: Buffer[] = [];
  for await (const chunk of entry) chunks.push(chunk);
  return Buffer.concat(chunks);
}

/** A tar may begin with any letter of a file name, but not without zero bytes. */
function looksLikeJson(bytes: Buffer): boolean {
  return /^\s*[[{]/.test(bytes.subarray(0, 64).toString('latin1')) && !bytes.includes(0);
}

import { createReadStream, createWriteStream } from 'node:fs';
import { mkdtemp, rename, rm } from 'node:fs/promises';
import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import { type Readable, Writable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { SideloadError } from '../errors.ts';
import { type Codec, chooseCodec, type Filter, MAGIC_BYTES, sniffCompression } from './compression.ts';
import { createMeter, type Digest, hexOf } from './digest.ts';
import type { Compression, StoredBlob } from './image.ts';

const READ_BYTES = 1 << 20;

/** Content that was read from a source and now lies in the scratch directory. */
export interface StoredContent {
  /** Digest of the bytes as they were in the source. */
  readonly digest: Digest;
  /** How the bytes were compressed in the source. */
  readonly compression: Compression;
  /** What is sent: the same bytes, or compressed here when they were not. */
  readonly blob: StoredBlob;
}

/** Bytes to be read once: a stream of Node, or an entry of tar-stream. */
export interface ReadableSource extends AsyncIterable<Buffer> {
  destroy(): unknown;
}

/** The disk space of a run. Its files are named by their digest, never by anything that an archive says. */
export interface Scratch {
  /** For a file that a program of this machine writes itself; it goes with the rest. */
  readonly directory: string;
  /** Fires when the space is closed: whatever writes here must end then. */
  readonly signal: AbortSignal;
  /**
   * Opens a stream when its turn comes, and stores it, compressed on the way unless it is compressed already.
   * The stream is destroyed afterwards.
   * @throws SideloadError DISK_FULL
   */
  write(open: () => ReadableSource, signal: AbortSignal): Promise<StoredContent>;
  /**
   * The same for content that can be opened again: what is compressed already is read once, for its digest, and stays
   * where it is.
   * @throws SideloadError DISK_FULL
   */
  adopt(open: () => Readable, signal: AbortSignal): Promise<StoredContent>;
  /** What is stored of this digest as it was in the source. */
  find(digest: Digest): StoredContent | undefined;
  /** Deletes every content that is not of these digests. */
  retain(digests: ReadonlySet<Digest>): Promise<void>;
  /** Ends what still writes, and deletes everything. */
  close(): Promise<void>;
}

/** Opens scratch space in a directory that exists, and says how layers will be compressed. */
export async function openScratch(
  directory: string,
  log: (line: string) => void,
  signal: AbortSignal,
): Promise<Scratch> {
  const codec = await chooseCodec(signal);
  log(`layers are compressed with ${codec.name}`);
  const root = await mkdtemp(join(directory, 'blobs-'));
  const closing = new AbortController();
  const contents = new Map<Digest, StoredContent>();
  const writing = new Set<Promise<unknown>>();
  const turn = createQueue(availableParallelism());
  let files = 0;

  const write = async (source: ReadableSource, signal: AbortSignal): Promise<StoredContent> => {
    files += 1;
    const partial = join(root, `${files}.partial`);
    try {
      const stored = await writeBlob(source, partial, codec, signal);
      const path = join(root, hexOf(stored.sent.digest));
      await rename(partial, path);
      const content: StoredContent = {
        digest: stored.read,
        compression: stored.compression,
        blob: { ...stored.sent, open: () => createReadStream(path, { highWaterMark: READ_BYTES }) },
      };
      contents.set(content.digest, content);
      return content;
    } catch (error) {
      await rm(partial, { force: true });
      throw diskFull(error, root) ?? error;
    } finally {
      source.destroy();
    }
  };

  const inTurn = (task: (signal: AbortSignal) => Promise<StoredContent>, signal: AbortSignal) => {
    const job = turn(() => {
      const either = AbortSignal.any([signal, closing.signal]);
      either.throwIfAborted();
      return task(either);
    });
    writing.add(job);
    const done = () => writing.delete(job);
    job.then(done, done);
    return job;
  };

  return {
    directory: root,
    signal: closing.signal,
    write: (open, signal) => inTurn(either => write(open(), either), signal),
    adopt: (open, signal) =>
      inTurn(async either => (await adoptBlob(open, either)) ?? (await write(open(), either)), signal),
    find: digest => contents.get(digest),
    async retain(digests) {
      const kept = new Set([...digests].flatMap(digest => contents.get(digest)?.blob.digest ?? []));
      for (const [digest, { blob }] of contents) {
        if (digests.has(digest)) continue;
        contents.delete(digest);
        if (!kept.has(blob.digest)) await rm(join(root, hexOf(blob.digest)), { force: true });
      }
    },
    async close() {
      closing.abort(new SideloadError('CANCELLED', 'the scratch directory was closed'));
      await Promise.allSettled(writing);
      await rm(root, { recursive: true, force: true });
    },
  };
}

async function writeBlob(source: ReadableSource, path: string, codec: Codec, signal: AbortSignal) {
  const { head, all } = await peek(source, MAGIC_BYTES);
  const compression = sniffCompression(head);
  const read = createMeter();
  const file = () => createWriteStream(path, { mode: 0o600, flags: 'wx' });
  if (compression !== 'none') {
    await pipeline(all, read.stream, file(), { signal });
    const { digest, sizeBytes } = read.result();
    return { read: digest, compression, sent: { digest, sizeBytes, compression } };
  }
  const sent = createMeter();
  await through(codec.start(signal), filter => pipeline(all, read.stream, filter, sent.stream, file(), { signal }));
  return {
    read: read.result().digest,
    compression,
    sent: { ...sent.result(), compression: codec.compression },
  };
}

/** The content as it is when it is compressed, else undefined. */
async function adoptBlob(open: () => Readable, signal: AbortSignal): Promise<StoredContent | undefined> {
  const source = open();
  try {
    const { head, all } = await peek(source, MAGIC_BYTES);
    const compression = sniffCompression(head);
    if (compression === 'none') return undefined;
    const meter = createMeter();
    await pipeline(all, meter.stream, nowhere(), { signal });
    const read = meter.result();
    return { digest: read.digest, compression, blob: { ...read, compression, open } };
  } finally {
    source.destroy();
  }
}

/** A stream that takes everything and keeps nothing. */
export function nowhere(): Writable {
  return new Writable({ write: (_chunk, _encoding, done) => done() });
}

/** Runs a pipeline through a filter; the filter has ended well, or the pipeline fails, and nothing stays behind. */
export async function through(filter: Filter, run: (stream: Filter['stream']) => Promise<void>): Promise<void> {
  try {
    await run(filter.stream);
    await filter.finished();
  } finally {
    filter.stop();
  }
}

/** Reads the first bytes of a source (fewer when it is shorter), and hands the whole of it on. */
export async function peek(
  source: ReadableSource,
  sizeBytes: number,
): Promise<{ readonly head: Buffer; readonly all: AsyncIterable<Buffer> }> {
  const chunks: AsyncIterator<Buffer> = source[Symbol.asyncIterator]();
  const first: Buffer[] = [];
  let headBytes = 0;
  while (headBytes < sizeBytes) {
    const next = await chunks.next();
    if (next.done === true) break;
    first.push(next.value);
    headBytes += next.value.length;
  }
  async function* all(): AsyncGenerator<Buffer> {
    try {
      yield* first;
      first.length = 0;
      for (let next = await chunks.next(); next.done !== true; next = await chunks.next()) yield next.value;
    } finally {
      await chunks.return?.();
    }
  }
  return { head: Buffer.concat(first).subarray(0, sizeBytes), all: all() };
}

function diskFull(error: unknown, directory: string): SideloadError | undefined {
  const { code } = error as NodeJS.ErrnoException;
  return code === 'ENOSPC' || code === 'EDQUOT'
    ? new SideloadError('DISK_FULL', `no space left in ${directory} on the runner`, { cause: error })
    : undefined;
}

/** Lets a number of tasks run at a time and the others wait, in order. */
function createQueue(limit: number): <T>(task: () => Promise<T>) => Promise<T> {
  const waiting: (() => void)[] = [];
  let running = 0;
  return async task => {
    if (running >= limit) await new Promise<void>(resolve => waiting.push(resolve));
    else running += 1;
    try {
      return await task();
    } finally {
      // The place goes to the next in line without becoming free in between.
      const next = waiting.shift();
      if (next === undefined) running -= 1;
      else next();
    }
  };
}

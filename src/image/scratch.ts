import { EventEmitter, once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import { type Readable, Writable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { follow } from '../abort.ts';
import { SideloadError } from '../errors.ts';
import { free } from '../memory.ts';
import { isDiskFull, isOutOfFiles, readProven, writeTo } from './blob-file.ts';
import { type CacheFile, type CacheOptions, openCache } from './cache.ts';
import { passedThrough } from './cache-directory.ts';
import {
  type Codec,
  type CompressionSetting,
  chooseCodec,
  type Filter,
  MAGIC_BYTES,
  sniffCompression,
} from './compression.ts';
import { createMeter, createTally, type Digest, digestOf, type Tally } from './digest.ts';
import type { Compression, StoredBlob } from './image.ts';

/** Content that was read from a source and is now stored on the runner. */
export interface StoredContent {
  /** Digest of the bytes as they were in the source. */
  readonly digest: Digest;
  /** How the bytes that have this digest are compressed. */
  readonly compression: Compression;
  /** What is sent: the same bytes, or compressed here when they were not. */
  readonly blob: StoredBlob;
}

/** Bytes to be read once: a stream of Node, or an entry of tar-stream. */
export interface ReadableSource extends AsyncIterable<Buffer> {
  destroy(): unknown;
}

/**
 * What a run has stored of layers, in the cache of the runner. Whatever is stored stays readable until the end of the
 * run, and is found by other runs when it is known to be a layer. Files are named by digests, never by anything that an
 * archive says.
 */
export interface Scratch {
  /** For a file that a program of this machine writes itself; it goes with the run. */
  readonly directory: string;
  /** Fires when the space is closed: whatever writes here must end then. */
  readonly signal: AbortSignal;
  /**
   * Opens a stream when its turn comes, and stores it, compressed on the way unless it is compressed already.
   * The stream is destroyed afterwards.
   * @param chunks whether nobody else looks at the stream's chunks: their memory is then given back as they pass
   * @throws SideloadError DISK_FULL
   */
  write(open: () => ReadableSource, signal: AbortSignal, chunks?: 'given' | 'lent'): Promise<StoredContent>;
  /**
   * The same for content that can be opened again, whose chunks are nobody else's: what needs no compression is read
   * once, for its digest, and stays where it is.
   * @throws SideloadError DISK_FULL
   */
  adopt(open: () => Readable, signal: AbortSignal): Promise<StoredContent>;
  /** What is stored of this digest, by this run or an earlier one; the bytes are proven when they are read. */
  find(digest: Digest): Promise<StoredContent | undefined>;
  /**
   * Content of this digest as soon as this run has stored it. Never comes when it is not written.
   * @throws the signal's reason
   */
  passing(digest: Digest, signal: AbortSignal): Promise<StoredContent>;
  /** Leaves content to later runs: it is a layer, of this diffID when one is given, which is then proven. */
  keep(content: StoredContent, diffId?: Digest): Promise<void>;
  /** Leaves the config of an image to later runs, unless there is no room for it. */
  keepConfig(imageId: Digest, config: Buffer): Promise<void>;
  /** The config that an earlier run has left, proven; `undefined` when there is none. */
  findConfig(imageId: Digest): Promise<Buffer | undefined>;
  /** Keeps the content of these digests, and forgets all other that was written or found until now. */
  retain(digests: ReadonlySet<Digest>): Promise<void>;
  /** Ends what still writes, deletes what was not kept, and brings the cache back to its size. */
  close(): Promise<void>;
}

/** How layers are stored. */
export interface ScratchOptions {
  readonly compression?: CompressionSetting | undefined;
  /** Absent for storage that goes with the run. */
  readonly cache?: CacheOptions | undefined;
}

/** Opens storage, with a directory for this run in one that exists, and says how layers will be compressed. */
export async function openScratch(
  directory: string,
  log: (line: string) => void,
  signal: AbortSignal,
  { compression = 'auto', cache: cacheOptions = { directory: undefined, maxBytes: 0 } }: ScratchOptions = {},
): Promise<Scratch> {
  const codec = await chooseCodec(compression, signal);
  log(`layers are compressed with ${codec.name}${compression === 'auto' ? ', as nodes take them in soonest so' : ''}`);
  const root = await mkdtemp(join(directory, 'blobs-'));
  const cache = await openCache(cacheOptions, root, log);
  const closing = new AbortController();
  const contents = new Map<Digest, StoredContent>();
  const files = new Map<StoredContent, CacheFile>();
  const writing = new Set<Promise<unknown>>();
  const arrivals = new EventEmitter().setMaxListeners(0);
  const turn = createQueue(availableParallelism());

  /** One content for each digest: of two that are stored at the same time the first one stays. */
  const remember = async (content: Omit<StoredContent, 'blob'>, blob: Omit<StoredBlob, 'open'>, file: CacheFile) => {
    const known = contents.get(content.digest);
    if (known !== undefined) {
      await cache.release(file);
      return known;
    }
    const open = () => readProven(file.handle, blob, () => cache.discard(file));
    const stored: StoredContent = { ...content, blob: { ...blob, open } };
    contents.set(content.digest, stored);
    files.set(stored, file);
    arrivals.emit(content.digest, stored);
    return stored;
  };

  const write = async (source: ReadableSource, signal: AbortSignal, given = false): Promise<StoredContent> => {
    const file = await cache.create().catch((error: unknown) => {
      source.destroy();
      throw isOutOfFiles(error) ? tooManyFiles(error) : error;
    });
    try {
      const sink = (frees: boolean) => writeTo(file.handle, cache.makeRoom, frees);
      const { content, blob } = await writeBlob(source, given, sink, codec, signal);
      return await remember(content, blob, file);
    } catch (error) {
      await cache.release(file);
      throw isDiskFull(error)
        ? new SideloadError('DISK_FULL', `no space left in ${cache.directory} on the runner`, { cause: error })
        : error;
    } finally {
      source.destroy();
    }
  };

  const inTurn = (task: (signal: AbortSignal) => Promise<StoredContent>, signal: AbortSignal) => {
    const job = turn(() => {
      const either = follow(signal, closing.signal);
      either.signal.throwIfAborted();
      return task(either.signal).finally(either.release);
    });
    writing.add(job);
    const done = () => writing.delete(job);
    job.then(done, done);
    return job;
  };

  const keep = async (content: StoredContent, diffId = content.digest): Promise<void> => {
    const file = files.get(content);
    if (file === undefined) return;
    const { digest: blob, compression } = content.blob;
    const label = content.compression === 'none' ? codec.label : compression;
    for (const source of new Set([content.digest, diffId])) {
      await cache.publish(file, { source, blob, compression, label });
    }
  };

  return {
    directory: root,
    signal: closing.signal,
    write: (open, signal, chunks = 'lent') => inTurn(either => write(open(), either, chunks === 'given'), signal),
    adopt: (open, signal) =>
      inTurn(async either => (await adoptBlob(open, codec, either)) ?? (await write(open(), either, true)), signal),
    async find(digest) {
      const known = contents.get(digest);
      if (known !== undefined || closing.signal.aborted) return known;
      const found = await cache.find(digest, codec.label);
      if (found === undefined) return undefined;
      const { entry, sizeBytes, file } = found;
      const isSource = passedThrough(entry) && entry.source === entry.blob;
      const compression = isSource ? entry.compression : 'none';
      return await remember(
        { digest, compression },
        { digest: entry.blob, sizeBytes, compression: entry.compression },
        file,
      );
    },
    async passing(digest, signal) {
      const known = contents.get(digest);
      if (known !== undefined) return known;
      const [stored] = (await once(arrivals, digest, { signal })) as [StoredContent];
      return stored;
    },
    keep,
    async keepConfig(imageId, config) {
      const file = await cache.create().catch((error: unknown) => {
        if (!isOutOfFiles(error)) throw error;
      });
      if (file === undefined) return;
      try {
        await file.handle.writeFile(config);
        await cache.publish(file, { ...AS_IT_IS, source: imageId, blob: imageId });
      } catch (error) {
        if (!isDiskFull(error)) throw error;
      } finally {
        await cache.release(file);
      }
    },
    async findConfig(imageId) {
      const found = await cache.find(imageId, AS_IT_IS.label);
      if (found === undefined) return undefined;
      const config = await found.file.handle.readFile();
      if (digestOf(config) === imageId) {
        await cache.release(found.file);
        return config;
      }
      await cache.discard(found.file);
      return undefined;
    },
    async retain(digests) {
      for (const [digest, content] of contents) {
        if (digests.has(digest)) {
          await keep(content);
          continue;
        }
        contents.delete(digest);
        const file = files.get(content);
        files.delete(content);
        if (file !== undefined) await cache.release(file);
      }
    },
    async close() {
      closing.abort(new SideloadError('CANCELLED', 'the scratch directory was closed'));
      await Promise.allSettled(writing);
      await cache.close();
      await rm(root, { recursive: true, force: true });
    },
  };
}

/** Each layer is an open file: what is stored stays readable whoever tidies up. */
function tooManyFiles(cause: unknown): SideloadError {
  return new SideloadError('ARCHIVE_INVALID', 'the images have more layers than this process may open files', {
    hint: 'An image has a few dozen layers; when these are right, raise `ulimit -n` or push fewer images at a time.',
    cause,
  });
}

const AS_IT_IS = { compression: 'none', label: 'none' } as const;

async function writeBlob(
  source: ReadableSource,
  given: boolean,
  sink: (frees: boolean) => Writable,
  codec: Codec,
  signal: AbortSignal,
): Promise<{ readonly content: Omit<StoredContent, 'blob'>; readonly blob: Omit<StoredBlob, 'open'> }> {
  const { head, all } = await peek(source, MAGIC_BYTES);
  const compression = sniffCompression(head);
  const read = createTally();
  if (compression !== 'none' || codec.start === undefined) {
    const file = sink(false);
    await pipeline(tallied(all, read, given ? file : undefined), file, { signal });
    const { digest, sizeBytes } = read.result();
    return { content: { digest, compression }, blob: { digest, sizeBytes, compression } };
  }
  const sent = createMeter();
  await through(codec.start(signal), ({ stream, isProgram }) =>
    pipeline(tallied(all, read, given && !isProgram ? stream : undefined), stream, sent.stream, sink(true), { signal }),
  );
  return {
    content: { digest: read.result().digest, compression },
    blob: { ...sent.result(), compression: codec.compression },
  };
}

/**
 * Counts what passes, and gives its memory back when that is ours to do. `pipeline` comes back for the next chunk when the
 * writer has taken in one of this size, and not sooner: it is as much as the writer will buffer.
 */
async function* tallied(
  chunks: AsyncIterable<Buffer>,
  tally: Tally,
  writer: Pick<Writable, 'writableHighWaterMark'> | undefined,
): AsyncGenerator<Buffer> {
  for await (const chunk of chunks) {
    tally.add(chunk);
    const isWhole = chunk.length === chunk.buffer.byteLength;
    yield chunk;
    if (writer !== undefined && isWhole && chunk.length >= writer.writableHighWaterMark) free(chunk);
  }
}

/** The content as it is when nothing is to be compressed, else undefined. */
async function adoptBlob(open: () => Readable, codec: Codec, signal: AbortSignal): Promise<StoredContent | undefined> {
  const source = open();
  try {
    const { head, all } = await peek(source, MAGIC_BYTES);
    const compression = sniffCompression(head);
    if (compression === 'none' && codec.start !== undefined) return undefined;
    const tally = createTally();
    for await (const chunk of all) {
      signal.throwIfAborted();
      tally.add(chunk);
      free(chunk);
    }
    const read = tally.result();
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
export async function through(filter: Filter, run: (filter: Filter) => Promise<void>): Promise<void> {
  try {
    await run(filter);
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

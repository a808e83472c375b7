import { once } from 'node:events';
import { PassThrough } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { SideloadError } from '../errors.ts';
import { startDecompression } from './compression.ts';
import { createMeter, type Digest, digestOf } from './digest.ts';
import { type ArchiveFile, METADATA_MAX_BYTES, memoryFile } from './entries.ts';
import { nowhere, peek, type ReadableSource, type Scratch, type StoredContent, through } from './scratch.ts';

/** Where the content of layers goes, and what is there already. */
export interface ReceiverStore extends Pick<Scratch, 'write'> {
  /** By the digest of the bytes as an engine has them; by the diffID too when the content was kept under it. */
  find(digest: Digest): StoredContent | undefined | Promise<StoredContent | undefined>;
  /** Makes content findable by its diffID, which is proven. */
  keep?(content: StoredContent, diffId: Digest): Promise<void>;
}

const SNIFF_BYTES = 512;
const BUFFER_BYTES = 1 << 20;

/** What was uploaded: metadata in memory, anything else stored. */
export interface Received {
  /** Of the bytes as they were uploaded. */
  readonly digest: Digest;
  readonly file: ArchiveFile;
}

/** One upload under way: the bodies of its requests, one after the other, are the content. */
export interface Upload {
  /** How much has arrived. */
  sizeBytes(): number;
  /**
   * Takes one body, as fast as it can be stored.
   * @param idleMs how long the next bytes may take; the time in which others are stored does not count
   * @throws what the body fails with, and when it stalls; the upload is lost then. SideloadError DISK_FULL
   */
  append(body: AsyncIterable<Buffer>, idleMs: number): Promise<void>;
  /** Ends the content, and tells what it was. */
  finish(): Promise<Received>;
  /** Gives up; nothing stays. */
  cancel(): void;
}

/**
 * Starts an upload. Whatever becomes of it, no promise of it rejects unheard.
 * @param fail is told why content could not be stored, which is nothing that another attempt would change
 */
export function startUpload(store: ReceiverStore, signal: AbortSignal, fail: (reason: unknown) => void): Upload {
  const content = new PassThrough({ highWaterMark: BUFFER_BYTES });
  content.on('error', () => {}); // whoever reads it tells
  let sizeBytes = 0;
  let isLost = false;
  const lose = (reason: unknown) => {
    isLost = true;
    content.destroy(reason as Error);
  };
  const received = receive(content, () => sizeBytes, store, signal);
  received.catch(error => {
    if (!isLost) fail(error);
    // Whoever writes must not wait for a reader that has failed.
    content.destroy(error);
  });
  return {
    sizeBytes: () => sizeBytes,
    async append(body, idleMs) {
      try {
        for await (const chunk of timely(body, idleMs)) {
          sizeBytes += chunk.length;
          if (content.destroyed) break;
          if (!content.write(chunk)) await Promise.race([once(content, 'drain'), received]);
        }
      } catch (error) {
        lose(error);
        await received; // what it fails with comes first
        throw error;
      }
      if (content.destroyed) await received;
    },
    finish() {
      content.end();
      return received;
    },
    cancel() {
      lose(new SideloadError('CANCELLED', 'the upload was cancelled'));
    },
  };
}

/** What a body has, as long as none of it takes too long. */
async function* timely(body: AsyncIterable<Buffer>, idleMs: number): AsyncGenerator<Buffer> {
  const chunks = body[Symbol.asyncIterator]();
  let timer: NodeJS.Timeout | undefined;
  try {
    for (;;) {
      const stalled = new Promise<never>((_resolve, reject) => {
        timer = setTimeout(() => reject(new Error(`nothing has arrived for ${idleMs / 1000} s`)), idleMs);
      });
      const next = await Promise.race([chunks.next(), stalled]);
      clearTimeout(timer);
      if (next.done === true) return;
      yield next.value;
    }
  } finally {
    clearTimeout(timer);
    // Not awaited: it would wait for the bytes that do not come.
    void chunks.return?.().catch(() => {});
  }
}

/**
 * Small JSON stays in memory, everything else goes into the store: which of both a blob is, an upload does not say. A
 * tar may begin with any letter of a file name, but not without zero bytes.
 */
async function receive(
  source: ReadableSource,
  sizeBytes: () => number,
  store: ReceiverStore,
  signal: AbortSignal,
): Promise<Received> {
  const { head, all } = await peek(source, SNIFF_BYTES);
  const chunks = all[Symbol.asyncIterator]();
  const first: Buffer[] = [];
  if (/^\s*[[{]/.test(head.toString('latin1')) && !head.includes(0)) {
    let readBytes = 0;
    while (readBytes <= METADATA_MAX_BYTES) {
      const next = await chunks.next();
      if (next.done === true) {
        const bytes = Buffer.concat(first);
        return { digest: digestOf(bytes), file: memoryFile(bytes) };
      }
      first.push(next.value);
      readBytes += next.value.length;
    }
  }
  async function* rest(): AsyncGenerator<Buffer> {
    yield* first.splice(0);
    yield* { [Symbol.asyncIterator]: () => chunks };
  }
  const stored = await store.write(() => Object.assign(rest(), { destroy: () => source.destroy() }), signal);
  return { digest: stored.digest, file: { sizeBytes: sizeBytes(), stored, open: stored.blob.open } };
}

/**
 * Decompresses what came compressed, for its diffID, by which it is found from then on. What cannot be decompressed stays
 * as it is: whoever unpacks it will say so.
 */
export async function proveStored(content: StoredContent, store: ReceiverStore, signal: AbortSignal): Promise<void> {
  if (content.compression === 'none' || store.keep === undefined) return;
  const meter = createMeter();
  try {
    await through(await startDecompression(content.compression, signal), ({ stream }) =>
      pipeline(content.blob.open(), stream, meter.stream, nowhere(), { signal }),
    );
  } catch {
    return;
  }
  await store.keep(content, meter.result().digest);
}

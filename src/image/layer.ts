import { pipeline } from 'node:stream/promises';
import { type Following, follow, onAbort } from '../abort.ts';
import { SideloadError, toSideloadError } from '../errors.ts';
import { startDecompression } from './compression.ts';
import { createMeter, type Digest } from './digest.ts';
import type { ArchiveFile } from './entries.ts';
import type { Layer, StoredBlob } from './image.ts';
import { nowhere, type Scratch, type StoredContent, through } from './scratch.ts';

/** Where a layer lies in an archive, and what proves it. */
export interface LayerContent {
  readonly diffId: Digest;
  /** Digest of the bytes in the archive when the manifest names it: always in OCI, never in a docker-archive. */
  readonly blobDigest?: Digest;
  /** For messages. */
  readonly name: string;
  readonly file: ArchiveFile;
}

/** Makes a layer of content that lies in an archive. */
export function createLayer(content: LayerContent, scratch: Scratch): Layer {
  const passed = content.file.stored;
  let ready = passed !== undefined && !provenByDiffId(content, passed) ? passed.blob : undefined;
  const { diffId, blobDigest = diffId, file } = content;
  const store = createShared(scratch.signal, async signal => {
    const stored = file.stored ?? (await scratch.find(blobDigest)) ?? (await scratch.adopt(file.open, signal));
    proveDigest(content, stored);
    if (provenByDiffId(content, stored)) {
      // Proven once, and remembered.
      const known = await scratch.find(diffId);
      if (known?.blob.digest !== stored.blob.digest) await proveDiffId(content, stored, signal);
      await scratch.keep(stored, diffId);
    } else await scratch.keep(stored);
    ready = stored.blob;
    return stored.blob;
  });
  const known = async () => ready ?? (await scratch.find(blobDigest))?.blob;
  return { diffId, sourceSizeBytes: file.sizeBytes, store, known };
}

/**
 * Compares stored content with the digests that are known of it; costs nothing.
 * @throws SideloadError ARCHIVE_CORRUPT
 */
export function proveDigest({ diffId, blobDigest, name }: LayerContent, { digest, compression }: StoredContent): void {
  const wanted = blobDigest ?? (compression === 'none' ? diffId : digest);
  if (digest !== wanted) throw corrupt(name, wanted, digest);
  if (compression === 'none' && digest !== diffId) throw corrupt(name, diffId, digest);
}

/** A compressed layer in a docker-archive (kaniko, ggcr): only its uncompressed digest is written down. */
function provenByDiffId({ blobDigest }: LayerContent, { compression }: StoredContent): boolean {
  return blobDigest === undefined && compression !== 'none';
}

async function proveDiffId({ diffId, name }: LayerContent, stored: StoredContent, signal: AbortSignal): Promise<void> {
  if (stored.compression === 'none') return;
  const meter = createMeter();
  try {
    await through(await startDecompression(stored.compression, signal), ({ stream }) =>
      pipeline(stored.blob.open(), stream, meter.stream, nowhere(), { signal }),
    );
  } catch (error) {
    if (signal.aborted || error instanceof SideloadError) throw error;
    throw new SideloadError('ARCHIVE_CORRUPT', `the layer ${name} cannot be decompressed`, { cause: error });
  }
  const { digest } = meter.result();
  if (digest !== diffId) throw corrupt(name, diffId, digest);
}

function corrupt(name: string, wanted: Digest, found: Digest): SideloadError {
  return new SideloadError('ARCHIVE_CORRUPT', `the layer ${name} should be ${wanted} and is ${found}`);
}

/**
 * Makes one piece of work for any number of callers. A success stays; after a failure the next caller starts anew.
 * The work is aborted when `closing` fires, or when the last caller has gone.
 */
function createShared(
  closing: AbortSignal,
  work: (signal: AbortSignal) => Promise<StoredBlob>,
): (signal: AbortSignal) => Promise<StoredBlob> {
  let current:
    | { readonly promise: Promise<StoredBlob>; readonly abort: Following; callers: number; done: boolean }
    | undefined;
  const start = () => {
    const abort = follow(closing);
    const promise = work(abort.signal).finally(abort.release);
    const job = { promise, abort, callers: 0, done: false };
    promise.then(
      () => {
        job.done = true;
      },
      () => {
        if (current === job) current = undefined;
      },
    );
    return job;
  };
  return async signal => {
    if (signal.aborted || closing.aborted) throw cancelled(signal.aborted ? signal : closing);
    current ??= start();
    const job = current;
    job.callers += 1;
    let stopWaiting = () => {};
    const gone = new Promise<never>((_resolve, reject) => {
      stopWaiting = onAbort(signal, () => reject(cancelled(signal)));
    });
    try {
      return await Promise.race([job.promise, gone]);
    } catch (error) {
      throw closing.aborted ? cancelled(closing) : toSideloadError(error);
    } finally {
      stopWaiting();
      job.callers -= 1;
      if (job.callers === 0 && signal.aborted && !job.done) {
        if (current === job) current = undefined;
        job.abort.abort();
      }
    }
  };
}

function cancelled(signal: AbortSignal): SideloadError {
  return new SideloadError('CANCELLED', 'cancelled', { cause: signal.reason });
}

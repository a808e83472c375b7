import workers from 'node:worker_threads';

/** Smaller ones hardly count. */
const FREE_FROM_BYTES = 16 << 10;

/**
 * Gives back the memory that ends with this chunk, at once: V8 collects such memory only after 64 MB more of it. For the
 * only owner, who has used everything before the chunk too. Does nothing on Node 20.
 */
export function free(chunk: Uint8Array): void {
  if (chunk.byteOffset + chunk.byteLength === chunk.buffer.byteLength) freeAround(chunk);
}

/** As {@link free}, wherever in its memory the chunk is: nobody uses any of the rest either. */
export function freeAround(chunk: Uint8Array): void {
  const memory = chunk.buffer as { readonly byteLength: number; transfer?(sizeBytes: number): unknown };
  if (memory.byteLength < FREE_FROM_BYTES || memory.transfer === undefined) return;
  // Node's pool for small buffers is marked so: others have a part of it.
  if (!workers.isMarkedAsUntransferable(memory)) memory.transfer(0);
}

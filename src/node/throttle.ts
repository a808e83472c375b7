import { Readable } from 'node:stream';
import { pause } from '../abort.ts';

/** Small enough for many nodes to get their turn within a second on a slow link. */
const PIECE_BYTES = 64 * 1024;

/** Lets bytes pass at a rate, for all streams that share it together. */
interface Throttle {
  /** Waits until so many more bytes may pass. */
  pass(bytes: number, signal: AbortSignal): Promise<void>;
}

/** Shares a rate fairly: who asks first passes first, and what was not used is not saved up for later. */
function createThrottle(bytesPerSecond: number): Throttle {
  let freeAtMs = 0;
  return {
    async pass(bytes, signal) {
      const now = performance.now();
      const waitMs = Math.max(0, freeAtMs - now);
      freeAtMs = Math.max(freeAtMs, now) + (1000 * bytes) / bytesPerSecond;
      if (waitMs > 0) await pause(waitMs, signal);
    },
  };
}

/**
 * Makes something that slows streams down, all of them together to the rate; without a rate they stay what they are.
 * @param bytesPerSecond over all streams
 */
export function throttleOf(bytesPerSecond: number | undefined): (source: Readable, signal: AbortSignal) => Readable {
  if (bytesPerSecond === undefined) return source => source;
  const throttle = createThrottle(bytesPerSecond);
  return (source, signal) => Readable.from(throttled(source, throttle, signal), { objectMode: false });
}

async function* throttled(
  source: AsyncIterable<Buffer>,
  throttle: Throttle,
  signal: AbortSignal,
): AsyncGenerator<Buffer> {
  for await (const chunk of source) {
    for (let start = 0; start < chunk.length; start += PIECE_BYTES) {
      const piece = chunk.subarray(start, start + PIECE_BYTES);
      await throttle.pass(piece.length, signal);
      yield piece;
    }
  }
}

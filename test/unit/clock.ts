import { syncBuiltinESMExports } from 'node:module';
import timersPromises from 'node:timers/promises';
import { onTestFinished, vi } from 'vitest';

/**
 * Stops the clock for one test: time passes only by `advance`. `AbortSignal.timeout` and `node:timers/promises` know
 * nothing of vitest's timers, so they are made of them.
 */
export function stopClock(): { advance(milliseconds: number): Promise<void> } {
  vi.useFakeTimers();
  const stubs = [
    vi.spyOn(AbortSignal, 'timeout').mockImplementation(milliseconds => {
      const controller = new AbortController();
      setTimeout(() => controller.abort(new DOMException('timed out', 'TimeoutError')), milliseconds);
      return controller.signal;
    }),
    vi.spyOn(timersPromises, 'setTimeout').mockImplementation(
      (milliseconds, value, { signal } = {}) =>
        new Promise((resolve, reject) => {
          if (signal?.aborted === true) reject(signal.reason);
          setTimeout(() => resolve(value as never), milliseconds);
          signal?.addEventListener('abort', () => reject(signal.reason), { once: true });
        }),
    ),
  ];
  syncBuiltinESMExports();
  onTestFinished(() => {
    for (const stub of stubs) stub.mockRestore();
    syncBuiltinESMExports();
    vi.useRealTimers();
  });
  return {
    async advance(milliseconds) {
      await vi.advanceTimersByTimeAsync(milliseconds);
    },
  };
}

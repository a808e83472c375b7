/** Where the lab says what it is doing: one line per call. */
export type Log = (line: string) => void;

/**
 * Says what is being done, says every 20 s that it still is (with `note`'s last word), and says how long it took.
 */
export async function step<T>(log: Log, what: string, work: (note: Log) => Promise<T>): Promise<T> {
  const start = performance.now();
  const elapsed = (): string => `${((performance.now() - start) / 1000).toFixed(1)} s`;
  let last = '';
  const heartbeat = setInterval(() => log(`  … ${what} (${elapsed()})${last && `: ${last.slice(0, 100)}`}`), 20_000);
  try {
    const result = await work(line => {
      if (line.trim()) last = line.trim();
    });
    log(`${what}: ${elapsed()}`);
    return result;
  } catch (error) {
    log(`${what}: failed after ${elapsed()}`);
    throw error;
  } finally {
    clearInterval(heartbeat);
  }
}

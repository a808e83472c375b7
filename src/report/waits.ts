import { formatDuration } from './units.ts';

/** Says for whom a run waits. */
export interface Waits {
  /** @returns what the promise gives; until then a line now and then says `waiting for WHOM: WHAT, 10 s`. */
  until<T>(whom: string, what: string, act: Promise<T>): Promise<T>;
}

interface Wait {
  readonly whom: string;
  readonly what: string;
  readonly begunAtMs: number;
  /** When it is told next, as long after its beginning. */
  afterMs: number;
}

/** What takes less needs no word; from then on each wait is told after twice the time. */
const FIRST_MS = 10_000;
/** Waits that are due within this time of each other share a line. */
const LOOK_EVERY_MS = 1000;
/** How many are named in a line. */
const NAMED = 3;

/** @param log for a line that anybody should see who wonders */
export function waitsOf(log: (line: string) => void): Waits {
  const waits = new Set<Wait>();
  let timer: NodeJS.Timeout | undefined;

  function look(): void {
    const now = performance.now();
    const due = [...waits].filter(({ begunAtMs, afterMs }) => now - begunAtMs >= afterMs);
    for (const what of new Set(due.map(wait => wait.what))) {
      const same = due.filter(wait => wait.what === what);
      const longestMs = Math.max(...same.map(({ begunAtMs }) => now - begunAtMs));
      log(`waiting for ${listed(same.map(({ whom }) => whom))}: ${what}, ${formatDuration(longestMs, 0)}`);
    }
    for (const wait of due) {
      wait.afterMs *= 2;
    }
  }

  return {
    async until(whom, what, act) {
      const wait = { whom, what, begunAtMs: performance.now(), afterMs: FIRST_MS };
      waits.add(wait);
      timer ??= setInterval(look, LOOK_EVERY_MS).unref();
      try {
        return await act;
      } finally {
        waits.delete(wait);
        if (waits.size === 0) {
          clearInterval(timer);
          timer = undefined;
        }
      }
    },
  };
}

function listed(names: readonly string[]): string {
  const rest = names.length - NAMED;
  return rest > 0 ? `${names.slice(0, NAMED).join(', ')} and ${rest} more` : names.join(', ');
}

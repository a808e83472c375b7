import type { Host } from '../host/host.ts';
import { formatDuration } from './units.ts';

/** Says for whom a run waits. */
export interface Waits {
  /** @returns what the promise gives; until then a line now and then says `waiting for WHOM: WHAT, 10 s`. */
  until<T>(whom: string, what: string, act: Promise<T>): Promise<T>;
  /** What is waited for now, for whoever draws lines that change: nobody else does then. */
  lines(): readonly string[];
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

/** Lines in the log; where somebody looks on, lines that change, below those of transfers. */
export function waitsOf(host: Pick<Host, 'isLive' | 'info' | 'progress'>): Waits {
  const waits = new Set<Wait>();
  let timer: NodeJS.Timeout | undefined;
  /** When others have taken the lines last, to show them with theirs. */
  let takenAtMs = Number.NEGATIVE_INFINITY;
  let isDrawn = false;

  function linesOf(which: (wait: Wait, waitedMs: number) => boolean): readonly string[] {
    const now = performance.now();
    const told = [...waits].filter(wait => which(wait, now - wait.begunAtMs));
    return [...new Set(told.map(({ what }) => what))].map(what => {
      const same = told.filter(wait => wait.what === what);
      const longestMs = Math.max(...same.map(({ begunAtMs }) => now - begunAtMs));
      return `waiting for ${listed(same.map(({ whom }) => whom))}: ${what}, ${formatDuration(longestMs, 0)}`;
    });
  }
  const isLong = (_wait: Wait, waitedMs: number) => waitedMs >= FIRST_MS;

  function look(): void {
    if (host.isLive) {
      draw(linesOf(isLong));
      return;
    }
    const now = performance.now();
    const isDue = ({ afterMs }: Wait, waitedMs: number) => waitedMs >= afterMs;
    for (const line of linesOf(isDue)) {
      host.info(line);
    }
    for (const wait of waits) {
      wait.afterMs *= isDue(wait, now - wait.begunAtMs) ? 2 : 1;
    }
  }

  function draw(lines: readonly string[]): void {
    if (performance.now() - takenAtMs > LOOK_EVERY_MS && (lines.length > 0 || isDrawn)) {
      isDrawn = lines.length > 0;
      host.progress(lines);
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
          draw([]);
        }
      }
    },
    lines() {
      takenAtMs = performance.now();
      return linesOf(isLong);
    },
  };
}

function listed(names: readonly string[]): string {
  const rest = names.length - NAMED;
  return rest > 0 ? `${names.slice(0, NAMED).join(', ')} and ${rest} more` : names.join(', ');
}

import type { Host } from '../host/host.ts';
import { formatBytes, formatDuration } from './units.ts';
import type { Waits } from './waits.ts';

/** Follows one transfer to one node. */
export interface Transfer {
  /** Bytes sent so far. */
  advance(sentBytes: number): void;
  /** How much it will be, as soon as that is known better. */
  expect(totalBytes: number): void;
  /** `failed` shows as such for as long as other nodes are busy. */
  end(state?: 'done' | 'failed'): void;
}

export interface Progress {
  start(node: string, totalBytes: number): Transfer;
}

/** How often lines appear: often enough in a terminal to look alive, sparingly in the log of a job. */
const INTERVAL_MS = { live: 200, log: 10_000 };
/** A log that is long already gets a line less often. */
const SPARSE = { afterMs: 60_000, intervalMs: 30_000 };
/** The rate is that of the last few seconds: it says what the link does now. */
const WINDOW_MS = 5_000;
/** In a log, how many of the nodes that are behind are named. */
const NAMED_NODES = 3;

interface State {
  readonly node: string;
  total: number;
  readonly startedAt: number;
  sent: number;
  /** What was sent at some moments, the oldest first. */
  samples: { readonly at: number; readonly sent: number }[];
  end: 'done' | 'failed' | undefined;
}

/**
 * Shows all transfers that are under way: a line for each node and one for all in a terminal, one line now and then in a
 * log. Ended ones stay in sight until the last has ended.
 */
export function transferProgress(host: Host, waits: Pick<Waits, 'lines'> = { lines: () => [] }): Progress {
  const states = new Map<string, State>();
  let timer: NodeJS.Timeout | undefined;
  let shownAt = 0;
  let begunAt = 0;
  const show = () => {
    const now = Date.now();
    for (const state of states.values()) {
      sample(state, now);
    }
    if (host.isLive) {
      host.progress([...liveLines([...states.values()], now, host.size), ...waits.lines()]);
    } else if (now - begunAt <= SPARSE.afterMs || now - shownAt >= SPARSE.intervalMs) {
      shownAt = now;
      host.progress([logLine([...states.values()], now)]);
    }
  };
  return {
    start(node, totalBytes) {
      const now = Date.now();
      const state: State = { node, total: totalBytes, startedAt: now, sent: 0, samples: [], end: undefined };
      sample(state, now);
      if (timer === undefined) {
        begunAt = now;
        timer = setInterval(show, host.isLive ? INTERVAL_MS.live : INTERVAL_MS.log).unref();
      }
      states.set(node, state);
      return {
        advance: sentBytes => {
          state.sent = sentBytes;
        },
        expect: bytes => {
          state.total = bytes;
        },
        end: (how = 'done') => {
          state.end = how;
          if ([...states.values()].every(({ end }) => end !== undefined)) {
            clearInterval(timer);
            timer = undefined;
            states.clear();
            if (host.isLive) {
              host.progress([]);
            }
          }
        },
      };
    },
  };
}

function sample(state: State, now: number): void {
  state.samples.push({ at: now, sent: state.sent });
  // One sample at the edge of the window stays, so that it is always whole.
  while ((state.samples[1]?.at ?? now) <= now - WINDOW_MS) {
    state.samples.shift();
  }
}

function bytesPerSecond({ samples, sent }: State, now: number): number {
  const [oldest] = samples;
  const elapsedMs = oldest === undefined ? 0 : now - oldest.at;
  return oldest === undefined || elapsedMs === 0 ? 0 : ((sent - oldest.sent) * 1000) / elapsedMs;
}

function percentOf(sent: number, total: number): number {
  return total === 0 ? 100 : Math.min(100, Math.floor((100 * sent) / total));
}

function sum(states: readonly State[], of: (state: State) => number): number {
  return states.reduce((total, state) => total + of(state), 0);
}

function isSent({ sent, total }: State): boolean {
  return sent >= total;
}

/** Time left of what is still to send, in words; nothing while there is no rate to go by. */
function timeLeft(states: readonly State[], now: number): string {
  // The slowest decides, not the average.
  const seconds = states
    .filter(state => state.end === undefined && !isSent(state))
    .map(state => (state.total - state.sent) / bytesPerSecond(state, now));
  const longest = Math.max(...seconds);
  return seconds.length === 0 || !Number.isFinite(longest)
    ? ''
    : `${formatDuration(Math.ceil(longest) * 1000, 0)} left`;
}

const BAR = 20;
const CELLS = { percent: 4, bytes: 21, rate: 10 };

function liveLines(states: readonly State[], now: number, { columns, rows }: Host['size']): readonly string[] {
  // A terminal of one screen: whoever is busy is seen first, and there is always room for the line of all.
  const room = Math.max(1, rows - 3);
  const sorted = [...states].sort((one, other) => Number(one.end !== undefined) - Number(other.end !== undefined));
  const shown = new Set(states.length <= room ? states : sorted.slice(0, room - 1));
  const width = Math.min(Math.max(...states.map(({ node }) => node.length), 'all nodes'.length), 30);
  const line = (mark: string, name: string, sent: number, total: number, rate: number, rest: string) => {
    const percent = percentOf(sent, total);
    const cells = [
      `${percent} %`.padStart(CELLS.percent + 1),
      `${formatBytes(sent)} of ${formatBytes(total)}`.padStart(CELLS.bytes),
      (rate > 0 ? `${formatBytes(rate)}/s` : '').padStart(CELLS.rate),
      rest,
    ];
    const label = name.length > width ? `${name.slice(0, width - 1)}…` : name.padEnd(width);
    const text = cells.join('  ');
    // A narrow terminal does without the bar; all lines have one or none has.
    const needed = width + BAR + text.length - rest.length + 6 + '10 min 10 s left'.length;
    const bar = columns > needed ? `  ${barOf(percent)}` : '';
    return `${mark} ${label}${bar}  ${text}`.trimEnd();
  };
  const lines = states
    .filter(state => shown.has(state))
    .map(state => {
      const { node, sent, total, end } = state;
      const mark = end === 'done' ? '✔' : end === 'failed' ? '✘' : ' ';
      const rest = end ?? (isSent(state) ? 'importing' : timeLeft([state], now));
      return line(
        mark,
        node,
        sent,
        end === 'done' ? sent : total,
        end === undefined && !isSent(state) ? bytesPerSecond(state, now) : 0,
        rest,
      );
    });
  const hidden = states.length - lines.length;
  const ended = states.filter(({ end }) => end !== undefined).length;
  const all = line(
    ' ',
    'all nodes',
    sum(states, ({ sent }) => sent),
    sum(states, ({ total }) => total),
    sum(states, state => (state.end === undefined ? bytesPerSecond(state, now) : 0)),
    timeLeft(states, now),
  );
  return [
    ...lines,
    ...(hidden > 0 ? [`  and ${hidden} more, ${ended} of ${states.length} done`] : []),
    ...(states.length > 1 ? [all] : []),
  ];
}

function barOf(percent: number): string {
  const filled = Math.round((percent * BAR) / 100);
  return `${'█'.repeat(filled)}${'░'.repeat(BAR - filled)}`;
}

/** For whom it is waited, where there are several. */
function importing(states: readonly State[], busy: readonly State[]): string {
  const rest = busy.length - NAMED_NODES;
  const named = busy.slice(0, NAMED_NODES).map(({ node }) => node);
  return states.length === 1 ? 'importing' : `importing on ${named.join(', ')}${rest > 0 ? ` and ${rest} more` : ''}`;
}

/** One line for all: how far it is, how fast, and who is behind. */
function logLine(states: readonly State[], now: number): string {
  const busy = states.filter(({ end }) => end === undefined);
  const total = sum(states, state => state.total);
  const percent = percentOf(
    sum(states, ({ sent }) => sent),
    total,
  );
  const rate = sum(busy, state => bytesPerSecond(state, now));
  const left = timeLeft(states, now);
  const where = states.length === 1 ? (states[0]?.node ?? '') : `${states.length} nodes`;
  const isImporting = busy.length > 0 && busy.every(isSent);
  const behind = busy
    .map(({ node, sent, total: all }) => ({ node, percent: percentOf(sent, all) }))
    .sort((one, other) => one.percent - other.percent)
    .slice(0, NAMED_NODES)
    .map(one => `${one.node} ${one.percent} %`);
  return [
    `${percent} % of ${formatBytes(total)} to ${where}`,
    isImporting ? importing(states, busy) : `${formatBytes(rate)}/s`,
    ...(left === '' ? [] : [left]),
    ...(states.length === 1 ? [] : [`${states.length - busy.length} done`]),
    ...(states.length === 1 || isImporting ? [] : [`behind: ${behind.join(', ')}`]),
  ].join(', ');
}

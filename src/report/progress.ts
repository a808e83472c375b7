import type { Host } from '../host/host.ts';
import { formatBytes } from './units.ts';

/** Follows one transfer to one node. */
export interface Transfer {
  /** Bytes sent so far. */
  advance(sentBytes: number): void;
  end(): void;
}

export interface Progress {
  start(node: string, totalBytes: number): Transfer;
}

/** How often a line appears: often enough in a terminal to look alive, sparingly in the log of a job. */
const INTERVAL_MS = { live: 500, log: 10_000 };

/** One line for all transfers that are under way. */
export function transferProgress(host: Host): Progress {
  const transfers = new Map<string, { sent: number; readonly total: number; readonly startedAt: number }>();
  let timer: NodeJS.Timeout | undefined;
  const show = () => {
    const parts = [...transfers].map(([node, { sent, total, startedAt }]) => {
      const perSecond = sent / Math.max(0.001, (Date.now() - startedAt) / 1000);
      return `${node} ${total === 0 ? 100 : Math.floor((100 * sent) / total)} % of ${formatBytes(total)} (${formatBytes(perSecond)}/s)`;
    });
    host.progress(parts.join(' · '));
  };
  return {
    start(node, totalBytes) {
      const state = { sent: 0, total: totalBytes, startedAt: Date.now() };
      transfers.set(node, state);
      timer ??= setInterval(show, host.isLive ? INTERVAL_MS.live : INTERVAL_MS.log).unref();
      return {
        advance: sentBytes => {
          state.sent = sentBytes;
        },
        end: () => {
          transfers.delete(node);
          if (transfers.size === 0) {
            clearInterval(timer);
            timer = undefined;
          }
        },
      };
    },
  };
}

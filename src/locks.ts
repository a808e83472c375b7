import { pause, within } from './abort.ts';
import { SideloadError, toSideloadError } from './errors.ts';
import { LEASE_SECONDS, type Refusal, releaseLocks, renewLocks, takeLocks } from './node/lock.ts';
import { type Node, onEach } from './node/node.ts';
import { settleOthers } from './node/promote.ts';
import { formatDuration } from './report/units.ts';
import type { Run } from './run.ts';

const RENEW_AFTER_MS = (LEASE_SECONDS / 4) * 1000;
const ASK_AGAIN_MS = 1000;
/** From then on it is told after twice the time that who has the lock is still waited for. */
const TELL_AFTER_MS = 20_000;

/** The locks of a run on all of its nodes. */
export interface Locks {
  /**
   * Waits until the run has the locks of its references on all nodes. A node whose locks are not to be had in time gets
   * the error NODE_LOCKED. Two runs never wait for each other: a run asks all nodes at once, with nothing in its hands
   * if one refuses, and then takes one node after the other, in an order that is the same for every run.
   */
  take(timeoutMs: number): Promise<void>;
  /** A node whose locks could not be renewed for too long, and which another run has taken over, gets an error. */
  confirm(): Promise<void>;
  /** Ends what renews them. They go by {@link releaseLocks}, or when they run out. */
  stop(): Promise<void>;
}

export function locksOf(nodes: () => readonly Node[], run: Run, log: (line: string) => void): Locks {
  let renewing: Promise<unknown> = Promise.resolve();
  const timer = setInterval(() => {
    renewing = Promise.all(nodes().map(node => renewOrNote(node, run.id)));
  }, RENEW_AFTER_MS);
  timer.unref();

  /** @returns who has one of them, when the node does not give all. */
  async function ask(node: Node): Promise<Refusal | undefined> {
    const { label } = node.settings;
    const askedAtMs = Date.now();
    const references = node.images.map(({ reference }) => reference).toSorted();
    // Whatever becomes of the answer, they may be there.
    node.lock = { references: [], askedAtMs };
    const { taken, refusals, denial } = await takeLocks(node, references, run.id, run.signal);
    // Also what is given up again: whoever has the lock next cannot know of it any more.
    await settleOthers(node, taken, run, log);
    if (denial !== undefined) {
      log(`${label}: no lock, so another job may move the same references meanwhile: ${denial}`);
    } else if (refusals.length === 0) {
      node.lock = { references, askedAtMs };
      return undefined;
    }
    await releaseLocks(node, run.id, run.signal);
    return refusals[0];
  }

  async function waitFor(node: Node, begunAtMs: number, timeoutMs: number): Promise<void> {
    let holder: string | undefined;
    let tellAfterMs = 0;
    for (;;) {
      const refusal = await ask(node);
      if (refusal === undefined) {
        return;
      }
      const waitedMs = Date.now() - begunAtMs;
      if (waitedMs >= timeoutMs) {
        throw lockedBy(refusal, `and still does after ${formatDuration(waitedMs)}`);
      }
      if (holder !== refusal.run || waitedMs >= tellAfterMs) {
        const since = holder === refusal.run ? `, ${formatDuration(waitedMs, 0)}` : '';
        holder = refusal.run;
        tellAfterMs = Math.max(TELL_AFTER_MS, 2 * waitedMs);
        log(`${node.settings.label}: waiting for run ${holder}, which has locked ${refusal.reference}${since}`);
      }
      const waitMs = Math.min(ASK_AGAIN_MS * (0.75 + Math.random() / 2), timeoutMs - waitedMs);
      await pause(waitMs, run.signal);
    }
  }

  return {
    async take(timeoutMs) {
      const begunAtMs = Date.now();
      const isUsers = ({ facts }: Node) => facts?.privilege === 'user';
      const unlocked = nodes().filter(isUsers);
      if (unlocked.length > 0) {
        const labels = unlocked.map(({ settings }) => settings.label).join(', ');
        log(`${labels}: no lock, which the user may not make; another job may move the same references meanwhile`);
      }
      const lockable = nodes().filter(node => node.images.length > 0 && !isUsers(node));
      let isRefused = false;
      await onEach(lockable, async node => {
        isRefused = (await ask(node)) !== undefined || isRefused;
      });
      if (isRefused) {
        await renewing;
        await onEach(lockable, node => releaseLocks(node, run.id, run.signal));
        await onEach(lockable.toSorted(byIdentity), node => waitFor(node, begunAtMs, timeoutMs), 1);
      }
    },
    async confirm() {
      await onEach(nodes(), async node => {
        if (node.lock !== undefined && Date.now() - node.lock.askedAtMs > LEASE_SECONDS * 1000) {
          await renew(node, run.id, run.signal);
        }
      });
    },
    async stop() {
      clearInterval(timer);
      await renewing;
    },
  };
}

/** By what a machine calls itself, whatever the jobs call it. */
function byIdentity(one: Node, other: Node): number {
  const identity = ({ machine, settings }: Node) => `${machine?.kubernetesName} ${settings.host}:${settings.port}`;
  return identity(one) < identity(other) ? -1 : 1;
}

/** A node that cannot be asked now may be there again the next time, before its locks have run out. */
async function renewOrNote(node: Node, runId: string): Promise<void> {
  try {
    await within(RENEW_AFTER_MS, undefined, signal => renew(node, runId, signal));
  } catch (thrown) {
    const error = toSideloadError(thrown, node.settings.label);
    if (error.code === 'NODE_LOCKED') {
      node.error ??= error;
    }
  }
}

async function renew(node: Node, runId: string, signal: AbortSignal): Promise<void> {
  const [lost] = await renewLocks(node, runId, signal);
  if (lost !== undefined) {
    throw lockedBy(lost, 'as this one’s lock had run out: the node could not be asked for too long');
  }
}

function lockedBy({ reference, run, since }: Refusal, how: string): SideloadError {
  const hasLocked = `run ${run} has locked ${reference} since ${since.toISOString()} by the node’s clock`;
  return new SideloadError('NODE_LOCKED', `${hasLocked}, ${how}`);
}

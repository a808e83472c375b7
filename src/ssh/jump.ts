import { SideloadError } from '../errors.ts';
import type { SshHost, SshOptions } from './connect.ts';
import { addressOf, openSession, type Session } from './session.ts';

/** The jump hosts of a run: each chain of them is logged in to once, for all nodes behind it. */
export interface JumpHosts {
  /**
   * The session with the last host of a chain; the first who asks opens it.
   * @throws SideloadError about the first host of the chain that fails, and no node; the signal's reason on abort
   */
  borrow(chain: readonly SshHost[], signal: AbortSignal): Promise<Borrowed>;
}

export interface Borrowed {
  readonly session: Session;
  /** The last one who gives a session back closes it. Never rejects. */
  giveBack(): Promise<void>;
}

interface Shared {
  users: number;
  readonly session: Promise<Session>;
  /** Ends it, with what it has borrowed itself. Never rejects. */
  end(): Promise<void>;
}

export function jumpHosts(options: Omit<SshOptions, 'signal' | 'jumps'>): JumpHosts {
  const open = new Map<string, Shared>();

  function share(chain: readonly SshHost[], key: string): Shared {
    const last = chain.at(-1);
    if (last === undefined) throw new SideloadError('INTERNAL', 'a chain of no jump hosts');
    const abort = new AbortController();
    let before: Borrowed | undefined;
    const session = (async () => {
      if (chain.length > 1) before = await borrow(chain.slice(0, -1), abort.signal);
      return await openSession({ ...last, label: undefined }, { ...options, signal: abort.signal }, before?.session);
    })();
    const shared: Shared = {
      users: 0,
      session,
      end: async () => {
        abort.abort(
          new SideloadError('SSH_LOST', `The connection to the jump host ${addressOf(last)} was closed here`),
        );
        await session.then(one => one.close()).catch(() => {});
        await before?.giveBack();
      },
    };
    // Whoever comes after it has failed or been lost opens another.
    const forget = () => {
      if (open.get(key) === shared) open.delete(key);
    };
    session.then(({ ended }) => ended.addEventListener('abort', forget, { once: true })).catch(forget);
    open.set(key, shared);
    return shared;
  }

  async function borrow(chain: readonly SshHost[], signal: AbortSignal): Promise<Borrowed> {
    signal.throwIfAborted();
    const key = chain.map(host => `${host.user}@${addressOf(host)}`).join(',');
    const shared = open.get(key) ?? share(chain, key);
    shared.users += 1;
    let isBorrowed = true;
    const giveBack = async () => {
      if (!isBorrowed) return;
      isBorrowed = false;
      shared.users -= 1;
      if (shared.users > 0) return;
      if (open.get(key) === shared) open.delete(key);
      await shared.end();
    };
    let onAbort = () => {};
    const aborted = new Promise<never>((_, reject) => {
      onAbort = () => reject(signal.reason);
    });
    signal.addEventListener('abort', onAbort);
    try {
      return { session: await Promise.race([shared.session, aborted]), giveBack };
    } catch (error) {
      void giveBack();
      throw error;
    } finally {
      signal.removeEventListener('abort', onAbort);
    }
  }

  return { borrow };
}

import { isIP } from 'node:net';
import type { Duplex } from 'node:stream';
import { NodeSSH } from 'node-ssh';
import type { Client } from 'ssh2';
import { messageOf, SideloadError } from '../errors.ts';
import { agentKeys, authenticator } from './authentication.ts';
import type { SshHost, SshOptions } from './connect.ts';
import { type Attempt, connectError, forwardError, type Phase, systemReason, timeoutError } from './connect-error.ts';
import { coalescingSocket, drained, givingBack } from './socket.ts';

/** Whom to log in to. */
export interface Peer extends SshHost {
  /** Of errors; none for a jump host, which belongs to no node. */
  readonly label: string | undefined;
}

/** A login that has come through: to run commands over, or to go on to the next host. */
export interface Session {
  readonly client: Client;
  readonly label: string | undefined;
  /** Aborted when the connection has ended, for whatever reason; its reason is the error for what runs on it. */
  readonly ended: AbortSignal;
  /** Settles when more can be sent, or the connection has ended; undefined when it can be at once. */
  readonly drained: () => Promise<void> | undefined;
  readonly isOpen: () => boolean;
  /** The commands that run over it now. */
  readonly running: Set<Promise<unknown>>;
  /** A stream to another host and port, as this host sees it. */
  forward(host: string, port: number): Promise<Duplex>;
  /** Can be called again. Never rejects. */
  close(): Promise<void>;
}

const KEEPALIVE_COUNT = 3;
const CLOSE_TIMEOUT_MS = 2000;

/** A host as messages name it. */
export function addressOf({ host, port }: Pick<SshHost, 'host' | 'port'>): string {
  return host.includes(':') ? `[${host}]:${port}` : `${host}:${port}`;
}

/**
 * Connects to a host, checks its host key, and logs in.
 *
 * ssh2 prefers aes128-gcm by default, which was also the fastest by measurement; its ciphers are left as they are.
 *
 * @param via the session with the jump host behind which it is
 * @throws SideloadError `SSH_UNREACHABLE`, `SSH_HOST_KEY_UNKNOWN`, `SSH_HOST_KEY_CHANGED` or `SSH_AUTH_FAILED`; the
 *   signal's reason on abort
 */
export async function openSession(peer: Peer, options: SshOptions, via?: Session): Promise<Session> {
  const { authentication, hostKeys, connectTimeoutMs, keepaliveIntervalMs = 15_000, signal } = options;
  const { label, host, port, user } = peer;
  const isJump = label === undefined;
  signal.throwIfAborted();

  const address = `${isJump ? 'the jump host ' : ''}${addressOf(peer)}`;
  let stream: Duplex | undefined;
  let phase: Phase = 'agent';
  let wasAnswered = false;
  let hostKeyError: unknown;
  const auth = authenticator(user, authentication);
  const attempt = (): Attempt => ({
    label,
    address,
    user,
    phase: phase === 'banner' && wasAnswered ? 'handshake' : phase,
    wasAnswered,
    ...auth.state(),
  });

  let interrupt: (error: unknown) => void = () => {};
  const interrupted = new Promise<never>((_, reject) => {
    interrupt = reject;
  });
  interrupted.catch(() => {});
  const timer = setTimeout(() => interrupt(timeoutError(connectTimeoutMs, attempt())), connectTimeoutMs);
  const onAbortedAttempt = () => interrupt(signal.reason);
  signal.addEventListener('abort', onAbortedAttempt);

  const ended = new AbortController();
  let lastError: unknown;
  const lostError = () => {
    const own = lastError === undefined ? 'it was closed at the other end' : lossReason(lastError, keepaliveIntervalMs);
    const reason = via?.ended.aborted === true ? messageOf(via.ended.reason) : own;
    return new SideloadError('SSH_LOST', `The connection to ${address} broke off: ${reason}`, {
      node: label,
      cause: hostKeyError ?? lastError,
    });
  };

  const logIn = async (): Promise<{ ssh: NodeSSH; client: Client; stream: Duplex; closed: Promise<void> }> => {
    await Promise.race([agentKeys(authentication, label), interrupted]);
    phase = via === undefined && isIP(host) === 0 ? 'lookup' : 'tcp';
    if (via === undefined) {
      const socket = coalescingSocket(host, port);
      socket.on('lookup', (error: Error | null) => {
        if (error === null) phase = 'tcp';
      });
      socket.once('connect', () => {
        phase = 'banner';
      });
      stream = socket;
    } else {
      stream = givingBack(await forwarded(via, peer, attempt, interrupted));
      phase = 'banner';
    }
    const sock = stream;
    const closed = new Promise<void>(resolve => sock.once('close', () => resolve()));
    const ssh = new NodeSSH();
    const ready = ssh.connect({
      sock,
      host,
      username: user,
      authHandler: auth.handler,
      algorithms: { serverHostKey: [...hostKeys.algorithms({ label, host, port })] },
      hostVerifier: (presented: Buffer) => {
        try {
          hostKeys.verify({ label, host, port }, presented);
          return true;
        } catch (error) {
          hostKeyError = error;
          return false;
        }
      },
      readyTimeout: 0,
      keepaliveInterval: keepaliveIntervalMs,
      keepaliveCountMax: KEEPALIVE_COUNT,
    });
    ready.catch(() => {});
    const client = ssh.connection;
    if (client === null) {
      await ready;
      throw new SideloadError('INTERNAL', 'node-ssh made no connection', { node: label });
    }
    sock.once('data', () => {
      wasAnswered = true;
    });
    // For as long as the client lives: an `error` event that nobody hears ends the process.
    client.on('error', (error: Error) => {
      lastError ??= error;
      ended.abort(lostError());
    });
    client.on('close', () => ended.abort(lostError()));
    client.once('handshake', () => {
      phase = 'login';
    });
    await Promise.race([ready, interrupted]);
    // An abort in the same turn as the end of the login has lost the race.
    signal.throwIfAborted();
    return { ssh, client, stream: sock, closed };
  };

  const loggedIn = await logIn()
    .catch((error: unknown) => {
      const failed = attempt();
      stream?.destroy();
      if (error instanceof SideloadError || signal.aborted) throw error;
      throw hostKeyError ?? connectError(error, failed);
    })
    .finally(() => {
      clearTimeout(timer);
      signal.removeEventListener('abort', onAbortedAttempt);
    });
  const { ssh, client, closed } = loggedIn;
  const open = loggedIn.stream;

  let closing: Promise<void> | undefined;
  const end = (reason: unknown): Promise<void> => {
    closing ??= (async () => {
      // First the commands, which send their last packets, then the connection that carries them.
      ended.abort(reason);
      client.end();
      let timeout: NodeJS.Timeout | undefined;
      const late = new Promise<void>(resolve => {
        timeout = setTimeout(() => {
          open.destroy();
          resolve();
        }, CLOSE_TIMEOUT_MS);
      });
      // A stream through a jump host that has gone silent says no more that it is closed.
      await Promise.race([closed, late]);
      clearTimeout(timeout);
    })();
    return closing;
  };
  const onAbort = () => void end(signal.reason);
  signal.addEventListener('abort', onAbort);
  void closed.then(() => signal.removeEventListener('abort', onAbort));

  return {
    client,
    label,
    ended: ended.signal,
    drained: () => drained(open) ?? via?.drained(),
    isOpen: () => open.writable,
    running: new Set(),
    forward: async (toHost, toPort) => await ssh.forwardOut('127.0.0.1', 0, toHost, toPort),
    close: () => end(new SideloadError('SSH_LOST', `The connection to ${address} was closed here`, { node: label })),
  };
}

/** The way to a host behind a jump host; one that opens after all is not left open. */
async function forwarded(
  via: Session,
  { host, port }: Peer,
  attempt: () => Attempt,
  interrupted: Promise<never>,
): Promise<Duplex> {
  const opening = via.forward(host, port);
  try {
    return await Promise.race([opening, interrupted]);
  } catch (error) {
    opening.then(
      late => late.destroy(),
      () => {},
    );
    throw error instanceof SideloadError ? error : forwardError(error, attempt());
  }
}

function lossReason(error: unknown, keepaliveIntervalMs: number): string {
  const reason = messageOf(error);
  if (reason === 'Keepalive timeout') {
    return `the node has not answered for ${(keepaliveIntervalMs * KEEPALIVE_COUNT) / 1000} s`;
  }
  return systemReason(error) ?? reason;
}

import { isIP } from 'node:net';
import { NodeSSH } from 'node-ssh';
import type { AuthHandlerMiddleware } from 'ssh2';
import { messageOf, SideloadError } from '../errors.ts';
import { type Attempt, connectError, type Phase, systemReason, timeoutError } from './connect-error.ts';
import type { HostKeyPolicy } from './host-keys.ts';
import type { SshCredentials } from './key.ts';
import { type CommandOptions, type CommandResult, runCommand } from './run.ts';
import { coalescingSocket, drained } from './socket.ts';

export interface SshTarget {
  /** The node as the user named it. */
  readonly label: string;
  /** Name or address, without brackets. */
  readonly host: string;
  readonly port: number;
  readonly user: string;
}

export interface SshOptions {
  readonly credentials: SshCredentials;
  readonly hostKeys: HostKeyPolicy;
  /** For TCP, handshake and login together. */
  readonly connectTimeoutMs: number;
  /** A node that leaves three of these unanswered is lost. Default 15 s; 0 turns it off. */
  readonly keepaliveIntervalMs?: number;
  /** Ends the attempt, and later the connection with all that runs on it. */
  readonly signal: AbortSignal;
}

export interface SshConnection {
  readonly target: SshTarget;
  /** Runs a program with its arguments on the node; see {@link runCommand} for what it throws. */
  run(argv: readonly string[], options?: CommandOptions): Promise<CommandResult>;
  /** Ends the connection; commands that still run are cut. Can be called again. Never rejects. */
  close(): Promise<void>;
}

const KEEPALIVE_COUNT = 3;
const CLOSE_TIMEOUT_MS = 2000;

/**
 * Logs in to a node with a key, after checking the node's host key.
 *
 * ssh2 prefers aes128-gcm by default, which was also the fastest by measurement; its ciphers are left as they are.
 *
 * @throws SideloadError `SSH_UNREACHABLE`, `SSH_HOST_KEY_UNKNOWN`, `SSH_HOST_KEY_CHANGED` or `SSH_AUTH_FAILED`; the
 *   signal's reason on abort
 */
export async function connect(target: SshTarget, options: SshOptions): Promise<SshConnection> {
  const { credentials, hostKeys, connectTimeoutMs, keepaliveIntervalMs = 15_000, signal } = options;
  const { label, host, port, user } = target;
  signal.throwIfAborted();

  const address = host.includes(':') ? `[${host}]:${port}` : `${host}:${port}`;
  const socket = coalescingSocket(host, port);
  const closed = new Promise<void>(resolve => socket.once('close', () => resolve()));
  let phase: Phase = isIP(host) === 0 ? 'lookup' : 'tcp';
  let hostKeyError: unknown;
  let isKeyOffered = false;
  let methodsLeft: readonly string[] | undefined;
  let wantsMore = false;
  socket.on('lookup', (error: Error | null) => {
    if (error === null) phase = 'tcp';
  });
  socket.once('connect', () => {
    phase = 'banner';
  });
  const attempt = (): Attempt => ({
    label,
    address,
    user,
    keyFingerprint: credentials.fingerprint,
    phase: phase === 'banner' && socket.bytesRead > 0 ? 'handshake' : phase,
    wasAnswered: socket.bytesRead > 0,
    methodsLeft,
    wantsMore,
  });

  // Called before the first method, with null, and after each refusal, with what the server would accept instead.
  const authHandler = ((left: readonly string[] | null, partialSuccess: boolean | null) => {
    if (!isKeyOffered) {
      isKeyOffered = true;
      return { type: 'publickey', username: user, key: credentials.key };
    }
    methodsLeft = left ?? undefined;
    wantsMore = partialSuccess === true;
    return false;
  }) as unknown as AuthHandlerMiddleware;

  const ssh = new NodeSSH();
  const ready = ssh.connect({
    sock: socket,
    host,
    username: user,
    authHandler,
    algorithms: { serverHostKey: [...hostKeys.algorithms(target)] },
    hostVerifier: (presented: Buffer) => {
      try {
        hostKeys.verify(target, presented);
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
  const client = ssh.connection;
  if (client === null) {
    socket.destroy();
    await ready;
    throw new SideloadError('INTERNAL', 'node-ssh made no connection', { node: label });
  }

  const ended = new AbortController();
  let lastError: unknown;
  // For as long as the client lives: an `error` event that nobody hears ends the process.
  client.on('error', (error: Error) => {
    lastError ??= error;
    ended.abort(lostError(lastError));
  });
  client.on('close', () => ended.abort(lostError(lastError)));
  client.once('handshake', () => {
    phase = 'login';
  });

  const lostError = (error: unknown) => {
    const reason = error === undefined ? 'the node closed it' : lossReason(error, keepaliveIntervalMs);
    return new SideloadError('SSH_LOST', `The connection to ${address} broke off: ${reason}`, {
      node: label,
      cause: hostKeyError ?? error,
    });
  };

  let interrupt: (error: unknown) => void = () => {};
  const interrupted = new Promise<never>((_, reject) => {
    interrupt = reject;
  });
  const timer = setTimeout(() => interrupt(timeoutError(connectTimeoutMs, attempt())), connectTimeoutMs);
  const onAbortedAttempt = () => interrupt(signal.reason);
  signal.addEventListener('abort', onAbortedAttempt);
  try {
    await Promise.race([ready, interrupted]);
    // An abort in the same turn as the end of the login has lost the race.
    signal.throwIfAborted();
  } catch (error) {
    const failed = attempt();
    socket.destroy();
    ready.catch(() => {});
    if (error instanceof SideloadError || signal.aborted) throw error;
    throw hostKeyError ?? connectError(error, failed);
  } finally {
    clearTimeout(timer);
    signal.removeEventListener('abort', onAbortedAttempt);
  }

  let closing: Promise<void> | undefined;
  const end = (reason: unknown): Promise<void> => {
    closing ??= (async () => {
      // First the commands, which send their last packets, then the connection that carries them.
      ended.abort(reason);
      client.end();
      const timeout = setTimeout(() => socket.destroy(), CLOSE_TIMEOUT_MS);
      await closed;
      clearTimeout(timeout);
    })();
    return closing;
  };
  const onAbort = () => void end(signal.reason);
  signal.addEventListener('abort', onAbort);
  void closed.then(() => signal.removeEventListener('abort', onAbort));

  const session = { client, label, ended: ended.signal, drained: () => drained(socket), isOpen: () => socket.writable };
  return {
    target,
    run: (argv, runOptions = {}) => runCommand(session, argv, runOptions),
    close: () => end(new SideloadError('SSH_LOST', `The connection to ${address} was closed here`, { node: label })),
  };
}

function lossReason(error: unknown, keepaliveIntervalMs: number): string {
  const reason = messageOf(error);
  if (reason === 'Keepalive timeout') {
    return `the node has not answered for ${(keepaliveIntervalMs * KEEPALIVE_COUNT) / 1000} s`;
  }
  return systemReason(error) ?? reason;
}

import { constants } from 'node:os';
import { Readable, Writable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import type { ClientChannel } from 'ssh2';
import { onAbort } from '../abort.ts';
import { messageOf, SideloadError } from '../errors.ts';
import { free } from '../memory.ts';
import { commandOutput } from './output.ts';
import { commandLine } from './quote.ts';
import type { Session } from './session.ts';

export interface CommandOptions {
  /**
   * What the command reads; nothing (EOF at once) by default. A stream is always consumed or destroyed, and the memory of
   * its chunks is given back when they are sent: they are nobody else's.
   */
  readonly stdin?: string | Buffer | Readable;
  /** Comes before stdin, and is not counted in its bytes. */
  readonly preamble?: string;
  /** Ends the command: TERM, then the channel is closed. */
  readonly signal?: AbortSignal;
  /** It ends by itself when its input does, and puts things in order; it gets no TERM, which it would die of. */
  readonly endsWithInput?: boolean;
  /** Limit for stdout and stderr together, in bytes; more is an error. Default 16 MiB. */
  readonly maxOutputBytes?: number;
  /** Gets what the command prints as it comes; `stdout` of the result is then empty. What it throws ends the command. */
  readonly onStdout?: (chunk: Buffer) => void;
  /** Sees what the command prints, on either stream, as it comes. */
  readonly onPrinted?: (chunk: Buffer) => void;
  /** Bytes of stdin, in total, that the channel has accepted so far. */
  readonly onStdinBytes?: (sentBytes: number) => void;
}

export interface CommandResult {
  /** 0 is the only success. Like a shell's `$?` after a signal: 128 and its number, or 255 for an unknown one. */
  readonly code: number;
  /** Such as `SIGKILL`, when a signal ended the command. */
  readonly signal?: string;
  readonly stdout: string;
  readonly stderr: string;
}

/**
 * Runs one command on an open connection.
 *
 * A command that ends early, with stdin unread, resolves with its exit code. When stdin fails, or on abort, the
 * command gets TERM, unless it ends with its input, and the channel is closed without EOF (RFC 4254, 5.3): a cut must not
 * look like a complete input. That is as far as SSH goes: sshd delivers signals neither to root's logins nor through sudo (`session_signal_req`
 * in OpenSSH's `session.c`), and such a command just sees its input end. What it reads must show by itself that it is
 * complete.
 *
 * @throws SideloadError `SSH_LOST` when the connection or the channel ends without an exit status;
 *   `REMOTE_COMMAND_FAILED` when the node refuses to start it or it prints too much; the source's own error when
 *   stdin fails; the signal's reason on abort
 */
export function runCommand(session: Session, argv: readonly string[], options: CommandOptions): Promise<CommandResult> {
  const { client, label, ended } = session;
  const { stdin, preamble, signal, endsWithInput = false, onStdinBytes } = options;
  const source =
    stdin instanceof Readable
      ? stdin
      : Readable.from(stdin === undefined || stdin.length === 0 ? [] : [Buffer.from(stdin)]);
  const running = new Promise<CommandResult>((resolve, reject) => {
    let channel: ClientChannel | undefined;
    let exit: Pick<CommandResult, 'code' | 'signal'> | undefined;
    let isSettled = false;
    const stops: (() => void)[] = [];
    const input = new AbortController();

    const settle = (failure?: { readonly error: unknown }) => {
      if (isSettled) return;
      isSettled = true;
      for (const stop of stops) stop();
      if (failure !== undefined && channel !== undefined && session.isOpen()) cut(channel, endsWithInput);
      input.abort();
      source.destroy();
      if (failure !== undefined) reject(failure.error);
      else if (exit !== undefined) {
        resolve({ ...exit, ...output.texts() });
      }
    };
    const fail = (error: unknown) => settle({ error });
    const output = commandOutput(argv[0], label, options, fail);
    // Until the channel is open nobody else listens to the source, and its error must not go uncaught.
    source.on('error', fail);
    for (const one of [ended, ...(signal === undefined ? [] : [signal])])
      stops.push(onAbort(one, () => fail(one.reason)));
    if (isSettled) return;

    let line: string;
    try {
      line = commandLine(argv);
    } catch (error) {
      return fail(error);
    }
    const onOpen = (error: Error | undefined, opened: ClientChannel) => {
      if (error !== undefined) {
        const message = `The node refused to start ${argv[0]}: ${messageOf(error)}`;
        return fail(new SideloadError('REMOTE_COMMAND_FAILED', message, { node: label, cause: error }));
      }
      channel = opened;
      opened.on('error', fail);
      opened.on('data', (chunk: Buffer) => {
        if (!isSettled) output.stdout(chunk);
      });
      opened.stderr.on('data', output.stderr);
      opened.on('exit', (code: number | null, name?: string) => {
        exit = code === null ? { code: signalCode(name), signal: name ?? 'unknown' } : { code };
      });
      opened.on('close', () => {
        if (exit !== undefined) return settle();
        const message = `The node closed the channel of ${argv[0]} without an exit status`;
        fail(new SideloadError('SSH_LOST', message, { node: label }));
      });
      if (isSettled) return cut(opened, endsWithInput);
      if (preamble !== undefined) opened.write(preamble);
      pipeline(source, stdinOf(opened, session, onStdinBytes), { signal: input.signal }).catch(fail);
    };
    const start = (retries: number) => {
      if (isSettled) return;
      try {
        // ssh2 passes `true` for a refused request.
        client.exec(line, (error: Error | true | undefined, opened) => {
          const others = [...session.running].filter(other => other !== running);
          if (!isOpenFailure(error)) onOpen(error === true ? new Error('the request was refused') : error, opened);
          else if (others.length > 0) void Promise.race(others.map(settled)).then(() => start(RETRIES));
          else if (retries > 0) start(retries - 1);
          else onOpen(error, opened);
        });
      } catch (error) {
        const message = `The connection is closed: ${messageOf(error)}`;
        fail(new SideloadError('SSH_LOST', message, { node: label, cause: error }));
      }
    };
    start(RETRIES);
  });
  session.running.add(running);
  const forget = () => void session.running.delete(running);
  running.then(forget, forget);
  return running;
}

/**
 * A channel that is refused (RFC 4254, 5.1) may be one too many: sshd has a limit (`MaxSessions`). Then the next one to
 * end makes room. sshd counts a channel until it has got to the end of what it has read: what comes with its closing
 * message is refused as well, and what comes after that refusal is not.
 */
function isOpenFailure(error: Error | true | undefined): error is Error {
  return error instanceof Error && 'reason' in error;
}

const RETRIES = 2;

function settled(promise: Promise<unknown>): Promise<void> {
  return promise.then(
    () => {},
    () => {},
  );
}

/**
 * The command's stdin as a stream with an end of its own. The channel is never ended or destroyed as a stream: ssh2
 * then sends EOF even for a failure, and closes the channel before a late exit status can arrive.
 */
function stdinOf(channel: ClientChannel, session: Session, onStdinBytes: CommandOptions['onStdinBytes']): Writable {
  let sentBytes = 0;
  return new Writable({
    highWaterMark: 256 * 1024,
    async write(chunk: Buffer, _encoding, callback) {
      await session.drained();
      channel.write(chunk, error => {
        if (!error) {
          sentBytes += chunk.length;
          onStdinBytes?.(sentBytes);
          free(chunk);
        }
        callback(error);
      });
    },
    final(callback) {
      channel.eof();
      callback();
    },
  });
}

/** Ends the command with TERM, unless it ends with its input, and closes its channel, without EOF. */
function cut(channel: ClientChannel, endsWithInput: boolean): void {
  if (!endsWithInput) {
    // ssh2 sends signals only before EOF, though RFC 4254 allows them until the channel is closed.
    const outgoing = channel.outgoing as { state: string };
    if (outgoing.state === 'eof') outgoing.state = 'open';
    channel.signal('TERM');
  }
  channel.close();
}

function signalCode(name: string | undefined): number {
  const number = Object.entries(constants.signals).find(([known]) => known === name)?.[1];
  return number === undefined ? 255 : 128 + number;
}

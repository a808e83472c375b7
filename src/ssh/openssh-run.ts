import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { Readable, type Writable } from 'node:stream';
import { onAbort } from '../abort.ts';
import { SideloadError } from '../errors.ts';
import { free } from '../memory.ts';
import { commandOutput } from './output.ts';
import { commandLine } from './quote.ts';
import type { CommandOptions, CommandResult } from './run.ts';

/** A connection that the machine's client holds. */
export interface Client {
  readonly label: string;
  /** Aborted when the connection has ended; its reason is the error for what runs on it. */
  readonly ended: AbortSignal;
  /** The commands that run over it now. */
  readonly running: Set<Promise<unknown>>;
  /** Starts another client, for one command line on the node. */
  start(line: string): ChildProcess;
  /** Whether the connection is still there. */
  isAlive(): Promise<boolean>;
}

/** What `ssh` exits with when it has failed itself; a command may, too. */
const FAILED = 255;
const RETRIES = 2;
/** How long the last words of a client that has failed may take to arrive. */
const LAST_WORDS_MS = 250;
/** More than what waits in a pipe that nobody reads. */
const KEPT_BYTES = 2 * 1024 * 1024;

/**
 * Runs one command over the machine's client, as `runCommand` does over ssh2, as far as a client can tell: a command that
 * a signal has ended has the code 255, and a cut shows to it as the end of its stdin, since a client that is killed sends
 * no signals and holds no EOF back.
 *
 * @throws SideloadError as `runCommand`
 */
export function runByClient(client: Client, argv: readonly string[], options: CommandOptions): Promise<CommandResult> {
  const { stdin } = options;
  const source =
    stdin instanceof Readable
      ? stdin
      : Readable.from(stdin === undefined || stdin.length === 0 ? [] : [Buffer.from(stdin)]);
  // Until it is read nobody else listens to the source, and its error must not go uncaught.
  source.on('error', () => {});
  const input = rereadable(source);
  const running = (async () => {
    const line = commandLine(argv);
    for (let retries = RETRIES; ; ) {
      const result = await runOnce(client, argv, line, input, options);
      if (result !== 'refused') return result;
      // As over ssh2: sshd may have a limit (`MaxSessions`), and the next command to end makes room.
      const others = [...client.running].filter(other => other !== running);
      if ((others.length === 0 && retries === 0) || !input.canBeReadAgain()) {
        const message = `The node refused to start ${argv[0]}: it opens no session`;
        throw new SideloadError('REMOTE_COMMAND_FAILED', message, { node: client.label });
      }
      if (others.length === 0) retries -= 1;
      else await Promise.race(others.map(other => other.catch(() => {})));
    }
  })().finally(() => source.destroy());
  client.running.add(running);
  const forget = () => void client.running.delete(running);
  running.then(forget, forget);
  return running;
}

function runOnce(
  client: Client,
  argv: readonly string[],
  line: string,
  input: ReturnType<typeof rereadable>,
  options: CommandOptions,
): Promise<CommandResult | 'refused'> {
  const { label, ended } = client;
  const { preamble, signal, onStdinBytes } = options;
  return new Promise((resolve, reject) => {
    if (ended.aborted) return reject(ended.reason);
    if (signal?.aborted) return reject(signal.reason);
    const child = client.start(line);
    let failure: { readonly error: unknown } | undefined;
    let isOver = false;
    const fail = (error: unknown) => {
      failure ??= { error };
      // Not TERM: the client would pass it on to the process that holds the connection (OpenSSH: mux.c).
      child.kill('SIGKILL');
    };
    const stops = [ended, ...(signal === undefined ? [] : [signal])].map(one => onAbort(one, () => fail(one.reason)));
    const output = commandOutput(argv[0], label, options, fail);
    child.stdout?.on('data', (chunk: Buffer) => {
      if (failure === undefined) output.stdout(chunk);
    });
    child.stderr?.on('data', output.stderr);
    child.once('error', error => {
      fail(error);
      onOver(null, null);
    });
    const { stdin: sink } = child;
    // A command that has ended reads no more; its exit code tells more than the broken pipe.
    sink?.on('error', () => {});
    if (sink !== null) {
      if (preamble !== undefined) sink.write(preamble);
      input.pour(sink, onStdinBytes).catch(fail);
    }
    const onOver = (code: number | null, name: NodeJS.Signals | null) => {
      if (isOver) return;
      isOver = true;
      for (const stop of stops) stop();
      for (const stream of child.stdio) stream?.destroy();
      const { stdout, stderr: said } = output.texts();
      void (async () => {
        if (failure !== undefined) throw failure.error;
        if (code === FAILED && /Session open refused by peer/.test(said)) return 'refused';
        if (code === null || (code === FAILED && !(await client.isAlive()))) {
          if (ended.aborted) throw ended.reason;
          const message = `The connection broke off while ${argv[0]} ran: ${said.trim().slice(-500) || (name ?? 'without a word')}`;
          throw new SideloadError('SSH_LOST', message, { node: label });
        }
        if (code === FAILED && /^exec request failed on channel/m.test(said)) {
          const message = `The node refused to start ${argv[0]}: ${said.trim().slice(-500)}`;
          throw new SideloadError('REMOTE_COMMAND_FAILED', message, { node: label });
        }
        return { code, stdout, stderr: said };
      })().then(resolve, reject);
    };
    child.once('close', onOver);
    // The holder of the connection may keep the ends of the pipes that it was given: they need not close then.
    child.once('exit', (code, name) => {
      if (failure !== undefined) onOver(code, name);
      else if (code === null || code === FAILED) setTimeout(() => onOver(code, name), LAST_WORDS_MS);
    });
  });
}

/**
 * A source that can be poured again from its beginning, for as long as no more of it has been taken than fits into the
 * pipes: what a refused session has taken has not come anywhere.
 */
function rereadable(source: Readable) {
  const iterator = source[Symbol.asyncIterator]() as AsyncIterator<Buffer | string>;
  const kept: Buffer[] = [];
  let takenBytes = 0;
  let next: Promise<IteratorResult<Buffer | string>> | undefined;

  return {
    canBeReadAgain: () => takenBytes <= KEPT_BYTES,
    /** @throws the source's own error */
    async pour(sink: Writable, onBytes: ((bytes: number) => void) | undefined): Promise<void> {
      let sentBytes = 0;
      const closed = once(sink, 'close').then(
        () => undefined,
        () => undefined,
      );
      const write = async (chunk: Buffer, isKept: boolean) => {
        const { length } = chunk;
        const isFull = !sink.write(chunk, error => {
          if (error) return;
          sentBytes += length;
          takenBytes = Math.max(takenBytes, sentBytes);
          onBytes?.(sentBytes);
          if (!isKept) free(chunk);
        });
        if (isFull) await Promise.race([new Promise<void>(resolve => sink.once('drain', resolve)), closed]);
      };
      for (const chunk of [...kept]) await write(chunk, true);
      while (!sink.destroyed) {
        next ??= iterator.next();
        const result = await Promise.race([next, closed]);
        if (result === undefined) return;
        next = undefined;
        if (result.done === true) break;
        const { value } = result;
        const chunk = typeof value === 'string' ? Buffer.from(value) : value;
        const isKept = takenBytes <= KEPT_BYTES;
        if (isKept) kept.push(chunk);
        else kept.length = 0;
        await write(chunk, isKept);
      }
      if (!sink.destroyed) sink.end();
    },
  };
}

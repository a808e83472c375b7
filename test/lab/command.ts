import { type ChildProcess, spawn } from 'node:child_process';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';

/** What a command that ended left behind. A command that a signal ended has the code 128 + its number's stand-in, 137. */
export interface Outcome {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

export interface RunOptions {
  readonly input?: string | Uint8Array | Readable;
  readonly env?: NodeJS.ProcessEnv;
  readonly cwd?: string;
  /** The command is killed after this long, and the promise rejects. */
  readonly timeoutMs?: number;
  readonly signal?: AbortSignal;
  /** Called with each line of stdout and stderr as it comes. */
  readonly onLine?: (line: string) => void;
}

/**
 * Runs a command to its end and collects its output; any exit code resolves.
 * @throws when the command can't be started, or outlives `timeoutMs` (60 s by default), or `signal` aborts.
 */
export async function run(argv: readonly string[], options: RunOptions = {}): Promise<Outcome> {
  const [file, ...args] = argv;
  if (file === undefined) throw new Error('run: no command given');
  const timeoutMs = options.timeoutMs ?? 60_000;
  const timeout = AbortSignal.timeout(timeoutMs);
  const child = spawn(file, args, {
    stdio: [options.input === undefined ? 'ignore' : 'pipe', 'pipe', 'pipe'],
    ...(options.env && { env: options.env }),
    ...(options.cwd !== undefined && { cwd: options.cwd }),
    signal: options.signal ? AbortSignal.any([options.signal, timeout]) : timeout,
    killSignal: 'SIGKILL',
  });
  const stdout = collect(child.stdout, options.onLine);
  const stderr = collect(child.stderr, options.onLine);
  const fed = feed(child, options.input);
  try {
    const code = await new Promise<number>((resolve, reject) => {
      child.once('error', reject);
      child.once('close', (exit, signal) => resolve(exit ?? (signal ? 137 : 1)));
    });
    await fed;
    return { code, stdout: stdout(), stderr: stderr() };
  } catch (cause) {
    const why = timeout.aborted ? `took longer than ${timeoutMs} ms` : 'did not run';
    throw new Error(`${argv.join(' ')}: ${why}\n${tail(stderr() || stdout())}`, { cause });
  }
}

/** Runs a command that has to succeed, and returns its stdout. */
export async function must(argv: readonly string[], options: RunOptions = {}): Promise<string> {
  const { code, stdout, stderr } = await run(argv, options);
  if (code !== 0) throw new Error(`${argv.join(' ')}: exit code ${code}\n${tail(stderr || stdout)}`);
  return stdout;
}

/**
 * Asks `probe` again and again until it gives something other than undefined or false.
 * @throws when `timeoutMs` have passed, with the last error that the probe threw as the cause.
 */
export async function until<T>(
  what: string,
  timeoutMs: number,
  probe: () => Promise<T | undefined | false>,
  options: { readonly everyMs?: number; readonly signal?: AbortSignal } = {},
): Promise<T> {
  const deadline = Date.now() + timeoutMs;
  let cause: unknown;
  for (;;) {
    options.signal?.throwIfAborted();
    try {
      const found = await probe();
      if (found !== undefined && found !== false) return found;
    } catch (error) {
      cause = error;
    }
    if (Date.now() > deadline) throw new Error(`${what}: not within ${timeoutMs} ms`, { cause });
    await new Promise(resolve => setTimeout(resolve, options.everyMs ?? 50));
  }
}

/** The last lines of a log: enough to act on, short enough to print. */
export function tail(text: string, lines = 15): string {
  return text.trimEnd().split('\n').slice(-lines).join('\n');
}

function collect(stream: Readable | null, onLine?: (line: string) => void): () => string {
  const chunks: Buffer[] = [];
  let partial = '';
  stream?.on('data', (chunk: Buffer) => {
    chunks.push(chunk);
    if (!onLine) return;
    const lines = (partial + chunk.toString()).split('\n');
    partial = lines.pop() ?? '';
    for (const line of lines) onLine(line);
  });
  return () => Buffer.concat(chunks).toString();
}

async function feed(child: ChildProcess, input: RunOptions['input']): Promise<void> {
  if (input === undefined || !child.stdin) return;
  const source = input instanceof Readable ? input : Readable.from([input]);
  // A command may end without reading all of its input: its exit code says what that means.
  await pipeline(source, child.stdin).catch(() => undefined);
}

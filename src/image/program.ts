import { type ChildProcessByStdio, spawn } from 'node:child_process';
import { Socket } from 'node:net';
import type { Readable, Writable } from 'node:stream';
import { onAbort } from '../abort.ts';
import { childEnvironment } from '../child-environment.ts';
import { SideloadError } from '../errors.ts';

const STDERR_MAX_CHARACTERS = 4096;
const STDOUT_MAX_CHARACTERS = 1 << 20;
const KILL_AFTER_MS = 5000;
/** How long a program's output may stay open after its exit: a process that it leaves behind can hold it for ever. */
const OUTPUT_GRACE_MS = 2000;

/** How a program ended. */
export interface ProgramExit {
  /** Undefined when it did not start or died of a signal. */
  readonly code: number | undefined;
  /** The program is not installed. */
  readonly missing: boolean;
  /** In words, as in `exited with 1`. */
  readonly reason: string;
  /** The last few thousand characters that it wrote to stderr, trimmed. */
  readonly stderr: string;
}

/** A running program; whoever started it awaits `exit`. */
export interface Program {
  readonly stdin: Writable;
  readonly stdout: Readable;
  /** How much has come on `stdout` so far. */
  readonly outputBytes: () => number;
  /** Never rejects. */
  readonly exit: Promise<ProgramExit>;
  /** Asks it to end, and insists after a few seconds. */
  stop(): void;
}

/** Starts a program without a shell. When `signal` fires, the program is stopped. */
export function startProgram(name: string, args: readonly string[], signal: AbortSignal): Program {
  const child: ChildProcessByStdio<Writable, Readable, Readable> = spawn(name, args, {
    stdio: ['pipe', 'pipe', 'pipe'],
    env: childEnvironment({ LC_ALL: 'C' }),
  });
  // A program that ends early breaks the pipe; its exit code says why.
  child.stdin.on('error', () => {});
  let stderr = '';
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    stderr = (stderr + text).slice(-STDERR_MAX_CHARACTERS);
  });
  let insist: NodeJS.Timeout | undefined;
  let grace: NodeJS.Timeout | undefined;
  const stop = () => {
    if (insist !== undefined || child.exitCode !== null || child.signalCode !== null) return;
    child.kill();
    insist = setTimeout(() => child.kill('SIGKILL'), KILL_AFTER_MS);
  };
  const exit = new Promise<ProgramExit>(resolve => {
    let failure: NodeJS.ErrnoException | undefined;
    const end = (code: number | null, killer: NodeJS.Signals | null) => {
      clearTimeout(insist);
      clearTimeout(grace);
      release();
      resolve({
        code: failure === undefined ? (code ?? undefined) : undefined,
        missing: failure?.code === 'ENOENT',
        reason: failure?.message ?? (killer === null ? `exited with ${code}` : `was ended by ${killer}`),
        stderr: stderr.trim(),
      });
    };
    child.on('error', error => {
      failure ??= error;
      if (child.pid === undefined) end(null, null);
    });
    child.on('exit', (code, killer) => {
      grace = setTimeout(end, OUTPUT_GRACE_MS, code, killer);
    });
    child.on('close', end);
  });
  const release = onAbort(signal, stop);
  const { stdin, stdout } = child;
  return { stdin, stdout, outputBytes: () => (stdout instanceof Socket ? stdout.bytesRead : 0), exit, stop };
}

/**
 * Runs a program that says little, to its end.
 * @throws the signal's reason when it fired, as CANCELLED when it is no SideloadError
 */
export async function runProgram(
  name: string,
  args: readonly string[],
  signal: AbortSignal,
): Promise<ProgramExit & { readonly stdout: string }> {
  const program = startProgram(name, args, signal);
  program.stdin.end();
  let stdout = '';
  program.stdout.setEncoding('utf8').on('data', (text: string) => {
    stdout = (stdout + text).slice(0, STDOUT_MAX_CHARACTERS);
  });
  const exit = await program.exit;
  if (signal.aborted) {
    const { reason } = signal;
    throw reason instanceof SideloadError ? reason : new SideloadError('CANCELLED', 'cancelled', { cause: reason });
  }
  return { ...exit, stdout };
}

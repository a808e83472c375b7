import { SideloadError } from '../errors.ts';
import type { CommandOptions } from './run.ts';

const MAX_OUTPUT_BYTES = 16 * 1024 * 1024;

/** What a command prints, whichever client it runs over. */
interface CommandOutput {
  /** Takes what comes on standard output: keeps it, or hands it on. */
  stdout(chunk: Buffer): void;
  stderr(chunk: Buffer): void;
  /** What was kept. */
  texts(): { readonly stdout: string; readonly stderr: string };
}

/**
 * Keeps what a command prints, up to a limit for both streams together; with `onStdout` standard output is handed on as it
 * comes, and neither kept nor limited.
 * @param fail ends the command: it has printed too much, or whoever takes its output has thrown
 */
export function commandOutput(
  program: string | undefined,
  label: string | undefined,
  { maxOutputBytes = MAX_OUTPUT_BYTES, onStdout, onPrinted }: CommandOptions,
  fail: (error: unknown) => void,
): CommandOutput {
  let outputBytes = 0;
  const keepIn = (parts: Buffer[]) => (chunk: Buffer) => {
    outputBytes += chunk.length;
    if (outputBytes <= maxOutputBytes) parts.push(chunk);
    else {
      const message = `${program} printed more than ${maxOutputBytes} bytes`;
      fail(new SideloadError('REMOTE_COMMAND_FAILED', message, { node: label }));
    }
  };
  const handOver = (chunk: Buffer) => {
    try {
      onStdout?.(chunk);
    } catch (error) {
      fail(error);
    }
  };
  const seen = (take: (chunk: Buffer) => void) => (chunk: Buffer) => {
    onPrinted?.(chunk);
    take(chunk);
  };
  const stdout: Buffer[] = [];
  const stderr: Buffer[] = [];
  return {
    stdout: seen(onStdout === undefined ? keepIn(stdout) : handOver),
    stderr: seen(keepIn(stderr)),
    texts: () => ({ stdout: Buffer.concat(stdout).toString(), stderr: Buffer.concat(stderr).toString() }),
  };
}

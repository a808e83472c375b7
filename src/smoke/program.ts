import { execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { getExecOutput } from '@actions/exec';
import { which } from '@actions/io';
import { SideloadError } from '../errors.ts';

/** `kubectl` or `oc`, wherever it runs. An exit code is an answer; neither call rejects for one. */
export interface KubectlProgram {
  /**
   * Runs it with arguments and an input.
   * @throws SideloadError CLUSTER_UNREACHABLE when the program cannot be asked at present
   */
  run(
    args: readonly string[],
    input: string,
  ): Promise<{ readonly code: number; readonly stdout: string; readonly stderr: string }>;
  /**
   * Runs it and gives each line of its output at once.
   * @throws what `onLine` throws, after ending the program; the signal's reason on abort
   */
  stream(
    args: readonly string[],
    onLine: (line: string) => void,
    signal: AbortSignal,
  ): Promise<{ readonly code: number; readonly stderr: string }>;
  /** Ends what it takes to reach it. Never rejects. */
  close(): Promise<void>;
}

/** The last part of what a program complains of. */
const STDERR_CHARACTERS = 4096;
const MAX_OUTPUT_BYTES = 64 << 20;

/**
 * The program on the runner.
 * @param kubeconfig `undefined` for the program's own default
 * @throws SideloadError KUBECTL_NOT_FOUND
 */
export async function localKubectl(program: string, kubeconfig: string | undefined): Promise<KubectlProgram> {
  const path = await which(program, true).catch(cause => {
    throw new SideloadError('KUBECTL_NOT_FOUND', `there is no program ${JSON.stringify(program)} on the runner`, {
      cause,
    });
  });
  const global = kubeconfig === undefined ? [] : [`--kubeconfig=${kubeconfig}`];
  return {
    run: async (args, input) => {
      if (input !== '') {
        return await runWithInput(path, [...global, ...args], input);
      }
      // Without an input it would wait for one as long as @actions/exec lives.
      const argv = ['-c', 'exec "$0" "$@" </dev/null', path, ...global, ...args];
      const options = { silent: true, ignoreReturnCode: true };
      const { exitCode, stdout, stderr } = await getExecOutput('/bin/sh', argv, options);
      return { code: exitCode, stdout, stderr };
    },
    stream: async (args, onLine, signal) => {
      // @actions/exec can neither be cancelled nor read line by line with back pressure.
      const child = spawn(path, [...global, ...args], { stdio: ['ignore', 'pipe', 'pipe'], signal });
      const ended = once(child, 'close');
      let stderr = '';
      child.stderr.on('data', (chunk: Buffer) => {
        stderr = (stderr + chunk.toString()).slice(-STDERR_CHARACTERS);
      });
      const lines = createInterface({ input: child.stdout });
      let broken: { readonly thrown: unknown } | undefined;
      lines.on('line', line => {
        try {
          onLine(line);
        } catch (thrown) {
          broken ??= { thrown };
          child.kill();
        }
      });
      const [code] = (await ended.catch(cause => {
        throw signal.aborted ? signal.reason : cause;
      })) as [number | null];
      if (broken !== undefined) {
        throw broken.thrown;
      }
      return { code: code ?? -1, stderr };
    },
    close: async () => {},
  };
}

/** A program that ends with its input unread gives its exit code; with @actions/exec 3.0 the broken pipe ends the process. */
function runWithInput(
  path: string,
  args: readonly string[],
  input: string,
): Promise<{ readonly code: number; readonly stdout: string; readonly stderr: string }> {
  return new Promise((resolve, reject) => {
    const child = execFile(path, args, { maxBuffer: MAX_OUTPUT_BYTES }, (error, stdout, stderr) => {
      if (typeof error?.code === 'string') reject(error);
      else resolve({ code: error === null ? 0 : (error.code ?? -1), stdout, stderr });
    });
    child.stdin?.on('error', () => {}).end(input);
  });
}

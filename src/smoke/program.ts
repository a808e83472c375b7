import { execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { childEnvironment } from '../child-environment.ts';
import { SideloadError } from '../errors.ts';
import { findProgram } from '../find-program.ts';

/** `kubectl` or `oc`, wherever it runs. An exit code is an answer; neither call rejects for one. */
export interface KubectlProgram {
  /**
   * Runs it with arguments and an input.
   * @throws SideloadError CLUSTER_UNREACHABLE when the program cannot be asked at present; the signal's reason on abort
   */
  run(
    args: readonly string[],
    input: string,
    signal: AbortSignal,
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
/** All nodes of the largest clusters, with the images that each tells of. */
const MAX_OUTPUT_BYTES = 256 << 20;

/**
 * The program on the runner.
 * @param kubeconfig `undefined` for the program's own default
 * @throws SideloadError KUBECTL_NOT_FOUND
 */
export async function localKubectl(program: string, kubeconfig: string | undefined): Promise<KubectlProgram> {
  const path = await findProgram(program);
  if (path === undefined) {
    throw new SideloadError('KUBECTL_NOT_FOUND', `there is no program ${JSON.stringify(program)} on the runner`);
  }
  const global = kubeconfig === undefined ? [] : [`--kubeconfig=${kubeconfig}`];
  return {
    run: (args, input, signal) => run(path, [...global, ...args], input, signal),
    stream: async (args, onLine, signal) => {
      const stdio: ['ignore', 'pipe', 'pipe'] = ['ignore', 'pipe', 'pipe'];
      const child = spawn(path, [...global, ...args], { stdio, env: childEnvironment(), signal });
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

/** A program that ends with its input unread gives its exit code. */
function run(
  path: string,
  args: readonly string[],
  input: string,
  signal: AbortSignal,
): Promise<{ readonly code: number; readonly stdout: string; readonly stderr: string }> {
  return new Promise((done, reject) => {
    const options = { maxBuffer: MAX_OUTPUT_BYTES, env: childEnvironment(), signal, killSignal: 'SIGKILL' } as const;
    const child = execFile(path, args, options, (error, stdout, stderr) => {
      if (signal.aborted) reject(signal.reason);
      else if (typeof error?.code === 'string') reject(error);
      else done({ code: error === null ? 0 : (error.code ?? -1), stdout, stderr });
    });
    child.stdin?.on('error', () => {}).end(input);
  });
}

import { spawn } from 'node:child_process';
import { readFileSync } from 'node:fs';

/** A program to run: its path or name, and its arguments. */
export interface Command {
  readonly program: string;
  readonly args: readonly string[];
}

export interface Measurement {
  readonly seconds: number;
  /** Largest resident set of the process itself, as the kernel notes it (`VmHWM`), without its children. */
  readonly peakBytes: number;
  /** The largest sum of the resident sets of the process and all its descendants that was seen. */
  readonly treePeakBytes: number;
  /** What it wrote to standard error, and when. */
  readonly lines: readonly { readonly atMs: number; readonly text: string }[];
}

/** How often memory is read. The kernel's mark only grows: its last reading before the end is close to it. */
const INTERVAL_MS = 50;
const KEPT_LINES = 200;

/** Runs a program to its end and measures it. @throws when it ends with another code than 0, or outlives `timeoutMs`. */
export function measure(
  { program, args }: Command,
  env: NodeJS.ProcessEnv,
  cwd: string,
  timeoutMs: number,
): Promise<Measurement> {
  return new Promise((resolve, reject) => {
    const startedAt = performance.now();
    let peakBytes = 0;
    let treePeakBytes = 0;
    const lines: { atMs: number; text: string }[] = [];
    let unfinished = '';
    const child = spawn(program, args, { env, cwd, stdio: ['ignore', 'ignore', 'pipe'] });
    const timer = setInterval(() => {
      const { own, tree } = memoryOf(child.pid ?? 0);
      peakBytes = Math.max(peakBytes, own);
      treePeakBytes = Math.max(treePeakBytes, tree);
    }, INTERVAL_MS);
    const deadline = setTimeout(() => child.kill('SIGTERM'), timeoutMs);
    child.stderr.on('data', (chunk: Buffer) => {
      const texts = (unfinished + chunk.toString()).split('\n');
      unfinished = texts.pop() ?? '';
      const atMs = performance.now() - startedAt;
      lines.push(...texts.map(text => ({ atMs, text })));
      lines.splice(0, lines.length - KEPT_LINES);
    });
    const stop = () => {
      clearInterval(timer);
      clearTimeout(deadline);
    };
    child.on('error', error => {
      stop();
      reject(error);
    });
    child.on('close', (code, signal) => {
      stop();
      const seconds = (performance.now() - startedAt) / 1000;
      if (code === 0) {
        resolve({ seconds, peakBytes, treePeakBytes, lines });
      } else {
        const said = [...lines.map(({ text }) => text), unfinished].slice(-12).join('\n');
        reject(
          new Error(`${program} ended with ${signal ?? `exit code ${code}`} after ${seconds.toFixed(1)} s: ${said}`),
        );
      }
    });
  });
}

/** The high-water mark of a process, and what it and its descendants hold at the moment. Zeros once it has ended. */
function memoryOf(pid: number): { readonly own: number; readonly tree: number } {
  try {
    const status = readFileSync(`/proc/${pid}/status`, 'utf8');
    const kilobytes = (name: string) => Number(new RegExp(`^${name}:\\s+(\\d+) kB$`, 'm').exec(status)?.[1] ?? 0);
    const children = readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').split(' ').filter(Boolean);
    const below = children.reduce((sum, child) => sum + memoryOf(Number(child)).tree, 0);
    return { own: kilobytes('VmHWM') * 1024, tree: kilobytes('VmRSS') * 1024 + below };
  } catch {
    return { own: 0, tree: 0 };
  }
}

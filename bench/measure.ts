import { spawn } from 'node:child_process';
import { readFileSync } from 'node:fs';

export interface Measurement {
  readonly seconds: number;
  /** Largest resident set of the process itself, without its children. */
  readonly peakBytes: number;
}

/** How often the kernel's high-water mark is read; it only grows, so the last reading before the end is close to it. */
const SAMPLE_MS = 50;

/** Runs a program to its end and measures it. */
export function measure(program: string, args: readonly string[], env: NodeJS.ProcessEnv): Promise<Measurement> {
  return new Promise((resolve, reject) => {
    const startedAt = performance.now();
    let peakBytes = 0;
    let stderr = '';
    const child = spawn(program, args, { env, stdio: ['ignore', 'ignore', 'pipe'] });
    const timer = setInterval(() => {
      try {
        const status = readFileSync(`/proc/${child.pid}/status`, 'utf8');
        peakBytes = Math.max(peakBytes, Number(/^VmHWM:\s+(\d+) kB$/m.exec(status)?.[1] ?? 0) * 1024);
      } catch {
        // Ended meanwhile.
      }
    }, SAMPLE_MS);
    child.stderr.on('data', (chunk: Buffer) => {
      stderr = (stderr + chunk.toString()).slice(-4000);
    });
    child.on('error', reject);
    child.on('close', code => {
      clearInterval(timer);
      if (code === 0) {
        resolve({ seconds: (performance.now() - startedAt) / 1000, peakBytes });
      } else {
        reject(new Error(`${program} ended with exit code ${code}: ${stderr}`));
      }
    });
  });
}

export function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b);
  return sorted[Math.floor(sorted.length / 2)] ?? Number.NaN;
}

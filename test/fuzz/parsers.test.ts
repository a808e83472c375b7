import { spawn } from 'node:child_process';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { expect, it } from 'vitest';
import type { FuzzResult } from './fuzz.ts';

/** `npm run test:soak` runs a million. */
const COUNT = Number(process.env.FUZZ ?? 20_000);
const SEED = Number(process.env.FUZZ_SEED ?? Math.floor(Math.random() * 2 ** 31));
/** A parser that never ends cannot be asked to; how busy the machine is does not matter at this length. */
const SILENCE_MAX_MS = 120_000;
const GROWTH_MAX_BYTES = 8 << 20;

function fuzz(): Promise<FuzzResult> {
  const program = join(import.meta.dirname, 'fuzz.ts');
  const child = spawn(process.execPath, ['--expose-gc', program, `${COUNT}`, `${SEED}`], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  let last = '';
  let timer: NodeJS.Timeout | undefined;
  const watch = () => {
    clearTimeout(timer);
    timer = setTimeout(() => child.kill('SIGKILL'), SILENCE_MAX_MS);
  };
  watch();
  createInterface({ input: child.stdout }).on('line', line => {
    last = line;
    watch();
  });
  return new Promise((resolve, reject) => {
    child.once('close', (code, signal) => {
      clearTimeout(timer);
      if (code === 0) resolve(JSON.parse(last));
      else reject(new Error(`ended with ${code ?? signal} in the inputs after ${last} (FUZZ_SEED=${SEED})`));
    });
  });
}

it(
  'every parser ends what was changed in a value or a named error, within a second, and keeps nothing of it',
  async () => {
    console.log(`${COUNT} inputs, FUZZ_SEED=${SEED}`);
    const { failures, inputs, grownBytes, slowest } = await fuzz();
    console.log(`slowest: ${slowest.subject}, ${Math.round(slowest.cpuMs)} ms; ${grownBytes} bytes more in use`);
    expect(failures).toEqual([]);
    expect(inputs).toBe(COUNT);
    expect(grownBytes).toBeLessThan(GROWTH_MAX_BYTES);
  },
  Math.max(180_000, COUNT * 4),
);

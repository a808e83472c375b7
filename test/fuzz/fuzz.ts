/**
 * Changes inputs of every parser and runs it on them: `node --expose-gc test/fuzz/fuzz.ts COUNT SEED [FIRST]`. A process of its own,
 * which can be ended when it hangs. Each line says which input comes next; the last one is the result as JSON.
 */
import { SideloadError } from '../../src/errors.ts';
import { randomOf } from '../faults/random.ts';
import { SUBJECTS } from './inputs.ts';
import { mutate } from './mutate.ts';

/** What one run has shown. */
export interface FuzzResult {
  readonly inputs: number;
  /** Inputs that ended in something else than a value or a named error, or took longer than a second of processor time. */
  readonly failures: readonly FuzzFailure[];
  readonly slowest: { readonly subject: string; readonly cpuMs: number };
  /** How much more of the heap was in use at the end than half way. */
  readonly grownBytes: number;
}

export interface FuzzFailure {
  readonly subject: string;
  /** Run it again with this and the seed. */
  readonly index: number;
  readonly what: string;
  /** In base64, its beginning. */
  readonly input: string;
}

const CPU_MAX_MS = 1000;
const TOLD_EVERY = 10;
const FAILURES_MAX = 20;
const SHOWN_BYTES = 3000;

const [count = 0, seed = 0, first = 0] = process.argv.slice(2).map(Number);
const failures: FuzzFailure[] = [];
let slowest = { subject: '', cpuMs: 0 };
let usedBytes = 0;

function inUse(): number {
  globalThis.gc?.();
  return process.memoryUsage().heapUsed;
}

async function outcomeOf(run: () => unknown): Promise<string | undefined> {
  try {
    await run();
    return undefined;
  } catch (error) {
    if (error instanceof SideloadError && error.code !== 'INTERNAL') return undefined;
    return error instanceof Error ? (error.stack ?? error.message) : String(error);
  }
}

for (let index = first; index < first + count && failures.length < FAILURES_MAX; index += 1) {
  if ((index - first) % TOLD_EVERY === 0) process.stdout.write(`${index}\n`);
  if (index - first === Math.floor(count / 2)) usedBytes = inUse();
  const random = randomOf(Math.imul(seed, 0x9e3779b1) + index);
  const subject = SUBJECTS[index % SUBJECTS.length];
  if (subject === undefined) continue;
  const pick = () => subject.inputs[Math.floor(random() * subject.inputs.length)] ?? Buffer.alloc(0);
  const changed = mutate(pick(), pick(), random);
  const input = subject.repair?.(changed) ?? changed;
  const before = process.cpuUsage();
  const thrown = await outcomeOf(() => subject.run(input));
  const { user, system } = process.cpuUsage(before);
  const cpuMs = (user + system) / 1000;
  if (cpuMs > slowest.cpuMs) slowest = { subject: subject.name, cpuMs };
  const what = thrown ?? (cpuMs > (subject.mayTakeMs ?? CPU_MAX_MS) ? `it took ${Math.round(cpuMs)} ms` : undefined);
  if (what === undefined) continue;
  failures.push({ subject: subject.name, index, what, input: input.subarray(0, SHOWN_BYTES).toString('base64') });
}

const result: FuzzResult = { inputs: count, failures, slowest, grownBytes: inUse() - usedBytes };
process.stdout.write(`${JSON.stringify(result)}\n`);

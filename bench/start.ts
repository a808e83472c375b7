import { measure } from './measure.ts';
import { CLI } from './ways.ts';

const ROUNDS = 20;

/** Seconds that Node takes to do nothing, and the bundle to say its version; in turns. */
export async function measureStart(
  directory: string,
): Promise<{ readonly node: readonly number[]; readonly bundle: readonly number[] }> {
  const seconds = { node: [] as number[], bundle: [] as number[] };
  const take = async (args: readonly string[]) =>
    (await measure({ program: process.execPath, args }, process.env, directory, 60_000)).seconds;
  for (let round = 0; round < ROUNDS; round++) {
    seconds.node.push(await take(['-e', '0']));
    seconds.bundle.push(await take([CLI, '--version']));
  }
  return seconds;
}

import type { TestProject } from 'vitest/node';
import { down, type Lab, type UpOptions, up } from '../lab/index.ts';
import { locked, lockFile } from '../lab/lock.ts';

declare module 'vitest' {
  interface ProvidedContext {
    readonly lab: Lab;
  }
}

/** Longer than any suite takes. */
const SUITE_MS = 30 * 60_000;

/**
 * Raises a lab for a suite, and gives the way to take it down again. Until then another run of the suite on this machine
 * waits: `up` would take this lab down.
 */
export function raiseFor(
  project: TestProject,
  options: { readonly name: string; readonly nodes: UpOptions['nodes']; readonly cluster: boolean },
): Promise<() => Promise<void>> {
  const log = (line: string) => console.log(`lab ${options.name}: ${line}`);
  return new Promise((raised, failed) => {
    const held = locked(
      lockFile(`suite-${options.name}`),
      SUITE_MS,
      async () => {
        project.provide('lab', await up({ ...options, log }));
        await new Promise<void>((ended, stuck) => {
          raised(() => {
            down(options.name).then(ended, stuck);
            return held;
          });
        });
      },
      () => log('waits for the lab of the same name of another process'),
    );
    held.catch(failed);
  });
}

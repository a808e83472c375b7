import type { TestProject } from 'vitest/node';
import { down, type Lab, type UpOptions, up } from '../lab/index.ts';

declare module 'vitest' {
  interface ProvidedContext {
    readonly lab: Lab;
  }
}

/** Raises a lab for a suite, and gives the way to take it down again. */
export async function raiseFor(
  project: TestProject,
  options: { readonly name: string; readonly nodes: UpOptions['nodes']; readonly cluster: boolean },
): Promise<() => Promise<void>> {
  const lab = await up({ ...options, log: line => console.log(`lab ${options.name}: ${line}`) });
  project.provide('lab', lab);
  return () => down(options.name);
}

import type { TestProject } from 'vitest/node';
import { kindNames } from '../lab/kinds.ts';
import { raiseFor } from './raise.ts';

/** A node of every kind, each with a kubelet, in one cluster. */
export function setup(project: TestProject): Promise<() => Promise<void>> {
  return raiseFor(project, { name: 'test-runtimes', nodes: kindNames, cluster: true });
}

import type { TestProject } from 'vitest/node';
import { raiseFor } from './raise.ts';

export function setup(project: TestProject): Promise<() => Promise<void>> {
  return raiseFor(project, { name: 'test-cluster', nodes: 3, cluster: true });
}

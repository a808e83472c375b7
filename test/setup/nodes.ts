import type { TestProject } from 'vitest/node';
import { raiseFor } from './raise.ts';

/** Nodes without a Kubernetes, as they are before they join, or when only the runtime counts. */
export function setup(project: TestProject): Promise<() => Promise<void>> {
  return raiseFor(project, { name: 'test-node', nodes: 3, cluster: false });
}

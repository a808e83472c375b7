import type { TestProject } from 'vitest/node';
import { raiseFor } from './raise.ts';

/** A node of each runtime in one cluster, to be turned against whoever pushes to them. */
export function setup(project: TestProject): Promise<() => Promise<void>> {
  return raiseFor(project, { name: 'test-hostile', nodes: ['containerd', 'crio', 'docker'], cluster: true });
}

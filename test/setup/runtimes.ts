import type { TestProject } from 'vitest/node';
import { kindNamed, kindNames } from '../lab/kinds.ts';
import { raiseFor } from './raise.ts';

/**
 * A node of every kind, each with a kubelet, in one cluster. `LAB_KINDS=crio,docker` raises these alone, in a lab beside
 * others: quicker while a single test file is worked on.
 */
export function setup(project: TestProject): Promise<() => Promise<void>> {
  const kinds = process.env.LAB_KINDS?.split(',').map(kindNamed);
  const name = kinds === undefined ? 'test-runtimes' : `test-${process.pid}`;
  return raiseFor(project, { name, nodes: kinds ?? kindNames, cluster: true });
}

import type { TestProject } from 'vitest/node';
import { ensureTools } from '../lab/requirements.ts';
import { raiseFor } from './raise.ts';

/** Nodes for the pipelines of the documentation, and what `gitlab-ci-local` and its git server call. */
export async function setup(project: TestProject): Promise<() => Promise<void>> {
  await ensureTools(line => console.log(`lab test-pipelines: ${line}`), { rsync: 'rsync', git: 'git', bash: 'bash' });
  return await raiseFor(project, { name: 'test-pipelines', nodes: 2, cluster: true });
}

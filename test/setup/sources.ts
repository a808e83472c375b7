import type { TestProject } from 'vitest/node';
import { load } from '../lab/index.ts';
import { furnishRunner } from '../sources/producers.ts';
import { raiseFor } from './raise.ts';

const name = 'test-sources';

/** The machine where CI builds images, with every producer of images that can be had, and no nodes. */
export async function setup(project: TestProject): Promise<() => Promise<void>> {
  const takeDown = await raiseFor(project, { name, nodes: 0, cluster: false });
  try {
    const lab = await load(name);
    if (lab === undefined) throw new Error(`lab ${name} is not up`);
    await furnishRunner(lab, line => console.log(`lab ${name}: ${line}`));
    return takeDown;
  } catch (error) {
    await takeDown();
    throw error;
  }
}

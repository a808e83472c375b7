import { createReadStream } from 'node:fs';
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { parse, stringify } from 'yaml';
import { pauseReference } from './images.ts';
import { kinds } from './kinds.ts';
import { enterMust } from './machine.ts';
import { kubelet } from './node.ts';
import { startService, stopService } from './services.ts';
import type { Lab, LabNode } from './state.ts';

/**
 * Gives the runtime of a node another disk, of a size and empty but for the pause image, and its kubelet more settings.
 * The kubelet starts after the disk is there: it reads once which file systems there are.
 * @returns what gives both back as they were, and resolves when the node is Ready without pressure on its disk
 */
export async function onSmallDisk(
  lab: Lab,
  node: LabNode,
  sizeMiB: number,
  settings: Readonly<Record<string, unknown>>,
): Promise<() => Promise<void>> {
  const { runtime, kubelet: layout } = kinds[node.kind];
  const [place = ''] = runtime.data;
  const configuration = join(node.root, layout.configuration);
  const before = await readFile(configuration, 'utf8');

  async function change(mount: readonly string[], text: string): Promise<void> {
    for (const { name } of [kubelet(node), ...runtime.services.toReversed()]) await stopService(node, name);
    await enterMust(node, mount);
    await writeFile(configuration, text);
    for (const service of runtime.services) await startService(node, service);
  }

  async function rejoin(): Promise<void> {
    await startService(node, kubelet(node));
    for (const condition of ['Ready', 'DiskPressure=false'])
      await enterMust(
        lab.control ?? node,
        ['kubectl', 'wait', 'node', node.name, `--for=condition=${condition}`, '--timeout=90s'],
        { timeoutMs: 100_000 },
      );
  }

  await change(
    ['mount', '-t', 'tmpfs', '-o', `size=${sizeMiB}m`, 'small', place],
    stringify({ ...(parse(before) as object), ...settings }),
  );
  const pause = createReadStream(join(lab.directory, 'pause.tar'));
  await enterMust(node, runtime.importImage(pauseReference), { input: pause });
  await rejoin();
  return async () => {
    // CRI-O mounts its own directory once more, below: both go with it.
    await change(['umount', '-l', place], before);
    await rejoin();
  };
}

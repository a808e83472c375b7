/** What a node holds, and how it is made to hold nothing. */
import { readdir, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { tail, until } from '../test/lab/command.ts';
import type { Lab, LabNode } from '../test/lab/index.ts';
import { enterMust, machineDirectory } from '../test/lab/machine.ts';
import { crictl } from '../test/shipped.ts';
import type { Watched } from './disk.ts';
import type { BenchImage } from './images.ts';

const BLOBS = '/var/lib/containerd/io.containerd.content.v1.content/blobs/sha256';

/** All that containerd has: names of images and of snapshots, and blobs with their sizes in bytes. */
export interface Holdings {
  readonly images: readonly string[];
  readonly snapshots: readonly string[];
  readonly blobs: ReadonlyMap<string, number>;
}

export async function holdingsOf(node: LabNode): Promise<Holdings> {
  const [images, snapshots, blobs] = await Promise.all([
    ctr(node, ['images', 'ls', '-q']),
    ctr(node, ['snapshots', 'ls']),
    readdir(join(node.root, BLOBS)),
  ]);
  const sizes = await Promise.all(
    blobs.map(async blob => {
      // The collector may have taken it meanwhile.
      const found = await stat(join(node.root, BLOBS, blob)).catch(() => undefined);
      return found === undefined ? [] : [[blob, found.size] as const];
    }),
  );
  return { images: words(images), snapshots: words(snapshots).slice(1), blobs: new Map(sizes.flat()) };
}

/** The bytes of the blobs that a node has and did not have before. */
export function newBytes(before: Holdings, after: Holdings): number {
  return [...after.blobs].reduce((sum, [blob, bytes]) => sum + (before.blobs.has(blob) ? 0 : bytes), 0);
}

/**
 * Takes the node back to what it held when it was raised: images removed, their blobs and snapshots collected.
 * @throws when any of it is still there: what is measured then would not be a cold node
 */
export async function resetNode(node: LabNode, raised: Holdings): Promise<void> {
  const leases = words(await ctr(node, ['leases', 'ls', '-q']));
  if (leases.length > 0) {
    await ctr(node, ['leases', 'rm', ...leases]);
  }
  const { images } = await holdingsOf(node);
  const added = images.filter(image => !raised.images.includes(image));
  if (added.length > 0) {
    await ctr(node, ['images', 'rm', '--sync', ...added]);
  }
  await until(`${node.name}: the end of what was imported`, 20_000, async () => {
    const { images, snapshots, blobs } = await holdingsOf(node);
    const left = [
      ...images.filter(image => !raised.images.includes(image)),
      ...snapshots.filter(snapshot => !raised.snapshots.includes(snapshot)),
      ...[...blobs.keys()].filter(blob => !raised.blobs.has(blob)),
    ];
    if (left.length > 0) {
      throw new Error(`left on ${node.name}:\n${tail(left.join('\n'))}`);
    }
    return true;
  });
}

/**
 * Asks the node whether it has what was sent.
 * @throws unless its CRI has the image under the reference, with that ID, and containerd has all of it, unpacked
 */
export async function assertHasImage(lab: Lab, node: LabNode, { reference, imageId }: BenchImage): Promise<void> {
  await until(`${node.name}: ${reference} with ID ${imageId}`, 5_000, async () => {
    const listed = JSON.parse(await crictl(lab, node, ['images', '-o', 'json'])) as {
      images: readonly { id: string; repoTags: readonly string[] }[];
    };
    const id = listed.images.find(({ repoTags }) => repoTags.includes(reference))?.id;
    if (id !== imageId) {
      throw new Error(`the CRI says ${id ?? 'that there is none'}`);
    }
    return true;
  });
  const [, row = ''] = (await ctr(node, ['images', 'check', `name==${reference}`])).trim().split('\n');
  if (!/\scomplete \(\d+\/\d+\)\s.*\strue\s*$/.test(row)) {
    throw new Error(`${node.name}: ${reference} is not whole, or not unpacked: ${row}`);
  }
}

/** Where a node could keep something for a time that is neither the runtime's own store nor a log. */
export function temporaryOf(node: LabNode): readonly Watched[] {
  const upper = join(machineDirectory(node.lab, node.name), 'upper');
  return [
    { directory: upper, except: [join(upper, 'var', 'log')] },
    { directory: join(node.root, 'run'), except: [join(node.root, 'run', 'containerd')] },
    { directory: join(node.root, 'dev', 'shm') },
  ];
}

function ctr(node: LabNode, args: readonly string[]): Promise<string> {
  return enterMust(node, ['ctr', '--namespace', 'k8s.io', ...args]);
}

/** The first word of each line. */
function words(text: string): readonly string[] {
  return text.split('\n').flatMap(line => line.trim().split(/\s+/)[0] || []);
}

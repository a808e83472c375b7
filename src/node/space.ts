import { SideloadError } from '../errors.ts';
import { formatBytes } from '../report/units.ts';
import type { NodeFacts } from './facts.ts';

/** Room on a file system of a node. */
export interface Disk {
  /** Where it is mounted. */
  readonly path: string;
  readonly sizeBytes: number;
  readonly freeBytes: number;
}

/**
 * POSIX `df -P`: file system, 1024-blocks, used, available, capacity, mount point.
 * @returns `undefined` when the line is none of these
 */
export function parseDisk(line: string): Disk | undefined {
  const [, sizeKib, freeKib, path] = /\s(\d+)\s+\d+\s+(\d+)\s+\d+%\s+(\S.*)$/.exec(line) ?? [];
  return sizeKib === undefined || freeKib === undefined || path === undefined
    ? undefined
    : { path, sizeBytes: Number(sizeKib) * 1024, freeBytes: Number(freeKib) * 1024 };
}

/** The disk on which an archive lies while it is imported, when it is another than that of the images. */
export function otherWorkDisk({ disk, workDisk }: Pick<NodeFacts, 'disk' | 'workDisk'>): Disk | undefined {
  return workDisk === undefined || workDisk.path === disk.path ? undefined : workDisk;
}

/**
 * Whether there is room for an archive of known size and its layers, unpacked. The content store keeps the blobs as they
 * are sent; the snapshots are at least as large as the layers were.
 * @throws SideloadError DISK_FULL
 */
export function assertRoom(
  facts: Pick<NodeFacts, 'disk' | 'workDisk'>,
  reference: string,
  { archiveBytes, layersBytes }: { readonly archiveBytes: number; readonly layersBytes: number },
): void {
  const work = otherWorkDisk(facts);
  const needs = [
    ...(work === undefined ? [] : [{ disk: work, bytes: archiveBytes }]),
    { disk: facts.disk, bytes: archiveBytes + layersBytes },
  ];
  for (const { disk, bytes } of needs) {
    if (bytes > disk.freeBytes) {
      throw new SideloadError(
        'DISK_FULL',
        `${reference} needs ${formatBytes(bytes)} on ${disk.path} of the node, and ${formatBytes(disk.freeBytes)} are free`,
      );
    }
  }
}

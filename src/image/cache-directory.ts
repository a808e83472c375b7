import { randomBytes } from 'node:crypto';
import { readdir, stat, unlink } from 'node:fs/promises';
import { join } from 'node:path';
import { hasEnded, PROCESS, thisProcess } from '../process.ts';
import { type Digest, digestFromHex, hexOf } from './digest.ts';
import type { Compression } from './image.ts';

/** Digest in the source, digest of what is stored, and how that is compressed: the directory itself is the index. */
const ENTRY_NAME = /^([0-9a-f]{64})\.([0-9a-f]{64})\.((none|gzip|zstd)(?:-\d{1,2})?)$/;
const PARTIAL_NAME = new RegExp(`^(${PROCESS})-[0-9a-f]{8}\\.partial$`);
/** For files of processes on other machines, which cannot be asked for. */
const STALE_AFTER_MS = 24 * 3600 * 1000;

/** What an entry of the cache is. */
export interface CacheEntry {
  /** Digest of the content as it is in a source: the diffID of an uncompressed layer. */
  readonly source: Digest;
  /** Digest of the file. */
  readonly blob: Digest;
  /** Compression of the file. */
  readonly compression: Compression;
  /** With the level, as in `zstd-1`, when it was compressed here; without, it is as a source had it. */
  readonly label: string;
}

/** Published files of one content, which may have several names. */
interface ListedFile {
  readonly inode: number;
  readonly sizeBytes: number;
  readonly usedMs: number;
  readonly paths: string[];
}

/** The file name of an entry. */
export function nameOf({ source, blob, label }: CacheEntry): string {
  return `${hexOf(source)}.${hexOf(blob)}.${label}`;
}

/** A name for a file that is being written: who writes it, and something random. */
export function partialName(): string {
  return `${thisProcess()}-${randomBytes(4).toString('hex')}.partial`;
}

export function isPartial(path: string): boolean {
  return path.endsWith('.partial');
}

/** Compressed already where it came from. */
export function passedThrough({ label, compression }: CacheEntry): boolean {
  return compression !== 'none' && label === compression;
}

/** What is published in a directory; nothing in one that is gone. */
export async function entriesOf(directory: string): Promise<readonly CacheEntry[]> {
  return (await namesIn(directory)).flatMap(name => {
    const [, sourceHex = '', blobHex = '', label = '', compression] = ENTRY_NAME.exec(name) ?? [];
    const [source, blob] = [digestFromHex(sourceHex), digestFromHex(blobHex)];
    return source === undefined || blob === undefined
      ? []
      : [{ source, blob, label, compression: compression as Compression }];
  });
}

/** The published files, those first that were not used for longest. */
export async function listFiles(directory: string): Promise<readonly ListedFile[]> {
  const files = new Map<number, ListedFile>();
  for (const name of await namesIn(directory)) {
    if (!ENTRY_NAME.test(name)) continue;
    const path = join(directory, name);
    const info = await stat(path).catch(() => undefined);
    if (info === undefined) continue;
    const file = files.get(info.ino) ?? { inode: info.ino, sizeBytes: info.size, usedMs: info.mtimeMs, paths: [] };
    file.paths.push(path);
    files.set(info.ino, file);
  }
  return [...files.values()].sort((a, b) => a.usedMs - b.usedMs);
}

/** Removes files that may go, in the order of {@link listFiles}, until enough bytes are gone; returns how many were. */
export async function evict(
  directory: string,
  wantedBytes: number,
  may: (file: ListedFile) => boolean,
): Promise<number> {
  let freedBytes = 0;
  for (const file of await listFiles(directory)) {
    if (freedBytes >= wantedBytes) break;
    if (!may(file)) continue;
    for (const path of file.paths) await remove(path);
    freedBytes += file.sizeBytes;
  }
  return freedBytes;
}

/** Removes a file that may be gone already; one that cannot be removed stays for somebody else. */
export async function remove(path: string): Promise<void> {
  await unlink(path).catch(() => {});
}

/** Removes unfinished files of processes that are no more. */
export async function removeStale(directory: string): Promise<void> {
  for (const name of await namesIn(directory)) {
    const [, writer] = PARTIAL_NAME.exec(name) ?? [];
    if (writer === undefined) continue;
    const path = join(directory, name);
    if (hasEnded(writer) ?? (await isOld(path))) await remove(path);
  }
}

async function isOld(path: string): Promise<boolean> {
  const info = await stat(path).catch(() => undefined);
  return info !== undefined && Date.now() - info.mtimeMs > STALE_AFTER_MS;
}

async function namesIn(directory: string): Promise<readonly string[]> {
  return await readdir(directory).catch(() => []);
}

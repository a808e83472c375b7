import { type FileHandle, link, open, rename, stat, unlink } from 'node:fs/promises';
import { join } from 'node:path';
import { makeDirectory } from '../directory.ts';
import { messageOf } from '../errors.ts';
import {
  type CacheEntry,
  entriesOf,
  evict,
  isPartial,
  listFiles,
  nameOf,
  partialName,
  passedThrough,
  remove,
  removeStale,
} from './cache-directory.ts';
import type { Digest } from './digest.ts';

/** Where layers stay after a run, and how much of them. */
export interface CacheOptions {
  /** Undefined when there is no place for it. */
  readonly directory: string | undefined;
  /** 0 keeps nothing. */
  readonly maxBytes: number;
  /** Whether the directory is looked into and left as it is, or absent: what is stored then goes with the run. */
  readonly isReadOnly?: boolean;
}

/** A file that stays readable until the cache is closed, whatever becomes of its name. */
export interface CacheFile {
  readonly handle: FileHandle;
  /** Where it was seen last. */
  path: string;
}

/** An entry, opened. */
export interface FoundEntry {
  readonly entry: CacheEntry;
  readonly sizeBytes: number;
  readonly file: CacheFile;
}

/** A directory of blobs that several processes may use at once. Closing it ends the use of every file. */
export interface LayerCache {
  readonly directory: string;
  /** A new, empty file that nobody else finds. */
  create(): Promise<CacheFile>;
  /** Makes a file found by what it is; one that somebody has removed stays readable and is not found. */
  publish(file: CacheFile, entry: CacheEntry): Promise<void>;
  /**
   * Finds what is stored of content by its digest in a source. What was compressed in the source counts in any case,
   * what was compressed here only under this label.
   */
  find(source: Digest, label: string): Promise<FoundEntry | undefined>;
  /** Lets go of a file, and removes it unless it is published. */
  release(file: CacheFile): Promise<void>;
  /** Removes every name of a file whose content is not what they say. */
  discard(file: CacheFile): Promise<void>;
  /** Removes what was not used for longest, and not what this run uses; returns how many bytes that freed at most. */
  makeRoom(wantedBytes: number): Promise<number>;
  close(): Promise<void>;
}

/**
 * Opens the cache, or one for this run only in `fallback` when there is no place for a lasting one, which is said.
 * @param fallback a directory that exists and that nobody else can read
 */
export async function openCache(
  { directory: wanted, maxBytes, isReadOnly = false }: CacheOptions,
  fallback: string,
  log: (line: string) => void,
): Promise<LayerCache> {
  const lasting = maxBytes > 0 && !isReadOnly && (await isUsable(wanted, log)) ? wanted : undefined;
  const directory = lasting ?? fallback;
  const isLookedInto = maxBytes > 0 && isReadOnly && wanted !== undefined && (await isTrusted(wanted));
  const places = isLookedInto ? [directory, wanted] : [directory];
  const files = new Set<CacheFile>();
  if (lasting !== undefined) await removeStale(directory);

  const use = (file: CacheFile) => {
    files.add(file);
    return file;
  };
  const release = async (file: CacheFile) => {
    if (!files.delete(file)) return;
    await file.handle.close();
    if (isPartial(file.path)) await remove(file.path);
  };

  return {
    directory,
    async create() {
      // Whoever tidies up may take the directory away at any time.
      await makeDirectory(directory, { mode: 0o700 });
      const path = join(directory, partialName());
      return use({ handle: await open(path, 'wx+', 0o600), path });
    },
    async publish(file, entry) {
      const path = join(directory, nameOf(entry));
      if (file.path === path) return;
      try {
        if (isPartial(file.path)) {
          await rename(file.path, path);
          file.path = path;
        } else await link(file.path, path);
      } catch {
        // Removed by somebody, already there, or a file system without links: a cache may forget.
      }
    },
    async find(source, label) {
      for (const place of places) {
        const found = await findIn(place, source, label, place === directory);
        if (found !== undefined) return { ...found, file: use(found.file) };
      }
      return undefined;
    },
    release,
    async discard(file) {
      const { ino } = await file.handle.stat();
      await evict(directory, Number.POSITIVE_INFINITY, ({ inode }) => inode === ino);
    },
    async makeRoom(wantedBytes) {
      const stats = await Promise.all([...files].map(({ handle }) => handle.stat()));
      const inUse = new Set(stats.map(({ ino }) => ino));
      return await evict(directory, wantedBytes, ({ inode }) => !inUse.has(inode));
    },
    async close() {
      for (const file of [...files]) await release(file);
      if (lasting === undefined) return;
      await removeStale(directory);
      const sizeBytes = (await listFiles(directory)).reduce((sum, file) => sum + file.sizeBytes, 0);
      await evict(directory, sizeBytes - maxBytes, () => true);
    },
  };
}

/** @param isOurs whether an entry may be marked as used, and one that is none be removed */
async function findIn(
  directory: string,
  source: Digest,
  label: string,
  isOurs: boolean,
): Promise<FoundEntry | undefined> {
  const known = await entriesOf(directory);
  const fitting = known.filter(entry => entry.source === source && (entry.label === label || passedThrough(entry)));
  fitting.sort((a, b) => Number(b.label === label) - Number(a.label === label) || (a.blob < b.blob ? -1 : 1));
  for (const entry of fitting) {
    const path = join(directory, nameOf(entry));
    const handle = await open(path, 'r').catch(() => undefined);
    if (handle === undefined) continue;
    const { size: sizeBytes } = await handle.stat();
    // What a machine leaves that lost power after a rename.
    if (sizeBytes === 0) {
      await handle.close();
      if (isOurs) await remove(path);
      continue;
    }
    // Used now, for those who make room.
    if (isOurs) await handle.utimes(new Date(), new Date()).catch(() => {});
    return { entry, sizeBytes, file: { handle, path } };
  }
  return undefined;
}

async function isTrusted(directory: string): Promise<boolean> {
  return await whyNot(directory).then(
    reason => reason === undefined,
    () => false, // Most often it is not there yet.
  );
}

/** Why nothing in a directory may be believed; `undefined` when it may. */
async function whyNot(directory: string): Promise<string | undefined> {
  const { uid, mode } = await stat(directory);
  const me = process.getuid?.();
  // Others could put anything there under any name.
  if ((mode & 0o002) !== 0) return `${directory} can be written to by everybody`;
  return uid !== me && me !== 0 ? `${directory} belongs to another user` : undefined;
}

async function isUsable(directory: string | undefined, log: (line: string) => void): Promise<boolean> {
  const no = (why: string) => {
    log(`layers are cached for this run only: ${why}`);
    return false;
  };
  if (directory === undefined) return no('there is no home directory, and `cache-dir` is not set');
  try {
    await makeDirectory(directory, { mode: 0o700 });
    const reason = await whyNot(directory);
    if (reason !== undefined) return no(reason);
    const trial = join(directory, partialName());
    await (await open(trial, 'wx', 0o600)).close();
    await unlink(trial);
    return true;
  } catch (error) {
    return no(messageOf(error));
  }
}

import { constants, type Stats } from 'node:fs';
import { type FileHandle, link, open, rename, unlink } from 'node:fs/promises';
import { join } from 'node:path';
import { makeDirectory } from '../directory.ts';
import { messageOf } from '../errors.ts';
import { judgePath } from '../private-path.ts';
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
  const lasting = maxBytes > 0 && !isReadOnly ? await usable(wanted, log) : undefined;
  const directory = lasting ?? fallback;
  const lookedInto = maxBytes > 0 && isReadOnly && wanted !== undefined ? judgePath(wanted) : undefined;
  const places =
    lookedInto !== undefined && lookedInto.exposure === undefined ? [directory, lookedInto.path] : [directory];
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

/** @param mayChange whether an entry may be marked as used, and one that is none be removed */
async function findIn(
  directory: string,
  source: Digest,
  label: string,
  mayChange: boolean,
): Promise<FoundEntry | undefined> {
  const known = await entriesOf(directory);
  const fitting = known.filter(entry => entry.source === source && (entry.label === label || passedThrough(entry)));
  fitting.sort((a, b) => Number(b.label === label) - Number(a.label === label) || (a.blob < b.blob ? -1 : 1));
  for (const entry of fitting) {
    const path = join(directory, nameOf(entry));
    const flags = constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK;
    const handle = await open(path, flags).catch(() => undefined);
    if (handle === undefined) continue;
    const info = await handle.stat();
    if (!isOurs(info)) {
      await handle.close();
      continue;
    }
    const { size: sizeBytes } = info;
    // What a machine leaves that lost power after a rename.
    if (sizeBytes === 0) {
      await handle.close();
      if (mayChange) await remove(path);
      continue;
    }
    // Used now, for those who make room.
    if (mayChange) await handle.utimes(new Date(), new Date()).catch(() => {});
    return { entry, sizeBytes, file: { handle, path } };
  }
  return undefined;
}

/** What somebody put there while others could write to the directory stays theirs when they no longer can. */
function isOurs(info: Stats): boolean {
  const me = process.getuid?.();
  return info.isFile() && (info.uid === me || info.uid === 0 || me === undefined) && (info.mode & 0o022) === 0;
}

/** The directory without links, when layers can lie there and nobody else could put anything there under any name. */
async function usable(wanted: string | undefined, log: (line: string) => void): Promise<string | undefined> {
  const no = (why: string) => {
    log(`layers are cached for this run only: ${why}`);
    return undefined;
  };
  if (wanted === undefined) return no('there is no home directory, and `cache-dir` is not set');
  try {
    const before = judgePath(wanted);
    if (before.exposure !== undefined) return no(before.exposure);
    await makeDirectory(before.path, { mode: 0o700 });
    // Made by somebody else meanwhile, where everybody may make directories.
    const { path: directory, exposure } = judgePath(before.path);
    if (exposure !== undefined) return no(exposure);
    const trial = join(directory, partialName());
    await (await open(trial, 'wx', 0o600)).close();
    await unlink(trial);
    return directory;
  } catch (error) {
    return no(messageOf(error));
  }
}

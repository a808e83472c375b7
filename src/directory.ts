import { accessSync, constants, mkdtempSync, rmdirSync, type Stats, statSync } from 'node:fs';
import { mkdir, stat } from 'node:fs/promises';
import { dirname, join, resolve } from 'node:path';

/**
 * Makes a directory, and those above it that are missing. Below some places, /proc for one, `mkdir` always says that what
 * is above is missing: with `recursive` Node tries that for ever before its version 26, and listens to no signal meanwhile.
 */
export async function makeDirectory(path: string, options: { readonly mode?: number } = {}): Promise<void> {
  try {
    await mkdir(path, options);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === 'ENOENT' && dirname(path) !== path) {
      await makeDirectory(dirname(path), options);
      await mkdir(path, options).catch(ignoreExisting);
    } else if (code !== 'EEXIST' || !(await stat(path)).isDirectory()) {
      throw error;
    }
  }
}

/** Somebody else may have made it meanwhile. */
function ignoreExisting(error: NodeJS.ErrnoException): void {
  if (error.code !== 'EEXIST') {
    throw error;
  }
}

/**
 * Why nothing can be written in a directory, missing ones to be made; `undefined` when something can. It is tried, with a
 * directory that is gone at once: root may write everywhere, if one asks for the mode, also where nobody can (/proc) and
 * on file systems that are read-only.
 */
export function directoryFault(path: string): string | undefined {
  let nearest = resolve(path);
  try {
    while (statOf(nearest) === undefined) {
      nearest = dirname(nearest);
    }
    if (!statSync(nearest).isDirectory()) {
      return `cannot be written: ${nearest} is not a directory`;
    }
    accessSync(nearest, constants.W_OK | constants.X_OK);
    rmdirSync(mkdtempSync(join(nearest, '.kube-sideload-')));
    return undefined;
  } catch (thrown) {
    const code = (thrown as NodeJS.ErrnoException).code ?? '';
    // Room can be made, and whoever writes says so better.
    return FULL.has(code) ? undefined : `cannot be written: ${nearest} (${code})`;
  }
}

const FULL: ReadonlySet<string> = new Set(['ENOSPC', 'EDQUOT']);

/** `undefined` for what is not there, as what would be below a file. */
export function statOf(path: string): Stats | undefined {
  try {
    return statSync(path);
  } catch (thrown) {
    const { code } = thrown as NodeJS.ErrnoException;
    if (code === 'ENOENT' || code === 'ENOTDIR') {
      return undefined;
    }
    throw thrown;
  }
}

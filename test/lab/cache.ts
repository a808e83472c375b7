import { createHash } from 'node:crypto';
import { mkdir, mkdtemp, readdir, rename, rm, stat } from 'node:fs/promises';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { locked } from './lock.ts';
import type { Log } from './progress.ts';

/** Building the Kubernetes programs from nothing took 5 to 16 minutes on two cores. */
const buildTimeoutMs = 60 * 60_000;

/** Where everything lives that is built once and used by every lab. Outside the checkout, so that `git clean` keeps it. */
function cacheDirectory(): string {
  const base =
    process.env.KUBE_SIDELOAD_CACHE ?? join(process.env.XDG_CACHE_HOME ?? join(homedir(), '.cache'), 'kube-sideload');
  return join(base, 'lab');
}

/**
 * The directory of a thing that is built from a recipe: built under a temporary name and renamed when complete, under
 * a lock, so that labs that start at once build it once and nobody ever sees half of it.
 * @param recipe all that the result depends on; its hash is part of the directory's name.
 */
export async function cached(
  kind: string,
  recipe: readonly string[],
  log: Log,
  build: (directory: string) => Promise<void>,
): Promise<string> {
  const hash = createHash('sha256').update(JSON.stringify(recipe)).digest('hex').slice(0, 12);
  const directory = join(cacheDirectory(), `${kind}-${hash}`);
  if (await exists(directory)) return directory;
  const lock = join(cacheDirectory(), 'locks', `${kind}.lock`);
  const buildOnce = async () => {
    if (await exists(directory)) return directory;
    await mkdir(cacheDirectory(), { recursive: true });
    await clearAbandoned(kind);
    const temporary = await mkdtemp(join(cacheDirectory(), `.building-${kind}-`));
    try {
      await build(temporary);
      await rename(temporary, directory);
    } catch (error) {
      await rm(temporary, { recursive: true, force: true });
      throw error;
    }
    return directory;
  };
  return locked(lock, buildTimeoutMs, buildOnce, () => log(`wait for ${kind}, which another lab is building`));
}

/** Removes what a killed build of this kind left: we hold the kind's lock, so nobody is building it. */
async function clearAbandoned(kind: string): Promise<void> {
  for (const entry of await readdir(cacheDirectory())) {
    if (entry.startsWith(`.building-${kind}-`))
      await rm(join(cacheDirectory(), entry), { recursive: true, force: true });
  }
}

async function exists(path: string): Promise<boolean> {
  return stat(path).then(
    () => true,
    () => false,
  );
}

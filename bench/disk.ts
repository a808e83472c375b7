import { lstat, readdir } from 'node:fs/promises';
import { join } from 'node:path';

/** A directory to watch, and what below it does not count. */
export interface Watched {
  readonly directory: string;
  readonly except?: readonly string[];
}

/** Files that are written and removed within less than this may be missed. */
const INTERVAL_MS = 150;

/**
 * Watches during some work how much more disk the directories take than before it, in blocks and not in apparent sizes.
 * @returns what the work returns, and the most bytes by which the directories together had grown
 */
export async function growthDuring<T>(
  watched: readonly Watched[],
  work: () => Promise<T>,
): Promise<{ readonly result: T; readonly grownBytes: number }> {
  const used = async () => (await Promise.all(watched.map(usedBytes))).reduce((sum, bytes) => sum + bytes, 0);
  const before = await used();
  let grownBytes = 0;
  let looking: Promise<void> | undefined;
  const look = () => {
    looking ??= used().then(bytes => {
      grownBytes = Math.max(grownBytes, bytes - before);
      looking = undefined;
    });
    return looking;
  };
  const timer = setInterval(look, INTERVAL_MS);
  try {
    const result = await work();
    await looking;
    await look();
    return { result, grownBytes };
  } finally {
    clearInterval(timer);
  }
}

async function usedBytes({ directory, except = [] }: Watched): Promise<number> {
  if (except.includes(directory)) {
    return 0;
  }
  // What goes away while we look took no disk when we had finished looking.
  const entries = await readdir(directory, { withFileTypes: true }).catch(() => []);
  const sizes = entries.map(async entry => {
    const path = join(directory, entry.name);
    return entry.isDirectory()
      ? await usedBytes({ directory: path, except })
      : await lstat(path).then(
          ({ blocks }) => blocks * 512,
          () => 0,
        );
  });
  return (await Promise.all(sizes)).reduce((sum, bytes) => sum + bytes, 0);
}

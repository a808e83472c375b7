import { access, constants, stat } from 'node:fs/promises';
import { delimiter, join, resolve } from 'node:path';

/** The program of a name, in the directories of `PATH` or where its path says; @actions/io prints of those that it may not read. */
export async function findProgram(program: string): Promise<string | undefined> {
  const directories = (process.env.PATH ?? '').split(delimiter).filter(directory => directory !== '');
  const paths = program.includes('/') ? [program] : directories.map(directory => join(directory, program));
  for (const path of paths.map(one => resolve(one))) {
    try {
      await access(path, constants.X_OK);
      if ((await stat(path)).isFile()) return path;
    } catch {
      // Not there, or not for us: the next directory.
    }
  }
  return undefined;
}

import { rename, rm, writeFile } from 'node:fs/promises';
import { basename, dirname, join, resolve } from 'node:path';
import { directoryFault, makeDirectory, statOf } from '../directory.ts';
import { messageOf, SideloadError } from '../errors.ts';
import { type InputProblem, problem, shown } from '../problems.ts';
import { jsonText } from './document.ts';
import { dotenvText } from './dotenv.ts';
import { junitText } from './junit.ts';
import type { ReportDocument } from './report.ts';

/** Paths of files to write, by kind; what is absent is not written. */
export type ReportFiles = Readonly<Partial<Record<ReportKind, string>>>;

type ReportKind = 'json' | 'junit' | 'dotenv';

const WRITERS: Readonly<Record<ReportKind, (document: ReportDocument) => string>> = {
  json: jsonText,
  junit: junitText,
  dotenv: dotenvText,
};

export const REPORT_KINDS = Object.keys(WRITERS) as readonly ReportKind[];

/** What would keep the files from being written, as far as it can be seen without writing any. */
export function reportProblems(files: ReportFiles): readonly InputProblem[] {
  const entries = Object.entries(files).map(([kind, file]) => ({ input: `report-${kind}`, file, path: resolve(file) }));
  return entries.flatMap(({ input, file, path }, index) => {
    const other = entries.slice(0, index).find(one => one.path === path);
    if (other !== undefined) {
      return [problem(`\`${input}\` and \`${other.input}\` name the same file`, 'give each a file of its own')];
    }
    const fault = faultOf(path);
    return fault === undefined ? [] : [problem(`\`${input}\`: ${shown(file)} ${fault}`)];
  });
}

/** What would keep a file from being written there; directories that are missing will be made. */
export function faultOf(path: string): string | undefined {
  try {
    if (statOf(path)?.isDirectory() === true) {
      return 'is a directory';
    }
  } catch (thrown) {
    return `cannot be written (${(thrown as NodeJS.ErrnoException).code})`;
  }
  return directoryFault(dirname(path));
}

/**
 * Writes the files, each as a whole or not at all.
 * @throws SideloadError REPORT_FAILED naming every file that could not be written; the others are there.
 */
export async function writeReports(files: ReportFiles, document: ReportDocument): Promise<void> {
  const results = await Promise.allSettled(
    REPORT_KINDS.map(async kind => {
      const file = files[kind];
      if (file !== undefined) {
        await replace(resolve(file), WRITERS[kind](document)).catch((thrown: unknown) => {
          throw new Error(`${file}: ${messageOf(thrown)}`);
        });
      }
    }),
  );
  const faults = results.flatMap(result => (result.status === 'rejected' ? [messageOf(result.reason)] : []));
  if (faults.length > 0) {
    throw new SideloadError('REPORT_FAILED', faults.join('\n'));
  }
}

/** Readers find the old content or the new, never a part. */
async function replace(path: string, text: string): Promise<void> {
  await makeDirectory(dirname(path));
  const aside = join(dirname(path), `.${basename(path)}.${process.pid}.tmp`);
  try {
    await writeFile(aside, text);
    await rename(aside, path);
  } catch (thrown) {
    await rm(aside, { force: true });
    throw thrown;
  }
}

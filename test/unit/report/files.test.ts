import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { beforeEach, describe, expect, it, onTestFinished } from 'vitest';
import { reportDocument } from '../../../src/report/document.ts';
import { reportProblems, writeReports } from '../../../src/report/files.ts';
import { nodeReport, report } from './reports.ts';

const document = reportDocument(report([nodeReport('w1')]), undefined);
let directory: string;
const at = (...names: readonly string[]) => join(directory, ...names);

beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'kube-sideload-files-'));
  onTestFinished(() => rmSync(directory, { recursive: true }));
});

describe('what would keep a file from being written is found before anything is done', () => {
  it.each<[what: string, file: () => string, message: RegExp]>([
    ['a directory', () => directory, /`report-json`: ".*" is a directory/],
    ['a file where a directory is needed', () => at('file', 'deep', 'report.json'), /file is not a directory/],
  ])('%s', (_what, file, message) => {
    writeFileSync(at('file'), '');
    expect(reportProblems({ json: file() }).map(one => one.message)).toEqual([expect.stringMatching(message)]);
  });

  it('two reports in one file', () => {
    const problems = reportProblems({ json: at('a'), junit: `${directory}/./a` });
    expect(problems.map(one => one.message)).toEqual(['`report-junit` and `report-json` name the same file']);
  });

  it('and nothing is found, nor made, where all is well', () => {
    expect(reportProblems({ json: at('new', 'deep', 'report.json'), junit: at('junit.xml') })).toEqual([]);
    expect(reportProblems({})).toEqual([]);
    expect(readdirSync(directory)).toEqual([]);
  });
});

describe('writing', () => {
  it('makes directories, replaces what was there, and leaves nothing else', async () => {
    writeFileSync(at('report.env'), 'old');
    await writeReports({ json: at('new', 'deep', 'report.json'), dotenv: at('report.env') }, document);
    expect(JSON.parse(readFileSync(at('new', 'deep', 'report.json'), 'utf8'))).toMatchObject({ succeeded: true });
    expect(readFileSync(at('report.env'), 'utf8')).toContain('KUBE_SIDELOAD_SUCCEEDED=true\n');
    expect(readdirSync(directory, { recursive: true }).toSorted()).toEqual([
      'new',
      'new/deep',
      'new/deep/report.json',
      'report.env',
    ]);
  });

  it('names every file that cannot be written, and writes the others', async () => {
    mkdirSync(at('json'));
    mkdirSync(at('junit'));
    await expect(
      writeReports({ json: at('json'), junit: at('junit'), dotenv: at('report.env') }, document),
    ).rejects.toMatchObject({
      code: 'REPORT_FAILED',
      message: expect.stringMatching(/^\S+json: EISDIR.*\n\S+junit: EISDIR/),
    });
    expect(readdirSync(directory).toSorted()).toEqual(['json', 'junit', 'report.env']);
  });
});

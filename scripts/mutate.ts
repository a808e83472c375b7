/**
 * `npm run mutate`: turns off the checks of `test/mutants/mutants.ts` one at a time, and sees whether the tests notice.
 *
 * All happens in a copy of the checkout, whose `dist/` runs `src/` as it stands there: nothing is built for a mutant.
 * Every run of tests raises a lab of its own, so that none finds what an earlier mutant has left. Arguments are words of
 * mutants, or of their tests' files; without any, all are tried. `--list` tries none.
 */
import { execFile } from 'node:child_process';
import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, relative, resolve, sep } from 'node:path';
import { MUTANTS, type Mutant } from '../test/mutants/mutants.ts';

/** Longer than any of these tests takes by its own limits. */
const RUN_MS = 15 * 60_000;

type Tests = Mutant['by'];

interface Outcome {
  readonly passed: number;
  /** What failed, by name. */
  readonly failed: readonly string[];
  /** Why nothing was tested. */
  readonly fault: string | undefined;
}

const root = resolve(import.meta.dirname, '..');
const words = process.argv.slice(2).filter(word => word !== '--list');
const chosen = MUTANTS.filter(
  ({ without, by }) => words.length === 0 || words.some(word => without.includes(word) || by.file.includes(word)),
);

function copyOfCheckout(): string {
  const copy = mkdtempSync(join(tmpdir(), 'kube-sideload-mutants-'));
  const left = new Set(['.git', 'node_modules', 'dist', 'lib']);
  cpSync(root, copy, { recursive: true, filter: path => !left.has(relative(root, path).split(sep)[0] ?? '') });
  symlinkSync(join(root, 'node_modules'), join(copy, 'node_modules'));
  for (const entry of ['action', 'cli']) {
    const directory = join(copy, 'dist', entry);
    mkdirSync(directory, { recursive: true });
    writeFileSync(join(directory, 'package.json'), '{"type":"module"}\n');
    writeFileSync(join(directory, 'index.js'), `await import('../../src/${entry}.ts');\n`);
  }
  return copy;
}

interface Report {
  readonly testResults: readonly {
    readonly message: string;
    readonly assertionResults: readonly { readonly status: string; readonly fullName: string }[];
  }[];
}

/** Runs the tests with these names, in a lab that is raised for them. */
async function test(copy: string, { project, file, kinds }: Tests, names: readonly string[]): Promise<Outcome> {
  const report = join(copy, 'report.json');
  rmSync(report, { force: true });
  const pattern = names
    .flatMap(name => name.split('|'))
    .map(name => name.replaceAll(/[.*+?^${}()|[\]\\]/g, String.raw`\$&`))
    .join('|');
  const args = ['run', '--project', project, file, '-t', pattern, '--reporter=json', `--outputFile=${report}`];
  const env = {
    ...process.env,
    ...(kinds !== undefined && { LAB_KINDS: kinds }),
    CI: 'true',
    PATH: `${join(root, 'node_modules', '.bin')}:${process.env.PATH}`,
  };
  const said = await new Promise<string>(done => {
    execFile('vitest', args, { cwd: copy, env, timeout: RUN_MS, maxBuffer: 1 << 28 }, (_, stdout, stderr) =>
      done(`${stdout}${stderr}`),
    );
  });
  try {
    const { testResults } = JSON.parse(readFileSync(report, 'utf8')) as Report;
    const all = testResults.flatMap(({ assertionResults }) => assertionResults);
    const named = (status: string) => all.filter(one => one.status === status).map(({ fullName }) => fullName);
    const [passed, failed] = [named('passed').length, named('failed')];
    const fault = passed + failed.length > 0 ? undefined : `no test was run: ${testResults[0]?.message ?? ''}`;
    return { passed, failed, fault };
  } catch {
    return { passed: 0, failed: [], fault: said.slice(-2000) };
  }
}

/** What the tests of one file need in common. */
function keyOf({ project, file, kinds = '' }: Tests): string {
  return [project, file, kinds].join(' ');
}

const broken: string[] = [];
const survivors: string[] = [];
let noticed = 0;

function say(line: string): void {
  console.log(`${new Date().toISOString().slice(11, 19)} ${line}`);
}

/** Without a mutant all of the tests must pass: else they would prove nothing. */
async function provenTests(copy: string): Promise<ReadonlySet<string>> {
  const proven = new Set<string>();
  for (const key of new Set(chosen.map(({ by }) => keyOf(by)))) {
    const tests = chosen.map(({ by }) => by).filter(by => keyOf(by) === key);
    const [first] = tests;
    if (first === undefined) continue;
    const { passed, failed, fault } = await test(copy, first, [...new Set(tests.map(({ name }) => name))]);
    if (fault === undefined && failed.length === 0) proven.add(key);
    else broken.push(`${key}: ${fault ?? failed.join(', ')}`);
    say(`as it is: ${key}: ${passed} passed, ${failed.length} failed`);
  }
  return proven;
}

async function tryMutant(copy: string, { without, file, text, replacement, by }: Mutant): Promise<void> {
  const path = join(copy, file);
  const source = readFileSync(path, 'utf8');
  if (source.split(text).length !== 2) {
    broken.push(`without ${without}: ${file} does not have it once: ${text}`);
    return;
  }
  writeFileSync(
    path,
    source.replace(text, () => replacement),
  );
  const { failed, fault } = await test(copy, by, [by.name]).finally(() => writeFileSync(path, source));
  if (fault !== undefined) broken.push(`without ${without}: ${fault}`);
  else if (failed.length === 0) survivors.push(`without ${without} (${file}) nothing fails in ${by.file}: ${by.name}`);
  else noticed += 1;
  say(`without ${without}: ${fault === undefined ? (failed[0] ?? 'NOTHING FAILS') : 'not tested'}`);
}

if (process.argv.includes('--list')) {
  for (const { without, file, by } of chosen) console.log(`without ${without} (${file}): ${by.file}: ${by.name}`);
} else {
  const copy = copyOfCheckout();
  try {
    const proven = await provenTests(copy);
    for (const mutant of chosen) {
      if (proven.has(keyOf(mutant.by))) await tryMutant(copy, mutant);
      else broken.push(`without ${mutant.without}: its tests fail as it is`);
    }
  } finally {
    rmSync(copy, { recursive: true, force: true });
  }
  for (const line of [...broken, ...survivors]) console.log(`- ${line}`);
  console.log(`${noticed} of ${chosen.length} noticed, ${survivors.length} survived, ${broken.length} faults`);
  process.exitCode = survivors.length + broken.length === 0 ? 0 : 1;
}

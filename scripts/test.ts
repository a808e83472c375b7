/**
 * `npm test`: the checks, then every suite by its name, and one line with the sum.
 *
 * A suite that this machine cannot run is printed with the reason; with `CI=true` that is a failure.
 * Arguments are names of suites or `checks`; without any, all run.
 */
import { spawn } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, join, relative, resolve } from 'node:path';

interface Suite {
  readonly name: string;
  readonly about: string;
  /** Whether it raises a lab. */
  readonly needsLab: boolean;
}

const SUITES: readonly Suite[] = [
  { name: 'unit', about: 'pure functions, archives, recorded API objects', needsLab: false },
  { name: 'ssh', about: 'an SSH server that misbehaves', needsLab: false },
  { name: 'bundle', about: 'dist/ as shipped: on Node 20, 22 and 24, with bad input', needsLab: false },
  { name: 'lab', about: 'the lab itself', needsLab: true },
  { name: 'sources', about: 'images and archives of real producers, without a node', needsLab: true },
  { name: 'node', about: 'dist/ against real sshd and real containerd', needsLab: true },
  {
    name: 'runtimes',
    about: 'dist/ against containerd 1.6, 1.7 and 2, CRI-O, Docker, and emulated layouts',
    needsLab: true,
  },
  { name: 'cluster', about: 'dist/ against a real Kubernetes', needsLab: true },
  { name: 'hostile', about: 'dist/ against nodes, images, archives and neighbours that mean harm', needsLab: true },
  { name: 'faults', about: 'what can break while dist/ is at work, on nodes of each runtime', needsLab: true },
  { name: 'pipelines', about: 'the pipelines of the documentation, on real nodes', needsLab: true },
];

const CHECKS: Readonly<Record<string, readonly string[]>> = {
  types: ['tsc', '-p', 'tsconfig.json'],
  style: ['biome', 'ci', '.'],
  'unused code': ['knip'],
  'generated files': ['node', 'scripts/generate.ts', '--check'],
  'bundle is built from src': ['node', 'scripts/check-dist.ts'],
};

const root = resolve(import.meta.dirname, '..');
const wanted = process.argv.slice(2);
const isWanted = (name: string) => wanted.length === 0 || wanted.includes(name);
const isCi = process.env.CI === 'true';
const lacking = missing();
const sum = { passed: 0, failed: 0, skipped: 0 };
const lines: string[] = [];
/** Said once more at the end, where a log that was cut still has them. */
const failures: string[] = [];

function missing(): string | undefined {
  if (process.platform !== 'linux') {
    return `real nodes need Linux, this is ${process.platform}`;
  }
  return process.getuid?.() === 0 ? undefined : 'real nodes need root (namespaces, mounts)';
}

function run(argv: readonly string[]): Promise<number> {
  const [program = '', ...args] = argv;
  return new Promise((resolveCode, reject) => {
    const child = spawn(program, args, {
      cwd: root,
      stdio: ['ignore', 'inherit', 'inherit'],
      env: { ...process.env, PATH: `${join(root, 'node_modules', '.bin')}:${process.env.PATH}` },
    });
    child.on('error', reject);
    child.on('close', code => resolveCode(code ?? 1));
  });
}

function record(name: string, result: { passed: number; failed: number; skipped: number }, note = ''): void {
  sum.passed += result.passed;
  sum.failed += result.failed;
  sum.skipped += result.skipped;
  lines.push(`${name}: ${result.passed} passed, ${result.failed} failed, ${result.skipped} skipped${note}`);
}

if (isWanted('checks')) {
  for (const [name, argv] of Object.entries(CHECKS)) {
    console.log(`\n== check: ${name}`);
    const code = await run(argv);
    record(`check: ${name}`, { passed: code === 0 ? 1 : 0, failed: code === 0 ? 0 : 1, skipped: 0 });
  }
}

const reports = mkdtempSync(join(tmpdir(), 'kube-sideload-test-'));
for (const suite of SUITES.filter(({ name }) => isWanted(name))) {
  console.log(`\n== suite: ${suite.name} (${suite.about})`);
  if (suite.needsLab && lacking !== undefined) {
    console.log(`skipped: ${lacking}`);
    record(`suite ${suite.name}`, { passed: 0, failed: isCi ? 1 : 0, skipped: isCi ? 0 : 1 }, ` (skipped: ${lacking})`);
    continue;
  }
  const file = join(reports, `${suite.name}.json`);
  const code = await run([
    'vitest',
    'run',
    '--project',
    suite.name,
    '--reporter=default',
    '--reporter=json',
    `--outputFile.json=${file}`,
  ]);
  const result = readResult(file);
  failures.push(...result.failures);
  // A run that ends badly without a failed test (a broken setup, say) is a failure of its own.
  const failed = result.failed === 0 && (code !== 0 || result.passed === 0) ? 1 : result.failed;
  const skipped = isCi ? 0 : result.skipped;
  record(`suite ${suite.name}`, { passed: result.passed, failed: failed + (isCi ? result.skipped : 0), skipped });
}
rmSync(reports, { recursive: true, force: true });

/** What vitest's JSON reporter writes, as far as it is read here. */
interface Report {
  readonly numPassedTests: number;
  readonly numFailedTests: number;
  readonly numPendingTests: number;
  readonly numTodoTests: number;
  readonly testResults: readonly {
    readonly name: string;
    readonly message: string;
    readonly assertionResults: readonly { status: string; fullName: string; failureMessages: readonly string[] }[];
  }[];
}

function readResult(file: string): { passed: number; failed: number; skipped: number; failures: string[] } {
  let report: Report;
  try {
    report = JSON.parse(readFileSync(file, 'utf8'));
  } catch {
    return { passed: 0, failed: 0, skipped: 0, failures: [`no report of ${basename(file, '.json')}`] };
  }
  return {
    passed: report.numPassedTests,
    failed: report.numFailedTests,
    skipped: report.numPendingTests + report.numTodoTests,
    failures: report.testResults.flatMap(({ name, message, assertionResults }) => [
      ...(message === '' ? [] : [`${relative(root, name)}: ${shortened(message)}`]),
      ...assertionResults
        .filter(({ status }) => status === 'failed')
        .map(test => `${relative(root, name)}: ${test.fullName}\n    ${shortened(test.failureMessages.join('\n'))}`),
    ]),
  };
}

function shortened(message: string): string {
  return message.split('\n').slice(0, 12).join('\n    ').slice(0, 1500);
}

if (failures.length > 0) {
  console.log(`\nfailed:\n- ${failures.join('\n- ')}`);
}
console.log(`\n${lines.join('\n')}`);
console.log(`${sum.passed} passed, ${sum.failed} failed${sum.skipped > 0 ? `, ${sum.skipped} skipped` : ''}`);
process.exit(sum.failed === 0 ? 0 : 1);

/**
 * `npm test`: the checks, then every suite by its name, the slowest tests, and one line with the sum.
 *
 * Suites mostly wait, for nodes and pods: two run side by side, each with a lab of its own, and what one has printed is shown
 * when it ends. A suite that this machine cannot run is printed with the reason; with `CI=true` that is a failure.
 * Arguments are names of suites or `checks`; without any, all run.
 */
import { spawn } from 'node:child_process';
import { closeSync, mkdtempSync, openSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, join, relative, resolve } from 'node:path';

interface Suite {
  readonly name: string;
  readonly about: string;
  /** Whether it raises a lab. */
  readonly needsLab: boolean;
}

/** The longest first, so that none of these runs alone in the end. */
const SUITES: readonly Suite[] = [
  {
    name: 'runtimes',
    about: 'dist/ against containerd 1.6, 1.7 and 2, CRI-O, Docker, and emulated layouts',
    needsLab: true,
  },
  { name: 'faults', about: 'what can break while dist/ is at work, on nodes of each runtime', needsLab: true },
  { name: 'cluster', about: 'dist/ against a real Kubernetes', needsLab: true },
  { name: 'pipelines', about: 'the pipelines of the documentation, on real nodes', needsLab: true },
  { name: 'node', about: 'dist/ against real sshd and real containerd', needsLab: true },
  { name: 'hostile', about: 'dist/ against nodes, images, archives and neighbours that mean harm', needsLab: true },
  { name: 'sources', about: 'images and archives of real producers, without a node', needsLab: true },
  { name: 'bundle', about: 'dist/ as shipped: on Node 20, 22, 24 and 26, with bad input', needsLab: false },
  { name: 'lab', about: 'the lab itself', needsLab: true },
  { name: 'unit', about: 'pure functions, archives, recorded API objects', needsLab: false },
  { name: 'ssh', about: 'an SSH server that misbehaves', needsLab: false },
];

const CHECKS: Readonly<Record<string, readonly string[]>> = {
  types: ['tsc', '-p', 'tsconfig.json'],
  style: ['biome', 'ci', '.'],
  'unused code': ['knip'],
  'generated files': ['node', 'scripts/generate.ts', '--check'],
  'bundle is built from src': ['node', 'scripts/check-dist.ts'],
};

/** How many suites run at a time. */
const SIDE_BY_SIDE = 2;
const SLOWEST = 20;

interface Duration {
  readonly test: string;
  readonly durationMs: number;
}

const root = resolve(import.meta.dirname, '..');
const wanted = process.argv.slice(2);
const isWanted = (name: string) => wanted.length === 0 || wanted.includes(name);
const isCi = process.env.CI === 'true';
const lacking = missing();
const sum = { passed: 0, failed: 0, skipped: 0 };
const lines: string[] = [];
/** Said once more at the end, where a log that was cut still has them. */
const failures: string[] = [];
const durations: Duration[] = [];

function missing(): string | undefined {
  if (process.platform !== 'linux') {
    return `real nodes need Linux, this is ${process.platform}`;
  }
  return process.getuid?.() === 0 ? undefined : 'real nodes need root (namespaces, mounts)';
}

/** @param log a file for what it prints, in place of our own output */
function run(argv: readonly string[], log?: string): Promise<number> {
  const [program = '', ...args] = argv;
  const output = log === undefined ? 'inherit' : openSync(log, 'w');
  return new Promise<number>((resolveCode, reject) => {
    const child = spawn(program, args, {
      cwd: root,
      stdio: ['ignore', output, output],
      env: { ...process.env, PATH: `${join(root, 'node_modules', '.bin')}:${process.env.PATH}` },
    });
    child.on('error', reject);
    child.on('close', code => resolveCode(code ?? 1));
  }).finally(() => {
    if (typeof output === 'number') closeSync(output);
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
const suites = SUITES.filter(({ name }) => isWanted(name));
const waiting = suites.values();
await Promise.all(
  Array.from({ length: SIDE_BY_SIDE }, async () => {
    for (const suite of waiting) await runSuite(suite);
  }),
);
rmSync(reports, { recursive: true, force: true });

async function runSuite({ name, about, needsLab }: Suite): Promise<void> {
  const heading = `\n== suite: ${name} (${about})`;
  if (needsLab && lacking !== undefined) {
    console.log(`${heading}\nskipped: ${lacking}`);
    record(`suite ${name}`, { passed: 0, failed: isCi ? 1 : 0, skipped: isCi ? 0 : 1 }, ` (skipped: ${lacking})`);
    return;
  }
  const file = join(reports, `${name}.json`);
  const log = suites.length > 1 ? join(reports, `${name}.log`) : undefined;
  console.log(log === undefined ? heading : `suite ${name} begins`);
  const startedAtMs = Date.now();
  const code = await run(
    ['vitest', 'run', '--project', name, '--reporter=default', '--reporter=json', `--outputFile.json=${file}`],
    log,
  );
  if (log !== undefined) console.log(`${heading}\n${readFileSync(log, 'utf8')}`);
  const result = readResult(file);
  failures.push(...result.failures);
  durations.push(...result.durations);
  // A run that ends badly without a failed test (a broken setup, say) is a failure of its own.
  const failed = result.failed === 0 && (code !== 0 || result.passed === 0) ? 1 : result.failed;
  const skipped = isCi ? 0 : result.skipped;
  record(
    `suite ${name}`,
    { passed: result.passed, failed: failed + (isCi ? result.skipped : 0), skipped },
    ` in ${formatMinutes(Date.now() - startedAtMs)}`,
  );
}

/** What vitest's JSON reporter writes, as far as it is read here. */
interface Report {
  readonly numPassedTests: number;
  readonly numFailedTests: number;
  readonly numPendingTests: number;
  readonly numTodoTests: number;
  readonly testResults: readonly {
    readonly name: string;
    readonly message: string;
    readonly assertionResults: readonly {
      status: string;
      fullName: string;
      duration?: number | null;
      failureMessages: readonly string[];
    }[];
  }[];
}

interface Result {
  readonly passed: number;
  readonly failed: number;
  readonly skipped: number;
  readonly failures: readonly string[];
  readonly durations: readonly Duration[];
}

function readResult(file: string): Result {
  let report: Report;
  try {
    report = JSON.parse(readFileSync(file, 'utf8'));
  } catch {
    return { passed: 0, failed: 0, skipped: 0, failures: [`no report of ${basename(file, '.json')}`], durations: [] };
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
    durations: report.testResults.flatMap(({ name, assertionResults }) =>
      assertionResults.map(({ fullName, duration }) => ({
        test: `${relative(root, name)}: ${fullName}`,
        durationMs: duration ?? 0,
      })),
    ),
  };
}

function shortened(message: string): string {
  return message.split('\n').slice(0, 12).join('\n    ').slice(0, 1500);
}

if (failures.length > 0) {
  console.log(`\nfailed:\n- ${failures.join('\n- ')}`);
}
function formatMinutes(durationMs: number): string {
  return `${(durationMs / 60_000).toFixed(1)} min`;
}

const slowest = durations.toSorted((one, other) => other.durationMs - one.durationMs).slice(0, SLOWEST);
if (slowest.length > 0) {
  const told = slowest.map(({ test, durationMs }) => `${(durationMs / 1000).toFixed(1).padStart(6)} s  ${test}`);
  console.log(`\nslowest:\n${told.join('\n')}`);
}
console.log(`\n${lines.join('\n')}`);
console.log(`all of it in ${formatMinutes(performance.now())}`);
console.log(`${sum.passed} passed, ${sum.failed} failed${sum.skipped > 0 ? `, ${sum.skipped} skipped` : ''}`);
process.exit(sum.failed === 0 ? 0 : 1);

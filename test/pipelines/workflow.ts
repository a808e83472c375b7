import { spawnSync } from 'node:child_process';
import { copyFileSync, mkdirSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { data, Evaluator, Lexer, Parser } from '@actions/expressions';
import { parse } from 'yaml';
import type { Lab } from '../lab/index.ts';
import { type ActionOutcome, type Inputs, runAction, runPost } from '../shipped.ts';
import { root } from './documents.ts';

interface Step {
  readonly id?: string;
  readonly name?: string;
  readonly if?: string;
  readonly run?: string;
  readonly uses?: string;
  readonly with?: Readonly<Record<string, unknown>>;
  readonly env?: Readonly<Record<string, unknown>>;
}

interface Job {
  readonly needs?: string;
  readonly uses?: string;
  readonly with?: Readonly<Record<string, unknown>>;
  readonly secrets?: 'inherit' | Readonly<Record<string, unknown>>;
  readonly strategy?: { readonly matrix: Readonly<Record<string, unknown>> };
  readonly outputs?: Readonly<Record<string, string>>;
  readonly steps?: readonly Step[];
}

interface Call {
  readonly inputs: Readonly<
    Record<string, { readonly type: string; readonly default?: unknown; readonly options?: readonly string[] }>
  >;
  readonly secrets: Readonly<Record<string, unknown>>;
  readonly outputs: Readonly<Record<string, { readonly value: string }>>;
}

export interface Workflow {
  readonly on: unknown;
  readonly jobs: Readonly<Record<string, Job>>;
}

export interface Runner {
  readonly lab: Lab;
  /** The checkout, where `run` steps run. */
  readonly workspace: string;
  readonly secrets: Readonly<Record<string, string>>;
  readonly vars?: Readonly<Record<string, string>>;
  /** Files of the machine that an example names, by their paths there. */
  readonly files?: Readonly<Record<string, string>>;
  /** What this runner sets or lacks besides. */
  readonly env?: Readonly<Record<string, string | undefined>>;
}

/** What came of a job: each step that ran this project's action, and the outputs of the job. */
export interface JobOutcome {
  readonly job: string;
  readonly mains: readonly ActionOutcome[];
  readonly posts: readonly ActionOutcome[];
  readonly ran: readonly string[];
  readonly outputs: Readonly<Record<string, string>>;
}

type Contexts = Readonly<Record<string, unknown>>;

/**
 * Runs the jobs of a workflow as GitHub's runner would, one after the other: expressions by GitHub's own evaluator, `run`
 * by bash, this project's action by `dist/` (main, then post at the end of the job), its reusable workflow from
 * the file here. Artifacts are a directory. Other actions are not run: `actions/checkout` has nothing to do, others are
 * an error.
 * @throws when a `run` step fails
 */
export async function runWorkflow(text: string, runner: Runner): Promise<readonly JobOutcome[]> {
  const workflow = parse(text) as Workflow;
  const artifacts = mkdtempSync(join(tmpdir(), 'kube-sideload-artifacts-'));
  try {
    const outcomes: JobOutcome[] = [];
    for (const [name, job] of Object.entries(workflow.jobs)) {
      const contexts = { secrets: runner.secrets, vars: runner.vars ?? {}, github: { event_name: 'push' } };
      outcomes.push(...(await runJob(name, job, contexts, runner, artifacts)));
    }
    return outcomes;
  } finally {
    rmSync(artifacts, { recursive: true, force: true });
  }
}

async function runJob(
  name: string,
  job: Job,
  contexts: Contexts,
  runner: Runner,
  artifacts: string,
): Promise<readonly JobOutcome[]> {
  if (job.uses !== undefined) {
    return await runCalled(job, contexts, runner, artifacts);
  }
  const outcomes: JobOutcome[] = [];
  for (const matrix of combinations(job, contexts)) {
    outcomes.push(await runSteps(name, job, { ...contexts, matrix }, runner, artifacts));
  }
  return outcomes;
}

/** A job that calls the reusable workflow: only what that declares gets in. */
async function runCalled(
  job: Job,
  contexts: Contexts,
  runner: Runner,
  artifacts: string,
): Promise<readonly JobOutcome[]> {
  const [, file] = /^kube-sideload\/kube-sideload\/(\.github\/workflows\/[\w.-]+)@/.exec(job.uses ?? '') ?? [];
  if (file === undefined) {
    throw new Error(`the workflow ${job.uses} is not of this project`);
  }
  const called = parse(readFileSync(join(root, file), 'utf8')) as Workflow & { on: { workflow_call: Call } };
  const { inputs: declared, secrets: known } = called.on.workflow_call;
  const given = evaluateAll(job.with ?? {}, contexts);
  for (const [input, value] of Object.entries(given)) {
    const type = declared[input]?.type;
    if (typeof value !== type) {
      throw new Error(`the input ${input} is of type ${type}, not ${typeof value}`);
    }
  }
  const inputs = Object.fromEntries(
    Object.entries(declared).map(([input, { type, default: preset }]) => [
      input,
      given[input] ?? preset ?? { string: '', number: 0, boolean: false }[type],
    ]),
  );
  const passed: Contexts = job.secrets === 'inherit' ? runner.secrets : evaluateAll(job.secrets ?? {}, contexts);
  for (const secret of job.secrets === 'inherit' ? [] : Object.keys(passed)) {
    if (!Object.hasOwn(known, secret)) {
      throw new Error(`the workflow has no secret ${secret}`);
    }
  }
  const outcomes: JobOutcome[] = [];
  for (const [name, inner] of Object.entries(called.jobs)) {
    outcomes.push(...(await runJob(name, inner, { ...contexts, inputs, secrets: passed }, runner, artifacts)));
  }
  return outcomes;
}

function combinations(job: Job, contexts: Contexts): readonly Contexts[] {
  const matrix = evaluateAll(job.strategy?.matrix ?? {}, contexts);
  return Object.entries(matrix).reduce<readonly Contexts[]>(
    (all, [key, values]) => all.flatMap(one => (values as readonly unknown[]).map(value => ({ ...one, [key]: value }))),
    [{}],
  );
}

async function runSteps(
  name: string,
  job: Job,
  contexts: Contexts,
  { lab, workspace, files = {}, env = {} }: Runner,
  artifacts: string,
): Promise<JobOutcome> {
  const temporary = mkdtempSync(join(tmpdir(), 'kube-sideload-runner-'));
  const steps: Record<string, { readonly outputs: Contexts }> = {};
  const mains: ActionOutcome[] = [];
  const posts: (() => Promise<ActionOutcome>)[] = [];
  const ran: string[] = [];
  try {
    for (const step of job.steps ?? []) {
      const inside: Contexts = { ...contexts, steps, runner: { temp: temporary } };
      if (step.if !== undefined && evaluateExpression(step.if, inside) !== true) {
        continue;
      }
      const given = evaluateAll(step.with ?? {}, inside);
      const uses = step.uses?.replace(/^https:\/\/[\w.]+\//, '').replace(/@.*/, '');
      if (step.run !== undefined) {
        const command = String(evaluate(step.run, inside));
        runCommand(command, evaluateAll(step.env ?? {}, inside), lab, workspace);
        ran.push(command);
      } else if (uses === 'actions/upload-artifact') {
        const target = join(artifacts, String(given.name));
        mkdirSync(target);
        copyFileSync(join(workspace, String(given.path)), join(target, String(given.path)));
      } else if (uses === 'actions/download-artifact') {
        const done = spawnSync('cp', ['-a', join(artifacts, String(given.name)), String(given.path)]);
        if (done.status !== 0) throw new Error(`no artifact: ${done.stderr}`);
      } else if (uses === 'kube-sideload/kube-sideload') {
        const inputs = Object.fromEntries(
          Object.entries(given).map(([input, value]) => [input, files[String(value)] ?? String(value)]),
        ) as Inputs;
        const main = await runAction(inputs, { lab, env });
        mains.push(main);
        posts.unshift(() => runPost(main, inputs, { lab, env }));
        steps[step.id ?? ''] = { outputs: main.outputs };
      } else if (uses !== 'actions/checkout') {
        throw new Error(`nobody runs ${step.uses} here`);
      }
    }
    const ended: ActionOutcome[] = [];
    for (const post of posts) {
      ended.push(await post());
    }
    const outputs = evaluateAll(job.outputs ?? {}, { ...contexts, steps }) as Record<string, string>;
    return { job: name, mains, posts: ended, ran, outputs };
  } finally {
    rmSync(temporary, { recursive: true, force: true });
  }
}

function runCommand(command: string, env: Contexts, lab: Lab, cwd: string): void {
  const texts = Object.fromEntries(Object.entries(env).map(([name, value]) => [name, String(value)]));
  const done = spawnSync('bash', ['-e', '-c', command], {
    cwd,
    encoding: 'utf8',
    env: { ...process.env, ...texts, PATH: `${lab.bin}:${process.env.PATH}` },
  });
  if (done.status !== 0) {
    throw new Error(`\`${command}\` ended with ${done.status}: ${done.stdout}${done.stderr}`);
  }
}

function evaluateAll(values: Contexts, contexts: Contexts): Contexts {
  return Object.fromEntries(Object.entries(values).map(([key, value]) => [key, evaluate(value, contexts)]));
}

/** A value of a workflow file: what is only an expression keeps its type, in a text it becomes text. */
export function evaluate(value: unknown, contexts: Contexts): unknown {
  if (typeof value !== 'string') {
    return value;
  }
  const whole = /^\$\{\{((?:(?!\}\}).)*)\}\}$/s.exec(value.trim());
  if (whole !== null) {
    return evaluateExpression(whole[1] ?? '', contexts);
  }
  return value.replaceAll(/\$\{\{(.*?)\}\}/gs, (_, expression: string) => {
    const result = evaluateExpression(expression, contexts);
    return result === null ? '' : String(result);
  });
}

function evaluateExpression(expression: string, contexts: Contexts): unknown {
  const { tokens } = new Lexer(expression).lex();
  const tree = new Parser(tokens, Object.keys(contexts), []).parse();
  const known = JSON.parse(JSON.stringify(contexts), data.reviver) as data.Dictionary;
  return JSON.parse(JSON.stringify(new Evaluator(tree, known).evaluate(), data.replacer));
}

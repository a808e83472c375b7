import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type ActionOutcome, type Inputs, type Options, runAction, runPost } from '../shipped.ts';
import { KEYS } from '../ssh/server.ts';
import { expectRefusal, unreachable } from './refusal.ts';

interface Contract {
  readonly name: string;
  readonly options: Options;
  /** The runner gives files for outputs and state; without them they are commands in the log. */
  readonly hasFiles: boolean;
  readonly hasSummary: boolean;
  /** Errors are commands that become annotations; elsewhere they are lines that anybody can read. */
  readonly hasAnnotations: boolean;
  /** Groups and masks are commands. */
  readonly hasCommands: boolean;
  /** What the record says of the job. */
  readonly ci: object | undefined;
}

const NO_FILES = { GITHUB_OUTPUT: undefined, GITHUB_STATE: undefined, GITHUB_STEP_SUMMARY: undefined };
const JOB = { GITHUB_REPOSITORY: 'team/app', GITHUB_RUN_ID: '42', GITHUB_SHA: 'c0ffee', GITHUB_REF_NAME: 'main' };
/** `node` from PATH, no home, no summary; the rest as on GitHub. */
const giteaEnv = (own: Readonly<Record<string, string>>) => ({
  ...JOB,
  ...own,
  GITHUB_SERVER_URL: 'https://git.example',
  GITHUB_STEP_SUMMARY: undefined,
  PATH: dirname(process.execPath),
});

const CONTRACTS: readonly Contract[] = [
  {
    name: 'GitHub',
    options: { env: { ...JOB, GITHUB_SERVER_URL: 'https://github.com' } },
    hasFiles: true,
    hasSummary: true,
    hasAnnotations: true,
    hasCommands: true,
    ci: { system: 'github', commit: 'c0ffee', runUrl: 'https://github.com/team/app/actions/runs/42' },
  },
  {
    name: 'GitHub Enterprise Server with a runner that has no summaries',
    options: { env: { ...JOB, GITHUB_SERVER_URL: 'https://ghes.example', GITHUB_STEP_SUMMARY: undefined } },
    hasFiles: true,
    hasSummary: false,
    hasAnnotations: true,
    hasCommands: true,
    ci: { system: 'github', runUrl: 'https://ghes.example/team/app/actions/runs/42' },
  },
  {
    name: 'GitHub Enterprise Server with a runner that knows no files',
    options: { env: { ...JOB, ...NO_FILES, GITHUB_SERVER_URL: 'https://ghes.example' } },
    hasFiles: false,
    hasSummary: false,
    hasAnnotations: true,
    hasCommands: true,
    ci: { system: 'github' },
  },
  {
    name: 'Gitea',
    options: { node: 'node', isBare: true, env: giteaEnv({ GITEA_ACTIONS: 'true' }) },
    hasFiles: true,
    hasSummary: false,
    hasAnnotations: false,
    hasCommands: true,
    ci: { system: 'gitea', commit: 'c0ffee', run: '42' },
  },
  {
    name: 'Forgejo',
    options: { node: 'node', isBare: true, env: giteaEnv({ FORGEJO_ACTIONS: 'true' }) },
    hasFiles: true,
    hasSummary: false,
    hasAnnotations: false,
    hasCommands: true,
    ci: { system: 'gitea' },
  },
  {
    name: 'nothing at all in the environment but inputs',
    options: {
      isBare: true,
      env: { ...NO_FILES, GITHUB_ACTIONS: undefined, RUNNER_TEMP: undefined },
    },
    hasFiles: false,
    hasSummary: false,
    hasAnnotations: false,
    hasCommands: false,
    ci: undefined,
  },
];

let directory: string;
/** With an image that can be read, and a node that cannot be reached. */
let inputs: Inputs;

beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), 'kube-sideload-contracts-'));
  inputs = {
    ...(await unreachable(directory)),
    'report-json': join(directory, 'report.json'),
    'report-junit': join(directory, 'report.xml'),
    'report-dotenv': join(directory, 'report.env'),
  };
});

afterAll(() => rm(directory, { recursive: true, force: true }));

function linesOf({ stdout }: ActionOutcome, command: string): readonly string[] {
  return stdout.split('\n').filter(line => line.startsWith(`::${command}`));
}

/** State and outputs wherever the contract has them. */
function said(outcome: ActionOutcome, { hasFiles }: Contract): Pick<ActionOutcome, 'state' | 'outputs'> {
  if (hasFiles) return outcome;
  const of = (command: string) =>
    Object.fromEntries(
      linesOf(outcome, command).map(line => /^::[\w-]+ name=([\w-]+)::(.*)$/.exec(line)?.slice(1) ?? []),
    );
  return { state: of('save-state'), outputs: of('set-output') };
}

describe.each(CONTRACTS)('under the contract of $name', contract => {
  const { options, hasFiles, hasSummary, hasAnnotations, hasCommands, ci } = contract;
  const main = (texts: Inputs) => runAction(texts, options);
  const post = (outcome: ActionOutcome, texts: Inputs) =>
    runPost({ ...outcome, ...said(outcome, contract) }, texts, options);

  it('a failed run tells everything: log, outputs, files, and what the post step needs', async () => {
    const outcome = await main(inputs);
    expectRefusal(outcome, 'SSH_UNREACHABLE', /w1: The node cannot be reached|w1%3A The node cannot be reached/);
    const { outputs, state } = said(outcome, contract);
    expect(outputs).toMatchObject({ images: '', 'image-ids': '{}', changed: 'false', 'bytes-sent': '0' });
    expect(JSON.parse(outputs.nodes ?? '')).toMatchObject([{ node: 'w1', error: { code: 'SSH_UNREACHABLE' } }]);
    expect(state).toMatchObject({ started: 'true', finished: 'true', run: expect.stringMatching(/^\w{12,13}$/) });
    expect(outcome.stdout).toMatch(/\nw1 +.*SSH_UNREACHABLE/);
    expect(outcome.stdout).toContain('\n1 of 1 nodes failed: w1 [SSH_UNREACHABLE]\n');
    expect(outcome.stderr).toBe('');
    const document = JSON.parse(await readFile(join(directory, 'report.json'), 'utf8'));
    expect(document).toMatchObject({ succeeded: false, run: state.run, nodes: [{ node: 'w1' }] });
    if (ci === undefined) expect(document).not.toHaveProperty('ci');
    else expect(document.ci).toMatchObject(ci);
    expect(await readFile(join(directory, 'report.xml'), 'utf8')).toContain('type="SSH_UNREACHABLE"');
    expect(await readFile(join(directory, 'report.env'), 'utf8')).toContain('KUBE_SIDELOAD_SUCCEEDED=false\n');
    expect(await post(outcome, inputs)).toMatchObject({ code: 0, log: '', outputs: {}, leftOnRunner: [] });
  });

  it('its log can be read as it is', async () => {
    const outcome = await main(inputs);
    const plain = outcome.stdout
      .split('\n')
      .filter(line => !/^::(?:add-mask|save-state|set-output|\w*group)/.test(line));
    if (hasAnnotations) {
      expect(linesOf(outcome, 'error')).toHaveLength(1);
    } else {
      expect(plain.filter(line => /^::|%0A|%3A/.test(line))).toEqual([]);
      const error = plain.indexOf('error: w1: The node cannot be reached over SSH');
      expect(error).toBeGreaterThan(0);
      expect(plain.slice(error + 1).join('\n')).toMatch(/ECONNREFUSED.*\nNext step: .* \[SSH_UNREACHABLE\]/);
    }
    expect(linesOf(outcome, 'group').length > 0).toBe(hasCommands);
    // Runners without annotations have a group of their own open, which is ended first.
    const ended = linesOf(outcome, 'endgroup').length - (hasCommands && !hasAnnotations ? 1 : 0);
    expect(linesOf(outcome, 'group')).toHaveLength(ended);
    if (!hasCommands) expect(plain).toContain('Open the images and connect to the nodes');
    if (!hasFiles) expect(outcome.outputs).toEqual({});
  });

  it('the key is masked, each line by itself, or is not there at all', async () => {
    const outcome = await main({ ...inputs, nodes: '' });
    const lines = KEYS.user.privateKey.split('\n').filter(line => line !== '');
    expect(linesOf(outcome, 'add-mask')).toEqual(hasCommands ? lines.map(line => `::add-mask::${line}`) : []);
    const shown = outcome.log.replaceAll(/^::add-mask::.*$/gm, '');
    for (const line of lines.slice(1, -1)) expect(shown).not.toContain(line);
  });

  it('wrong inputs give one error, no output, a record, and a post step that does nothing', async () => {
    const wrong = { ...inputs, nodes: '' };
    const outcome = await main(wrong);
    expectRefusal(outcome, 'INPUT_INVALID', /`nodes` is empty(?:\n|%0A)Next step: list the nodes/);
    expect(said(outcome, contract).outputs).toEqual({});
    expect(outcome.summary).toBe('');
    expect(outcome.stdout).toMatch(/\nAn input is wrong \[INPUT_INVALID\]\n$/);
    const document = JSON.parse(await readFile(join(directory, 'report.json'), 'utf8'));
    expect(document).toMatchObject({ succeeded: false, nodes: [], error: { code: 'INPUT_INVALID' } });
    expect(document).not.toHaveProperty('run');
    expect(await post(outcome, wrong)).toMatchObject({ code: 0, log: '', outputs: {}, leftOnRunner: [] });
  });

  it('no inputs at all give one error', async () => {
    const outcome = await main({});
    expectRefusal(outcome, 'INPUT_INVALID', /problems with the inputs/);
    expect(outcome.log).toContain('`images` is empty');
    expect(outcome.log).toContain('`nodes` is empty');
  });

  it('a run that was killed is cleaned up by the post step, which never fails the job', async () => {
    const scratch = await mkdtemp(join(directory, 'kube-sideload-killed-'));
    const outcome = await main({ ...inputs, nodes: '' });
    const killed = { ...outcome, state: { started: 'true', run: 't4y1q2abcdef', scratch } };
    const ended = await runPost(killed, inputs, options);
    expect(ended).toMatchObject({ code: 0, leftOnRunner: [] });
    expect(ended.log).toMatch(hasAnnotations ? /^::warning::.*w1/m : /^warning: .*w1/m);
    await expect(readFile(join(scratch, 'x'))).rejects.toThrow('ENOENT');
  });

  it(`${hasSummary ? 'the page of the job has the record' : 'nobody misses a page'}`, async () => {
    const { summary } = await main(inputs);
    expect(summary).toMatch(hasSummary ? /^## kube-sideload: failed\n[\s\S]*\*\*Next step:\*\*/ : /^$/);
  });
});

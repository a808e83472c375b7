import { execFile } from 'node:child_process';
import { copyFile, mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { MODES, SHELLS } from '../../src/commands.ts';
import { INPUT_NAMES, inputSpec } from '../../src/inputs.ts';
import { VERSION } from '../../src/version.ts';
import { faultsOf } from '../json-schema.ts';
import { type Inputs, type Outcome, push, runCli } from '../shipped.ts';
import { KEYS, startServer } from '../ssh/server.ts';
import { dockerArchive, sampleImage, sampleLayer, writeTar } from '../unit/image/archives.ts';
import { closedPort } from './refusal.ts';

const run = promisify(execFile);
const root = resolve(import.meta.dirname, '..', '..');
const directory = await mkdtemp(join(tmpdir(), 'kube-sideload-cli-'));
const at = (...names: readonly string[]) => join(directory, ...names);
/** Nothing is wrong with these, but that nobody listens at the node. */
let inputs: Inputs;

beforeAll(async () => {
  const port = await closedPort();
  const archive = dockerArchive([[['app:1'], sampleImage([await sampleLayer('etc/one')])]], 'docker');
  inputs = {
    archive: await writeTar(at('app.tar'), archive),
    nodes: `127.0.0.1:${port}=w1`,
    'ssh-private-key': KEYS.user.privateKey,
    'ssh-known-hosts': `[127.0.0.1]:${port} ${KEYS.ed25519.publicKey}`,
    smoke: 'none',
  };
});

afterAll(() => rm(directory, { recursive: true, force: true }));

describe('help', () => {
  it('names the commands', async () => {
    for (const flag of ['--help', '-h', 'help']) {
      const { code, stdout, stderr } = await runCli([flag]);
      expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
      for (const mode of MODES) expect(stdout).toContain(`\n  ${mode} `);
    }
  });

  it.each(MODES)('of %s has every flag, and examples', async mode => {
    const { code, stdout } = await runCli([mode, '--help']);
    expect(code).toBe(0);
    expect((await runCli(['help', mode])).stdout).toBe(stdout);
    for (const name of INPUT_NAMES.filter(one => one !== 'mode' && inputSpec(one).type !== 'secret'))
      expect(stdout).toContain(`  --${name}\n`);
    expect(stdout).toContain(`  kube-sideload ${mode} --images`);
  });
});

it('prints its version', async () => {
  expect(await runCli(['--version'])).toMatchObject({ code: 0, stdout: `${VERSION}\n`, stderr: '' });
});

it.each<[what: string, args: readonly string[], said: RegExp]>([
  ['an unknown flag', ['push', '--nope'], /there is no option --nope/],
  ['an unknown command', ['pull'], /unknown command: pull/],
  ['one word too many', ['push', 'app:1'], /push takes nothing but options, and got app:1/],
  ['two words that contradict each other', ['plan', '--mode=push'], /plan and --mode=push contradict each other/],
  ['a flag without its value', ['push', '--images'], /--images/],
  ['a flag that takes no value', ['--help=yes'], /--help/],
  ['a completion for no shell', ['completion'], /one of: bash, zsh, fish/],
  ['a completion for an unknown shell', ['completion', 'tcsh'], /one of: bash, zsh, fish/],
])('ends with 2 when the command line is wrong: %s', async (_what, args, said) => {
  const { code, stdout, stderr } = await runCli(args);
  expect({ code, stdout }).toEqual({ code: 2, stdout: '' });
  expect(stderr).toMatch(said);
  expect(stderr).toMatch(/Try `kube-sideload --help`/);
  expect(stderr).not.toMatch(/^\s+at /m);
});

it('ends with 2 and its help when it is told nothing', async () => {
  const { code, stdout } = await runCli([]);
  expect(code).toBe(2);
  expect(stdout).toContain('Usage:');
});

it.each(['ssh-private-key', 'ssh-key-passphrase', 'ssh-password', 'sudo-password'])(
  'takes no secret as a flag, and does not repeat it: --%s',
  async name => {
    const { code, log } = await runCli(['push', `--${name}=hunter2hunter2`]);
    expect(code).toBe(2);
    expect(log).not.toContain('hunter2');
  },
);

it('takes a flag several times for a list, and once where one value is wanted', async () => {
  const list = await runCli(['push', '--nodes=a b', '--nodes=c d', '--smoke=none']);
  expect(list.log).toMatch(/"a b" is not a node[\s\S]*"c d" is not a node/);
  const port = await runCli(['push', '--ssh-port=22', '--ssh-port=23']);
  expect(port.log).toMatch(/--ssh-port takes one value, and is there 2 times: "22", "23"/);
});

describe('what is printed', () => {
  const withFlags = (flags: readonly string[], options = {}): Promise<Outcome> => {
    const { 'ssh-private-key': key = '', ...rest } = inputs;
    const env = { KUBE_SIDELOAD_SSH_PRIVATE_KEY: key };
    return runCli(['push', ...Object.entries(rest).map(([name, value]) => `--${name}=${value}`), ...flags], {
      env,
      ...options,
    });
  };

  it('with --json is the record on standard output, as its schema says, and nothing else there', async () => {
    const schema: unknown = JSON.parse(await readFile(join(root, 'schemas', 'report.schema.json'), 'utf8'));
    const failed = await withFlags(['--json']);
    expect(failed.code).toBe(1);
    expect(faultsOf(schema, JSON.parse(failed.stdout), true)).toEqual([]);
    expect(JSON.parse(failed.stdout)).toMatchObject({
      succeeded: false,
      nodes: [{ error: { code: 'SSH_UNREACHABLE' } }],
    });
    expect(failed.stderr).toContain('[SSH_UNREACHABLE]');
    const wrong = await withFlags(['--json', '--ssh-port=x']);
    expect(wrong.code).toBe(2);
    expect(faultsOf(schema, JSON.parse(wrong.stdout), true)).toEqual([]);
    expect(JSON.parse(wrong.stdout)).toMatchObject({ succeeded: false, nodes: [], error: { code: 'INPUT_INVALID' } });
  });

  it('with --quiet is the table and what is wrong', async () => {
    const { stderr } = await withFlags(['--quiet']);
    const lines = stderr.trimEnd().split('\n');
    expect(lines[0]).toMatch(/^node +platform /);
    expect(lines[1]).toMatch(/^w1 .* SSH_UNREACHABLE /);
    expect(lines[2]).toBe('error: w1: The node cannot be reached over SSH');
    expect(lines.at(-1)).toBe('failed: 1 of 1 nodes failed: w1 [SSH_UNREACHABLE]');
    expect(lines).toHaveLength(6);
  });

  it('in a job of GitLab folds, and has no outputs', async () => {
    const { 'ssh-private-key': key = '' } = inputs;
    const env = { GITLAB_CI: 'true', KUBE_SIDELOAD_SSH_PRIVATE_KEY: key };
    const { stderr, stdout } = await withFlags([], { env });
    expect(stdout).toBe('');
    expect(stderr.match(/section_start:/g)).toHaveLength(stderr.match(/section_end:/g)?.length ?? 0);
    expect(stderr).toContain('[collapsed=true]\r\u001b[0KOpen the images and connect to the nodes\n');
    // Whoever looks at a failed job sees why without unfolding anything.
    expect(stderr.slice(stderr.lastIndexOf('section_end:'))).toMatch(/\nerror: w1: [\s\S]*Next step: /);
  });

  it('in a terminal of 100 columns fits, and has no outputs', async () => {
    const flags = Object.entries(inputs)
      .filter(([name]) => name !== 'ssh-private-key')
      .map(([name, value]) => `'--${name}=${value}'`);
    const command = `stty columns 100; ${process.execPath} ${join(root, 'dist', 'cli', 'index.js')} push ${flags.join(' ')}`;
    const env = {
      ...process.env,
      NO_COLOR: '1',
      TERM: 'xterm',
      KUBE_SIDELOAD_SSH_PRIVATE_KEY: inputs['ssh-private-key'],
    };
    const { stdout } = await run('script', ['--quiet', '--return', '--command', command, '/dev/null'], { env }).catch(
      error => error as { stdout: string },
    );
    const lines = stdout.replaceAll('\r\n', '\n').split('\n');
    expect(lines).toContain('failed: 1 of 1 nodes failed: w1 [SSH_UNREACHABLE]');
    expect(lines.filter(line => line.length > 100)).toEqual([]);
    expect(stdout).not.toContain('image-ids=');
    expect(stdout).not.toContain('\u001b[31m');
  });
});

describe('a configuration file', () => {
  it('of the working directory applies, and one can be named instead', async () => {
    const here = at('here');
    await mkdir(here);
    const { 'ssh-private-key': key = '', archive } = inputs;
    const settings = `settings: { archive: ${archive}, smoke: none, report-json: out/report.json }`;
    await writeFile(
      join(here, 'kube-sideload.yaml'),
      `nodes: [{ host: 127.0.0.1, port: 1, name: here }]\n${settings}\n`,
    );
    await writeFile(at('other.yaml'), `nodes: [{ host: 127.0.0.1, port: 1, name: there }]\n${settings}\n`);
    const env = { KUBE_SIDELOAD_SSH_PRIVATE_KEY: key, KUBE_SIDELOAD_SSH_KNOWN_HOSTS: inputs['ssh-known-hosts'] };
    const found = await runCli(['push'], { cwd: here, env });
    expect(found.log.match(/settings of kube-sideload.yaml in the working directory apply/g)).toHaveLength(1);
    expect(found.log).toContain('1 of 1 nodes failed: here [SSH_UNREACHABLE]');
    expect(JSON.parse(await readFile(join(here, 'out', 'report.json'), 'utf8'))).toMatchObject({ succeeded: false });
    const wrong = await runCli(['push', '--ssh-port=x'], { cwd: here, env });
    expect(wrong.log.match(/in the working directory apply/g)).toHaveLength(1);
    const named = await runCli(['push', '--config', at('other.yaml')], { cwd: here, env });
    expect(named.log).toContain('1 of 1 nodes failed: there [SSH_UNREACHABLE]');
  });
});

it.each([
  ['SIGHUP', 129],
  ['SIGINT', 130],
  ['SIGTERM', 143],
] as const)('ends as shells say it when it is interrupted by %s', async (signal, code) => {
  // A node that takes the login and never answers.
  const server = await startServer({ exec: () => {} });
  try {
    const texts = {
      ...inputs,
      nodes: `deploy@${server.target.host}:${server.target.port}=w1`,
      'ssh-known-hosts': server.knownHosts,
    };
    const outcome = await push(texts, {
      onLine: (line, pid) => {
        if (line.startsWith('docker.io/library/app:1 from')) process.kill(pid, signal);
      },
    });
    expect(outcome).toMatchObject({ code, signal: null, leftOnRunner: [] });
    expect(outcome.log).toContain(`the job was cancelled (${signal})`);
  } finally {
    await server.close();
  }
});

describe('one file is enough', () => {
  it('the command line works from /usr/local/bin or wherever it is copied, without anything beside it', async () => {
    const program = at('bin', 'kube-sideload');
    await mkdir(dirname(program));
    await copyFile(join(root, 'dist', 'cli', 'index.js'), program);
    const env = { PATH: `${dirname(program)}:${dirname(process.execPath)}:${process.env.PATH}` };
    const { stdout } = await run('kube-sideload', ['--version'], { env, cwd: '/' });
    expect(stdout).toBe(`${VERSION}\n`);
    const flags = Object.entries(inputs).filter(([name]) => name !== 'ssh-private-key');
    const failed = await run('kube-sideload', ['push', ...flags.map(([name, value]) => `--${name}=${value}`)], {
      env: { ...env, KUBE_SIDELOAD_SSH_PRIVATE_KEY: inputs['ssh-private-key'] },
    }).catch(error => error as { code: number; stderr: string });
    expect(failed).toMatchObject({ code: 1, stderr: expect.stringContaining('[SSH_UNREACHABLE]') });
  });
});

describe('completion', () => {
  it.each(SHELLS)('prints a script for %s that names every flag', async shell => {
    const { code, stdout, stderr } = await runCli(['completion', shell]);
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
    for (const name of INPUT_NAMES.filter(one => one !== 'mode' && inputSpec(one).type !== 'secret')) {
      expect(stdout).toMatch(new RegExp(`(?:--|-l )${name}\\b`));
    }
    for (const name of INPUT_NAMES.filter(one => inputSpec(one).type === 'secret')) {
      expect(stdout).not.toMatch(new RegExp(`(?:--|-l )${name}(?![\\w-])`));
    }
  });

  /** What bash offers after these words, the last of which is being written. */
  async function offered(...words: readonly string[]): Promise<readonly string[]> {
    const { stdout: script } = await runCli(['completion', 'bash']);
    await writeFile(at('completion.bash'), script);
    const quoted = ['kube-sideload', ...words].map(word => `'${word}'`).join(' ');
    const program = `cd ${directory}; source ./completion.bash; COMP_WORDS=(${quoted}); COMP_CWORD=${words.length}; _kube_sideload; printf '%s\\n' "\${COMPREPLY[@]}"`;
    const { stdout } = await run('bash', ['--norc', '--noprofile', '-uc', program]);
    return stdout.split('\n').filter(line => line !== '');
  }

  it('in bash offers commands, flags, choices, files, and nothing where the value is the user’s own', async () => {
    expect(await offered('')).toEqual([...MODES, 'completion']);
    expect(await offered('pu')).toEqual(['push']);
    expect(await offered('completion', '')).toEqual([...SHELLS]);
    expect(await offered('push', '--node')).toEqual(['--nodes', '--nodes-from-cluster', '--node-selector']);
    expect(await offered('push', '--smoke', '')).toEqual([...inputChoices('smoke')]);
    // Bash splits at the `=`.
    expect(await offered('push', '--source', '=', 'pod')).toEqual(['podman']);
    expect(await offered('push', '--source', '=')).toEqual([...inputChoices('source')]);
    expect(await offered('push', '--archive', 'app')).toEqual(['app.tar']);
    expect(await offered('push', '--archive', '=', 'app')).toEqual(['app.tar']);
    expect(await offered('push', '--images', '')).toEqual([]);
    expect(await offered('--qu')).toEqual(['--quiet']);
  });

  it('in bash is registered for the command', async () => {
    const { stdout: script } = await runCli(['completion', 'bash']);
    await writeFile(at('completion.bash'), script);
    const { stdout } = await run('bash', ['-c', `source ${at('completion.bash')}; complete -p kube-sideload`]);
    expect(stdout).toBe('complete -F _kube_sideload kube-sideload\n');
  });
});

function inputChoices(name: 'smoke' | 'source'): readonly string[] {
  const { type } = inputSpec(name);
  return typeof type === 'object' ? type.oneOf : [];
}

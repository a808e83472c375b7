/** Runs the bundles of `dist/` as users do, and tells what they did and what they left behind. */
import { execFile, spawn } from 'node:child_process';
import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { normalise } from '../src/image/reference.ts';
import { type InputName, inputSpec } from '../src/inputs.ts';
import type { NodeReport } from '../src/report/report.ts';
import type { Lab, LabNode } from './lab/index.ts';
import { unseenOn } from './leftovers.ts';

const root = resolve(import.meta.dirname, '..');
const CLI = join(root, 'dist', 'cli', 'index.js');
const ACTION = join(root, 'dist', 'action', 'index.js');
const TIMEOUT_MS = 150_000;

export type Inputs = Partial<Record<InputName, string>>;

export interface Options {
  /** Path of the Node to run the bundle with; by default the one that runs the tests. */
  readonly node?: string;
  /** Added to the environment; `undefined` removes. */
  readonly env?: Readonly<Record<string, string | undefined>>;
  /** Nothing of the environment of the tests, not even a PATH. */
  readonly isBare?: boolean;
  /** The working directory. */
  readonly cwd?: string;
  /** Whose engines are on the PATH. */
  readonly lab?: Lab;
  /** Called with each line of the log as it appears. */
  readonly onLine?: (line: string, pid: number) => void;
  /** Kills the bundle with SIGKILL when it takes longer. */
  readonly timeoutMs?: number;
}

export interface Outcome {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
  readonly stdout: string;
  readonly stderr: string;
  /** Standard output and standard error together. */
  readonly log: string;
  readonly outputs: Readonly<Record<string, string>>;
  /** The `nodes` output. */
  readonly nodes: readonly NodeReport[];
  /** Names of files that were left in the temporary directory. */
  readonly leftOnRunner: readonly string[];
}

/** An outcome of the action: besides the log, what it wrote to the files of the runner. */
export interface ActionOutcome extends Outcome {
  readonly summary: string;
  readonly state: Readonly<Record<string, string>>;
}

/** The inputs that reach the nodes of a lab. */
export function reach(
  lab: Lab,
  nodes: readonly string[] = lab.nodes.map(node => `${node.address}=${node.name}`),
): Inputs {
  return {
    nodes: nodes.join('\n'),
    'ssh-private-key-file': lab.privateKeyFile,
    'ssh-known-hosts-file': lab.knownHostsFile,
    ...(lab.kubeconfig === undefined ? { smoke: 'none' } : { kubeconfig: lab.kubeconfig }),
  };
}

/** `kube-sideload push` with flags; secrets go through variables, as they must. */
export function push(inputs: Inputs, options: Options = {}): Promise<Outcome> {
  return command('push', inputs, options);
}

/** `kube-sideload plan` likewise. */
export function plan(inputs: Inputs, options: Options = {}): Promise<Outcome> {
  return command('plan', inputs, options);
}

/** `kube-sideload check` likewise. */
export function check(inputs: Inputs, options: Options = {}): Promise<Outcome> {
  return command('check', inputs, options);
}

/** `kube-sideload prune` likewise. */
export function prune(inputs: Inputs, options: Options = {}): Promise<Outcome> {
  return command('prune', inputs, options);
}

async function command(name: string, inputs: Inputs, options: Options): Promise<Outcome> {
  const flags: string[] = [];
  const env: Record<string, string> = {};
  for (const [input, value] of Object.entries(inputs)) {
    if (inputSpec(input as InputName).type === 'secret') {
      env[`KUBE_SIDELOAD_${input.replaceAll('-', '_').toUpperCase()}`] = value;
    } else {
      flags.push(`--${input}=${value}`);
    }
  }
  return await runCli([name, ...flags], { ...options, env: { ...env, ...options.env } });
}

export async function runCli(args: readonly string[], options: Options = {}): Promise<Outcome> {
  return await inTemporaryDirectory(async directory => {
    const temporary = join(directory, 'tmp');
    await mkdir(temporary);
    const own = { TMPDIR: temporary, XDG_CACHE_HOME: join(directory, 'cache') };
    const ended = await run(CLI, args, own, options);
    return { ...ended, ...outcome(parseLines(ended.stdout)), leftOnRunner: await readdir(temporary) };
  });
}

/** The action under GitHub's contract: inputs as variables, outputs, state and summary in files. */
export async function runAction(inputs: Inputs, options: Options = {}): Promise<ActionOutcome> {
  return await inTemporaryDirectory(async directory => {
    const runnerTemp = join(directory, 'runner-temp');
    await mkdir(runnerTemp);
    const files = { GITHUB_OUTPUT: 'output', GITHUB_STATE: 'state', GITHUB_STEP_SUMMARY: 'summary' };
    const env: Record<string, string> = {
      GITHUB_ACTIONS: 'true',
      RUNNER_TEMP: runnerTemp,
      TMPDIR: runnerTemp,
      XDG_CACHE_HOME: join(directory, 'cache'),
    };
    for (const [variable, name] of Object.entries(files)) {
      env[variable] = join(directory, name);
      await writeFile(join(directory, name), '');
    }
    for (const [name, value] of Object.entries(inputs)) {
      env[`INPUT_${name.toUpperCase()}`] = value;
    }
    const ended = await run(ACTION, [], env, options);
    return {
      ...ended,
      ...outcome(parseFileCommands(await readFile(join(directory, 'output'), 'utf8'))),
      state: parseFileCommands(await readFile(join(directory, 'state'), 'utf8')),
      summary: await readFile(join(directory, 'summary'), 'utf8'),
      leftOnRunner: await readdir(runnerTemp),
    };
  });
}

/** The post step of an action: the same file again, with the state that the main step left. */
export function runPost(main: ActionOutcome, inputs: Inputs, options: Options = {}): Promise<ActionOutcome> {
  const state = Object.fromEntries(Object.entries(main.state).map(([name, value]) => [`STATE_${name}`, value]));
  return runAction(inputs, { ...options, env: { ...options.env, ...state } });
}

/**
 * What of a run lies on the nodes: staged references, files, locks, processes that should have ended, and
 * what {@link unseenOn} finds.
 */
export async function leftOnNode(lab: Lab): Promise<readonly string[]> {
  const found = await Promise.all(
    lab.nodes.map(async node => {
      const [unseen, images] = await Promise.all([unseenOn(node), imagesOn(lab, node)]);
      const staged = images.flatMap(({ repoTags }) => repoTags).filter(tag => tag.startsWith('kube-sideload'));
      return [...new Set([...staged, ...unseen])].map(line => `${node.name}: ${line}`);
    }),
  );
  return found.flat();
}

export function nodeNamed(lab: Lab, name: string): LabNode {
  const node = lab.nodes.find(one => one.name === name);
  if (node === undefined) {
    throw new Error(`the lab has no node ${name}`);
  }
  return node;
}

/**
 * What a node's runtime answers the host's crictl, so that nodes without one are asked too. A containerd that has just been
 * started listens before its CRI plugin is there.
 */
export async function crictl(lab: Lab, node: LabNode, args: readonly string[]): Promise<string> {
  for (let attempt = 1; ; attempt += 1) {
    try {
      return await askCrictl(lab, node, args);
    } catch (error) {
      if (attempt === 20 || !/server is not initialized/.test(String(error))) throw error;
      await delay(500);
    }
  }
}

function askCrictl(lab: Lab, node: LabNode, args: readonly string[]): Promise<string> {
  // In the node /var/run is a link to /run; from here it would be the host's.
  const socket = `unix://${node.root}${node.criSocket.replace(/^\/var\/run/, '/run')}`;
  const endpoints = [
    '--config',
    '/dev/null',
    '--timeout',
    '20s',
    '--runtime-endpoint',
    socket,
    '--image-endpoint',
    socket,
  ];
  return new Promise((done, reject) => {
    execFile(join(lab.bin, 'crictl'), [...endpoints, ...args], { maxBuffer: 1 << 26 }, (error, stdout, stderr) =>
      error === null ? done(stdout) : reject(new Error(`crictl ${args.join(' ')} on ${node.name}: ${stderr}`)),
    );
  });
}

interface ListedImage {
  readonly id: string;
  readonly repoTags: readonly string[];
  readonly repoDigests: readonly string[];
}

async function imagesOn(lab: Lab, node: LabNode): Promise<readonly ListedImage[]> {
  const { images } = JSON.parse(await crictl(lab, node, ['images', '-o', 'json'])) as {
    images: readonly ListedImage[];
  };
  return images;
}

function namesOf({ repoTags, repoDigests }: ListedImage): readonly string[] {
  return [...repoTags, ...repoDigests].filter(name => !name.includes('<none>'));
}

/** What `crictl images` lists on each node: IDs, and all their names. */
export async function listedOn(lab: Lab, nodes: readonly LabNode[]): Promise<readonly (readonly string[])[]> {
  return await Promise.all(
    nodes.map(async node => {
      const images = await imagesOn(lab, node);
      return images.map(image => [image.id, ...namesOf(image).toSorted()].join(' ')).toSorted();
    }),
  );
}

/** References that a node's CRI lists. */
export async function referencesOn(lab: Lab, name: string): Promise<readonly string[]> {
  const node = nodeNamed(lab, name);
  // cri-dockerd lists familiar names.
  const images = await imagesOn(lab, node);
  const tags = images.flatMap(image => image.repoTags).filter(tag => !tag.startsWith('<none>'));
  return (node.runtime === 'docker' ? tags.map(normalise) : tags).toSorted();
}

async function inTemporaryDirectory<T>(body: (directory: string) => Promise<T>): Promise<T> {
  const directory = await mkdtemp(join(tmpdir(), 'kube-sideload-shipped-'));
  try {
    return await body(directory);
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}

type Ended = Pick<Outcome, 'code' | 'signal' | 'stdout' | 'stderr' | 'log'>;

function run(bundle: string, args: readonly string[], own: Record<string, string>, options: Options): Promise<Ended> {
  const { node = process.execPath, env = {}, isBare = false, cwd, lab, onLine, timeoutMs = TIMEOUT_MS } = options;
  // No HOME and no agent: neither the keys nor the kubeconfig of whoever runs the tests may help.
  const {
    HOME: _home,
    GITHUB_ACTIONS: _actions,
    GITLAB_CI: _gitlab,
    KUBECONFIG: _kubeconfig,
    SSH_AUTH_SOCK: _agent,
    ...inherited
  } = process.env;
  const path = lab === undefined ? inherited.PATH : `${lab.bin}:${inherited.PATH}`;
  return new Promise((done, reject) => {
    const child = spawn(node, [bundle, ...args], {
      cwd,
      env: { ...(!isBare && { ...inherited, HOME: '/nonexistent', PATH: path }), ...own, ...env },
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    const timer = setTimeout(() => child.kill('SIGKILL'), timeoutMs);
    const text = { stdout: '', stderr: '', log: '' };
    let unfinished = '';
    const collect = (name: 'stdout' | 'stderr') => (chunk: Buffer) => {
      text[name] += chunk.toString();
      text.log += chunk.toString();
      const lines = (unfinished + chunk.toString()).split('\n');
      unfinished = lines.pop() ?? '';
      for (const line of lines) {
        onLine?.(line, child.pid ?? 0);
      }
    };
    child.stdout.on('data', collect('stdout'));
    child.stderr.on('data', collect('stderr'));
    child.on('error', reject);
    child.on('close', (code, signal) => {
      clearTimeout(timer);
      done({ code, signal, ...text });
    });
  });
}

function outcome(outputs: Readonly<Record<string, string>>): Pick<Outcome, 'outputs' | 'nodes'> {
  return { outputs, nodes: JSON.parse(outputs.nodes ?? '[]') as NodeReport[] };
}

function parseLines(stdout: string): Record<string, string> {
  return Object.fromEntries(
    stdout.split('\n').flatMap(line => {
      const equals = line.indexOf('=');
      return equals < 0 ? [] : [[line.slice(0, equals), line.slice(equals + 1)]];
    }),
  );
}

/** GitHub's file commands: `name<<DELIMITER`, the value, `DELIMITER`. */
function parseFileCommands(text: string): Record<string, string> {
  return Object.fromEntries(
    [...text.matchAll(/^([^\n]+?)<<(\S+)\n([\s\S]*?)\n\2$/gm)].map(([, name, , value]) => [name ?? '', value ?? '']),
  );
}

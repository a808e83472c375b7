import { execFile, execFileSync } from 'node:child_process';
import { mkdir, mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { thisProcess } from '../../src/process.ts';
import { type Inputs, type Outcome, plan, push, runCli } from '../shipped.ts';
import { type Exec, KEYS, type ServerOptions, startServer, type TestServer } from '../ssh/server.ts';
import { dockerArchive, sampleImage, sampleLayer, writeTar } from '../unit/image/archives.ts';
import { MAJORS, nodeOf } from './node-versions.ts';
import { expectRefusal } from './refusal.ts';

const INSTALL_MS = 120_000;
const run = promisify(execFile);
const preload = (name: string) => ({ NODE_OPTIONS: `--require ${resolve(import.meta.dirname, 'preload', name)}` });

let directory: string;
let archive: string;

beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), 'kube-sideload-limits-'));
  const image = sampleImage([await sampleLayer('etc/one')]);
  archive = await writeTar(join(directory, 'app.tar'), dockerArchive([[['app:1'], image]], 'docker'));
});

afterAll(() => rm(directory, { recursive: true, force: true }));

/** Runs something against a server that does with commands as it is told, and that has so many addresses. */
async function against(
  exec: NonNullable<ServerOptions['exec']>,
  act: (inputs: Inputs, sockets: TestServer['sockets']) => Promise<Outcome>,
  count = 1,
): Promise<Outcome> {
  const server = await startServer({ exec, address: '0.0.0.0' });
  const { port } = server.target;
  const nodes = Array.from({ length: count }, (_, index) => `deploy@127.0.0.${index + 1}:${port}=w${index + 1}`);
  try {
    const inputs: Inputs = {
      archive,
      nodes: nodes.join('\n'),
      'ssh-private-key': KEYS.user.privateKey,
      'ssh-known-hosts': server.knownHosts.replace('127.0.0.1', '127.0.0.*'),
      smoke: 'none',
    };
    return await act(inputs, server.sockets);
  } finally {
    await server.close();
  }
}

/** Says at once that it has no `sh`. */
function noShell({ channel }: Exec): void {
  channel.stderr.write('sh: not found\n');
  channel.exit(127);
  channel.end();
}

/** Begins each script, gets as far as a section, and says no more. */
function hangs({ channel }: Exec): void {
  channel.on('data', (chunk: Buffer) => {
    const mark = /@@[0-9a-f]{12}/.exec(chunk.toString())?.[0];
    if (mark !== undefined) channel.write(`\n${mark} begun\n\n${mark} disk\n`);
  });
}

describe.each(MAJORS)('on Node %d', major => {
  let node: string;
  beforeAll(async () => {
    node = await nodeOf(major);
  }, INSTALL_MS);

  it('a login that never comes to a prompt ends within `connect-timeout`, whatever the garbage collector does', async () => {
    const env = preload('collect-garbage.cjs');
    const login = (inputs: Inputs) => push({ ...inputs, 'connect-timeout': '4s' }, { node, env });
    const outcome = await against(({ channel }) => void channel.write('Welcome.\n'), login);
    expectRefusal(
      outcome,
      'NODE_SILENT',
      /the login of deploy came through, .* within 4 s, and has printed: Welcome\./,
    );
    expect(outcome.nodes).toMatchObject([{ node: 'w1', error: { code: 'NODE_SILENT' } }]);
  });

  it('sixty nodes are no leak of listeners', async () => {
    const outcome = await against(noShell, inputs => plan(inputs, { node }), 60);
    expect(outcome.nodes).toHaveLength(60);
    expect(outcome.stderr).not.toMatch(/Warning/);
  });
});

describe('what runs on a node', () => {
  it('has an end, and who waits is told for whom', async () => {
    const outcome = await against(hangs, inputs => push(inputs, { env: preload('fast-clock.cjs') }));
    expectRefusal(outcome, 'NODE_SILENT', /reading what it is: not done within 2 min 0 s; it got as far as `disk`/);
    const waits = outcome.log.match(/^waiting for w1: reading what it is, \d+ s$/gm) ?? [];
    expect(waits[0]).toMatch(/ 1\d s$/);
    expect(waits.length).toBeLessThanOrEqual(4);
  });

  it.each([
    ['an `exit` in a start-up file', 0, 'Have a nice day.\n', /exit code 0 .* and printed: Have a nice day\./],
    ['an `exit` in a start-up file, without a word', 0, '', /exit code 0 .* and printed nothing/],
    ['nologin', 1, 'This account is currently not available.\n', /exit code 1 .* This account is currently not/],
  ])('is not run by a login shell that ends first: %s', async (_what, code, said, message) => {
    const ends = ({ channel }: Exec) => {
      channel.write(said);
      channel.exit(code);
      channel.end();
    };
    const outcome = await against(ends, inputs => push(inputs));
    expectRefusal(outcome, 'LOGIN_SHELL_ENDED', /the login shell of deploy ended with/);
    expect(outcome.log).toMatch(message);
  });
});

it('a kubectl that waits for somebody ends in time', async () => {
  const kubectl = join(directory, 'kubectl');
  await writeFile(kubectl, '#!/bin/sh\nexec sleep 60\n', { mode: 0o755 });
  const fromCluster = { kubectl, 'nodes-from-cluster': 'true', nodes: '' };
  const outcome = await against(noShell, inputs =>
    plan({ ...inputs, ...fromCluster }, { env: preload('fast-clock.cjs') }),
  );
  expectRefusal(outcome, 'CLUSTER_UNREACHABLE', /kubectl has not ended within 90 s/);
  expect(outcome.log).toMatch(/^waiting for the cluster: asking its API, \d+ s$/m);
});

it('an engine that never writes the image ends in time', async () => {
  const bin = await mkdtemp(join(directory, 'bin-'));
  const inspection = [{ Id: `sha256:${'1'.repeat(64)}`, RootFS: { Layers: [`sha256:${'2'.repeat(64)}`] } }];
  const answers = `case "$1 $2" in 'image inspect') echo '${JSON.stringify(inspection)}' ;; save*) exec sleep 60 ;; *) exit 1 ;; esac`;
  await writeFile(join(bin, 'docker'), `#!/bin/sh\n${answers}\n`, { mode: 0o755 });
  const env = { ...preload('fast-clock.cjs'), FAST_CLOCK: '100', PATH: `${bin}:${process.env.PATH}` };
  const flags = ['--images=app:1', '--source=docker', `--bundle=${join(directory, 'app.bundle')}`];
  const outcome = await runCli(['bundle', ...flags], { env });
  expectRefusal(
    outcome,
    'SOURCE_UNAVAILABLE',
    /docker engine did not save .*app:1: it has written nothing for 10 minutes/,
  );
});

it('a run that is killed leaves no ssh client, and the next one takes away its files', async () => {
  const temporary = await mkdtemp(join(directory, 'tmp-'));
  const env = { TMPDIR: temporary };
  const filesIn = (path: string) => readdir(path, { recursive: true });
  let pid: number | undefined;
  const openssh = { 'ssh-transport': 'openssh' };
  await against(
    () => void (pid === undefined || process.kill(pid, 'SIGKILL')),
    async (inputs, sockets) => {
      const outcome = await push({ ...inputs, ...openssh }, { env, onLine: (_line, of) => (pid = of) });
      expect(outcome.signal).toBe('SIGKILL');
      await expect.poll(() => sockets.length > 0 && sockets.every(socket => socket.destroyed)).toBe(true);
      return outcome;
    },
  );
  expect(await filesIn(temporary)).toContainEqual(expect.stringMatching(/^kube-sideload-.*\/ssh\/key$/));
  // What a run that goes on has, here or on another machine, is left alone.
  const others = [
    `kube-sideload-1-${thisProcess()}-x`,
    `kube-sideload-1-${'0'.repeat(16)}-1-1-x`,
    'kube-sideload-other',
  ];
  for (const name of others) await mkdir(join(temporary, name));
  await against(noShell, inputs => push(inputs, { env }));
  expect((await filesIn(temporary)).toSorted()).toEqual(others.toSorted());
});

/** Starts one pod that nobody does anything about, as a kubelet that is frozen, with as little of a cluster as there can be. */
const PENDING = `
const { runSmokePods } = require('./smoke/smoke.js');
const pods = [];
const kubectl = {
  createPod: async pod => (pods.push({ ...pod, metadata: { ...pod.metadata, uid: '1' }, status: { phase: 'Pending' } }), pods[0]),
  listPods: async () => ({ items: pods, metadata: { resourceVersion: '1' } }),
  watchPods: (labels, version, onEvent, signal) => new Promise(resolve => signal.addEventListener('abort', resolve)),
  deletePod: async () => void pods.pop(),
  eventsOf: async () => [],
  getNode: async () => undefined,
  logTail: async () => '',
};
const target = { node: 'w1', nodeName: 'w1', reference: 'docker.io/library/app:1', imageId: 'sha256:1', user: '' };
const options = {
  runId: '1', timeoutMs: 500, command: [], template: undefined, expect: 'started', parallel: 1, security: 'auto',
  resources: { requests: {}, limits: {} }, signal: new AbortController().signal, onResult: () => {}, onTrouble: () => {},
  heldOn: async () => [],
};
const alive = setInterval(() => {}, 1000);
runSmokePods(kubectl, [target], new Map(), options).then(([result]) => {
  console.log(result.error.code);
  clearInterval(alive);
});
`;

describe('`smoke-timeout`', () => {
  let compiled: string;
  beforeAll(async () => {
    const root = resolve(import.meta.dirname, '../..');
    // Below the packages that the sources import.
    const cache = join(root, 'node_modules', '.cache');
    await mkdir(cache, { recursive: true });
    compiled = await mkdtemp(join(cache, 'limits-'));
    const tsc = join(root, 'node_modules', '.bin', 'tsc');
    execFileSync(tsc, ['-p', 'tsconfig.build.json', '--outDir', compiled], { cwd: root });
    await writeFile(join(compiled, 'package.json'), '{}');
    await writeFile(join(compiled, 'pending.js'), PENDING);
  }, INSTALL_MS);

  afterAll(() => rm(compiled, { recursive: true, force: true }));

  it.each(MAJORS)(
    'ends the wait for a pod on Node %d, whatever the garbage collector does',
    async major => {
      const options = { env: { ...process.env, ...preload('collect-garbage.cjs') }, timeout: 20_000 };
      const { stdout } = await run(await nodeOf(major), [join(compiled, 'pending.js')], options);
      expect(stdout).toBe('SMOKE_NODE_NOT_READY\n');
    },
    INSTALL_MS,
  );
});

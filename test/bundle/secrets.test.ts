/** What `dist/` was trusted with, and where it must not be found. */
import { chmod, mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type Inputs, push, runAction } from '../shipped.ts';
import { generateKey, KEYS } from '../ssh/server.ts';
import { dockerArchive, sampleImage, sampleLayer, writeTar } from '../unit/image/archives.ts';
import { unreachable } from './refusal.ts';

const directory = await mkdtemp(join(tmpdir(), 'kube-sideload-secrets-'));
const at = (name: string) => join(directory, name);
let inputs: Inputs;

/** Lines of a key that are its own. */
const linesOf = (key: string) => key.split('\n').filter(line => line !== '' && !line.startsWith('-----'));
const CLIENT_KEY = generateKey('ed25519').privateKey;
const KUBECONFIG = `apiVersion: v1
users:
  - name: ci
    user:
      token: |
        token-in-a-block
        of-two-lines
      password: >-
        folded-password
        of-two-parts
      client-key-data: "${Buffer.from(CLIENT_KEY).toString('base64')}"
      exec: { command: plugin, env: [{ name: PLUGIN_TOKEN, value: 'token-of-a-plugin' }, { name: REGION, value: europe-1 }] }
`;
const IN_KUBECONFIG = ['token-in-a-block', 'of-two-lines', 'folded-password', 'of-two-parts', 'token-of-a-plugin'];

beforeAll(async () => {
  inputs = await unreachable(directory);
  await writeFile(at('key'), KEYS.user.privateKey, { mode: 0o600 });
  await writeFile(at('kubeconfig'), KUBECONFIG);
});

afterAll(() => rm(directory, { recursive: true, force: true }));

describe('a key that lies in a file on the runner', () => {
  it.each([{}, { 'ssh-transport': 'openssh' }, { 'ssh-key-passphrase': 'open sesame' }])(
    'is in no byte that the job writes, not even to tell the runner what to mask: %o',
    async (changes: Inputs) => {
      const key = changes['ssh-key-passphrase'] === undefined ? KEYS.user : generateKey('ed25519', 'open sesame');
      await writeFile(at('own'), key.privateKey, { mode: 0o600 });
      const given = { ...inputs, ...changes, 'ssh-private-key': '', 'ssh-private-key-file': at('own') };
      for (const env of [{}, { GITEA_ACTIONS: 'true' }]) {
        const { log, outputs, summary } = await runAction(given, { env });
        expect(log).toContain('[SSH_UNREACHABLE]');
        const written = [log, JSON.stringify(outputs), summary].join('\n');
        for (const line of linesOf(key.privateKey)) expect(written).not.toContain(line);
        expect(log).not.toContain('BEGIN');
      }
    },
  );

  it('one that the job was given is named to the runner, which masks it for later steps', async () => {
    const { stdout } = await runAction(inputs);
    const masked = [...stdout.matchAll(/^::add-mask::(.*)$/gm)].map(([, line]) => line);
    expect(masked).toEqual(expect.arrayContaining(linesOf(KEYS.user.privateKey).filter(line => line.length >= 8)));
  });
});

describe('a kubeconfig', () => {
  /** A kubectl that complains with all that it was given. */
  const withKubectl = async (kubeconfig: string) => {
    const bin = at('indiscreet');
    await mkdir(bin, { recursive: true });
    await writeFile(join(bin, 'kubectl'), `#!/bin/sh\ncat '${at('kubeconfig')}' >&2\nexit 1\n`);
    await chmod(join(bin, 'kubectl'), 0o755);
    const given = { ...inputs, kubeconfig, 'nodes-from-cluster': 'true' };
    return await runAction(given, { env: { PATH: `${bin}:${process.env.PATH}` } });
  };

  it.each(['path', 'content'])('has its secrets kept out of the log, however YAML writes them: as %s', async form => {
    const { log, stdout } = await withKubectl(form === 'path' ? at('kubeconfig') : KUBECONFIG);
    expect(log).toContain('europe-1');
    const shown = log.replaceAll(/^::add-mask::.*$/gm, '');
    // The first line of such a key is that of all others.
    const secrets = [...IN_KUBECONFIG, ...linesOf(CLIENT_KEY).slice(1)];
    for (const secret of secrets) expect(shown).not.toContain(secret);
    const masked = [...stdout.matchAll(/^::add-mask::(.*)$/gm)].map(([, line]) => line);
    const announced = secrets.filter(secret => masked.includes(secret));
    expect(announced).toEqual(form === 'path' ? [] : secrets.filter(({ length }) => length >= 8));
  });
});

it('a short password hides no part of a name: outputs and tables can be used', async () => {
  await writeTar(at('app.tar'), dockerArchive([[['app:1'], sampleImage([await sampleLayer('etc/one')])]], 'docker'));
  const given = { ...inputs, archive: at('app.tar'), 'sudo-password': 'app', 'report-json': at('report.json') };
  for (const run of [runAction, push]) {
    const { log, outputs } = await run(given);
    expect(log).toContain('app:1');
    expect(log).not.toMatch(/\*\*\*|add-mask::app$/m);
    expect(JSON.stringify(outputs)).not.toContain('***');
    expect(await readFile(at('report.json'), 'utf8')).not.toContain('***');
  }
});

describe('programs on the runner', () => {
  /** Programs in front of all others that write down their environment, and do no more. */
  async function recorders(...names: readonly string[]): Promise<string> {
    const bin = await mkdtemp(at('bin-'));
    for (const name of names) {
      await writeFile(join(bin, name), `#!/bin/sh\nenv >>'${at(name)}.env'\necho '{}'\nexit 1\n`);
      await chmod(join(bin, name), 0o755);
    }
    return bin;
  }

  it.each([
    ['docker', { archive: '', images: 'app:1', source: 'docker' }],
    ['podman', { archive: '', images: 'app:1', source: 'podman' }],
    ['buildah', { archive: '', images: 'app:1', source: 'buildah' }],
    ['nerdctl', { archive: '', images: 'app:1', source: 'nerdctl' }],
    ['ctr', { archive: '', images: 'app:1', source: 'containerd' }],
    ['ssh', { 'ssh-transport': 'openssh', 'ssh-key-passphrase': '' }],
    ['kubectl', { 'nodes-from-cluster': 'true', kubeconfig: KUBECONFIG }],
  ] as const)('get none of our inputs in their environment, and all of the job’s own: %s', async (name, changes) => {
    const bin = await recorders(name);
    const env = {
      PATH: `${bin}:${process.env.PATH}`,
      DOCKER_CONFIG: '/a/config',
      AWS_REGION: 'eu',
      KUBE_SIDELOAD_X: 'x',
    };
    const given: Inputs = { ...inputs, 'sudo-password': 'a password', 'ssh-key-passphrase': 'a phrase', ...changes };
    for (const run of [runAction, push]) {
      await rm(at(`${name}.env`), { force: true });
      await run(given, { env });
      const seen = await readFile(at(`${name}.env`), 'utf8');
      expect(seen).toMatch(/^DOCKER_CONFIG=\/a\/config$/m);
      expect(seen).toMatch(/^AWS_REGION=eu$/m);
      expect(seen).not.toMatch(/^(?:INPUT|KUBE_SIDELOAD)_/m);
      for (const secret of [
        'a password',
        'a phrase',
        'PRIVATE KEY',
        ...IN_KUBECONFIG,
        ...linesOf(KEYS.user.privateKey),
      ]) {
        expect(seen).not.toContain(secret);
      }
    }
  });
});

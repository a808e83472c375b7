import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { syncBuiltinESMExports } from 'node:module';
import os, { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { beforeEach, describe, expect, it, onTestFinished, vi } from 'vitest';
import type { SideloadError } from '../../src/errors.ts';
import type { InputName } from '../../src/inputs.ts';
import { readReportFiles, readSettings, type Settings } from '../../src/settings.ts';
import { generateKey, KEYS } from '../ssh/server.ts';
import { recordingHost } from './recording-host.ts';

type Texts = Partial<Record<InputName, string>>;

const KNOWN_HOSTS = `10.0.0.11 ${KEYS.ed25519.publicKey}\n`;
/** Inputs with which nothing is wrong. */
const GOOD: Texts = {
  images: 'app:1',
  nodes: '10.0.0.11',
  'ssh-private-key': KEYS.user.privateKey,
  'ssh-known-hosts': KNOWN_HOSTS,
};

let home: string;

beforeEach(() => {
  home = mkdtempSync(join(tmpdir(), 'kube-sideload-home-'));
  vi.stubEnv('HOME', home);
  onTestFinished(() => {
    vi.unstubAllEnvs();
    rmSync(home, { recursive: true });
  });
});

/** Writes a file into the home directory and returns its path. */
function file(name: string, content: string): string {
  const path = join(home, name);
  mkdirSync(dirname(path), { recursive: true });
  writeFileSync(path, content);
  return path;
}

function read(texts: Texts, env: NodeJS.ProcessEnv = {}): Settings {
  return readSettings(recordingHost(texts), env);
}

function failure(texts: Texts, env: NodeJS.ProcessEnv = {}): SideloadError {
  try {
    readSettings(recordingHost(texts), env);
  } catch (error) {
    return error as SideloadError;
  }
  return expect.unreachable('it should have failed');
}

describe('mode bundle', () => {
  const BUNDLE: Texts = { mode: 'bundle', images: 'app:1' };

  it('needs neither nodes nor a key, host keys or a kubeconfig, and reads none', () => {
    const elsewhere = { nodes: 'not a node', 'ssh-private-key-file': '/nonexistent/key', kubeconfig: '/nonexistent' };
    for (const texts of [{}, elsewhere]) {
      const settings = read({ ...BUNDLE, ...texts, bundle: join(home, 'app.tar') });
      expect(settings).toMatchObject({ bundle: join(home, 'app.tar'), nodes: [], nodesFromCluster: false });
      expect(settings).toMatchObject({ cluster: undefined, smoke: undefined, ssh: { authentication: {} } });
    }
  });

  it('wants a place that can be written and is no other file of the job', () => {
    expect(failure(BUNDLE).message).toContain('`mode: bundle` needs `bundle`');
    expect(failure({ ...BUNDLE, bundle: home }).message).toMatch(/`bundle`: .* is a directory/);
    const path = join(home, 'app.tar');
    const twice = failure({ ...BUNDLE, images: '', archive: path, bundle: path, 'report-json': path });
    expect(twice.message).toContain('`archive` and `bundle` name the same file');
    expect(twice.message).toContain('`report-json` and `bundle` name the same file');
  });

  it('is the only one that takes `bundle`', () => {
    expect(failure({ ...GOOD, bundle: join(home, 'app.tar') }).message).toContain('`bundle` is for `mode: bundle`');
  });
});

describe('keeps layers', () => {
  const cacheOf = (texts: Texts, env: NodeJS.ProcessEnv = {}) => read({ ...GOOD, ...texts }, env).cache;

  it('where the user says, else where caches are', () => {
    expect(cacheOf({ 'cache-dir': '/var/cache/layers', 'cache-size': '0' })).toEqual({
      directory: '/var/cache/layers',
      maxBytes: 0,
    });
    const xdg = cacheOf({}, { XDG_CACHE_HOME: '/somewhere' });
    expect(xdg).toEqual({ directory: '/somewhere/kube-sideload/layers', maxBytes: 10e9 });
    expect(cacheOf({}, { XDG_CACHE_HOME: 'relative' }).directory).toBe(join(home, '.cache/kube-sideload/layers'));
  });

  it('nowhere, for a user without a home', () => {
    vi.stubEnv('HOME', join(home, 'nonexistent'));
    expect(cacheOf({}).directory).toBeUndefined();
  });
});

it('reads the common case', () => {
  expect(read(GOOD)).toMatchObject({
    images: ['app:1'],
    source: 'auto',
    archive: undefined,
    nodes: [{ label: '10.0.0.11', host: '10.0.0.11', port: 22, user: 'root', kubernetesName: undefined }],
    ssh: { connectTimeoutMs: 20_000 },
    criSocket: undefined,
    cluster: { kubectl: 'kubectl', kubeconfig: undefined, namespace: 'default' },
    smoke: { timeoutMs: 120_000, command: [] },
    mode: 'push',
    nodesFromCluster: false,
    nodeSelector: '',
  });
});

it('reads nodes with all their parts, and the rest from the inputs for all nodes', () => {
  const { nodes } = read({
    ...GOOD,
    nodes: 'ci@worker-1:2222=w1, [fd00::1]=w2, worker-3',
    'ssh-user': 'kube',
    'ssh-port': '22022',
  });
  expect(nodes).toMatchObject([
    { label: 'w1', host: 'worker-1', port: 2222, user: 'ci', kubernetesName: 'w1' },
    { label: 'w2', host: 'fd00::1', port: 22022, user: 'kube', kubernetesName: 'w2' },
    { label: 'worker-3', host: 'worker-3', port: 22022, user: 'kube', kubernetesName: undefined },
  ]);
});

it('takes every N-th node of the list for a shard, and leaves those of the cluster for later', () => {
  const nodes = 'a,b,c,d,e';
  expect(read({ ...GOOD, nodes, shard: '2/2' }).nodes.map(({ label }) => label)).toEqual(['b', 'd']);
  const settings = read({ ...GOOD, nodes, shard: '2/2', 'nodes-from-cluster': 'true' });
  expect(settings.nodes).toHaveLength(5);
  expect(settings.shard).toEqual({ index: 2, count: 2 });
});

it('needs no list with nodes from the cluster, and a kubeconfig even without smoke pods', () => {
  const settings = read({
    ...GOOD,
    nodes: '',
    'nodes-from-cluster': 'true',
    'node-selector': 'pool=ci',
    'ssh-user': 'kube',
    smoke: 'none',
  });
  expect(settings).toMatchObject({
    nodes: [],
    nodesFromCluster: true,
    nodeSelector: 'pool=ci',
    ssh: { user: 'kube', port: 22 },
    cluster: { kubectl: 'kubectl' },
    smoke: undefined,
  });
});

describe('one thing that is wrong', () => {
  it.each<[what: string, texts: Texts, code: string, message: RegExp]>([
    ['no images', { images: '' }, 'INPUT_INVALID', /`images` is empty/],
    ['a reference with a space', { images: 'app: 1' }, 'INPUT_INVALID', /the character " " cannot be part/],
    ['the same image twice', { images: 'app:1,app:1' }, 'INPUT_INVALID', /`images` names .*app:1" more than once/],
    [
      'the same image under two spellings',
      { images: 'app:1,docker.io/library/app:1' },
      'INPUT_INVALID',
      /more than once/,
    ],
    ['an archive without a file', { source: 'archive' }, 'INPUT_INVALID', /`source: archive` needs `archive`/],
    ['an archive and an engine', { source: 'docker', archive: 'a.tar' }, 'INPUT_INVALID', /exclude each other/],
    ['no nodes', { nodes: '' }, 'INPUT_INVALID', /`nodes` is empty/],
    ['a shard that is none', { shard: '3/2' }, 'INPUT_INVALID', /`shard` must be `i\/N`/],
    ['a shard without a node', { shard: '2/2' }, 'INPUT_INVALID', /no node for 2\/2, the list has 1/],
    ['a node that is none', { nodes: 'root@' }, 'INPUT_INVALID', /"root@" is not a node/],
    ['a node with a shell in it', { nodes: 'a;reboot' }, 'INPUT_INVALID', /"a;reboot" is not a node/],
    ['the same node twice', { nodes: 'a,b,a' }, 'INPUT_INVALID', /`nodes` names "a:22" more than once/],
    ['the same node with and without its port', { nodes: 'a,a:22' }, 'INPUT_INVALID', /"a:22" more than once/],
    ['the same node in other letters', { nodes: 'Worker,worker' }, 'INPUT_INVALID', /"worker:22" more than once/],
    ['the same node as two users', { nodes: 'ci@a,root@a' }, 'INPUT_INVALID', /"a:22" more than once/],
    ['the same Kubernetes node twice', { nodes: 'a=w,b=w' }, 'INPUT_INVALID', /"w" more than once/],
    ['a name that is also an address', { nodes: 'w,b=w' }, 'INPUT_INVALID', /"w" more than once/],
    ['no key', { 'ssh-private-key': '' }, 'INPUT_INVALID', /no SSH key/],
    ['a public key', { 'ssh-private-key': KEYS.user.publicKey }, 'SSH_KEY_INVALID', /it is a public key/],
    [
      'a key in one line',
      { 'ssh-private-key': KEYS.user.privateKey.replaceAll('\n', ' ') },
      'SSH_KEY_INVALID',
      /line breaks have become spaces/,
    ],
    [
      'a key file that is not there',
      { 'ssh-private-key': '', 'ssh-private-key-file': '/nope/key' },
      'INPUT_INVALID',
      /cannot read "\/nope\/key" \(ENOENT\)/,
    ],
    [
      'a known_hosts that is none',
      { 'ssh-known-hosts': 'hello' },
      'INPUT_INVALID',
      /known_hosts cannot be read: line 1/,
    ],
    [
      'an empty known_hosts file',
      { 'ssh-known-hosts': '', 'ssh-known-hosts-file': '/dev/null' },
      'INPUT_INVALID',
      /no host keys/,
    ],
    [
      'a fingerprint that is none',
      { 'ssh-host-key-fingerprints': 'MD5:aa' },
      'INPUT_INVALID',
      /Not a host key fingerprint/,
    ],
    [
      'a CRI socket that is no path',
      { 'cri-socket': 'tcp://1.2.3.4' },
      'INPUT_INVALID',
      /`cri-socket` must be an absolute path/,
    ],
    ['a CRI socket with a shell in it', { 'cri-socket': '/run/a;reboot' }, 'INPUT_INVALID', /`cri-socket` must be/],
    [
      'a namespace that cannot be one',
      { namespace: '../kube-system' },
      'INPUT_INVALID',
      /is not a name of a namespace/,
    ],
    [
      'a kubeconfig that is not there',
      { kubeconfig: '/nope/config' },
      'KUBECONFIG_INVALID',
      /there is no file "\/nope\/config"/,
    ],
    [
      'an inventory that is not there',
      { inventory: '/nope.yaml' },
      'INPUT_INVALID',
      /`inventory`: cannot read "\/nope.yaml"/,
    ],
  ])('%s has its own code, and a hint', (_what, texts, code, message) => {
    const error = failure({ ...GOOD, ...texts });
    expect(error.code).toBe(code);
    expect(error.message).toMatch(message);
    expect(error.message).not.toMatch(/problems with the inputs/);
    expect(error.hint).not.toBe('');
  });
});

describe('everything that is wrong', () => {
  it('is reported at once, each with its hint', () => {
    const error = failure({
      images: 'UPPER:1,app:1,app:1',
      nodes: 'a\na\nb c',
      'ssh-private-key': 'nonsense',
      'ssh-known-hosts': 'nonsense',
      'ssh-port': 'x',
      'cri-socket': 'x',
      namespace: 'X',
      smoke: 'pod',
    });
    expect(error.code).toBe('INPUT_INVALID');
    const lines = error.message.split('\n');
    expect(lines[0]).toBe('9 problems with the inputs:');
    const expected = [
      /`ssh-port`/,
      /UPPER/,
      /`images` names/,
      /"b c" is not a node/,
      /`nodes` names "a:/,
      /SSH private key/,
      /known_hosts/,
      /`cri-socket`/,
      /namespace/,
    ];
    expect(lines.slice(1)).toEqual(expected.map(pattern => expect.stringMatching(pattern)));
  });

  it('does not include the smoke pods’ settings when there are no smoke pods', () => {
    const { cluster, smoke } = read({ ...GOOD, smoke: 'none', namespace: 'X', kubeconfig: '/nope' });
    expect([cluster, smoke]).toEqual([undefined, undefined]);
  });
});

describe('the configuration of the project', () => {
  it('has the form of an inventory, and images and an archive besides', () => {
    const config = file(
      'project.yaml',
      'nodes: [w1, { host: w2, port: 2222 }]\nsettings:\n  images: [app:1, db:2]\n  ssh-user: core\n  smoke: none\n',
    );
    const { images: _i, nodes: _n, ...rest } = GOOD;
    const settings = read({ ...rest, config });
    expect(settings.images).toEqual(['app:1', 'db:2']);
    expect(settings.nodes.map(({ user, host, port }) => `${user}@${host}:${port}`)).toEqual([
      'core@w1:22',
      'core@w2:2222',
    ]);
    expect(settings.smoke).toBeUndefined();
  });

  it('overrides the inventory, which it may name; inputs override both', () => {
    const inventory = file('i.yaml', 'nodes: [i]\nsettings: { ssh-user: i, ssh-port: 1, namespace: i, kubectl: i }');
    const config = file(
      'c.yaml',
      `nodes: [c]\nsettings: { ssh-user: c, ssh-port: 2, namespace: c, inventory: ${inventory} }`,
    );
    const { nodes: _, ...rest } = GOOD;
    const settings = read({ ...rest, config, 'ssh-user': 'input' });
    expect(settings.nodes).toMatchObject([{ host: 'c', user: 'input', port: 2 }]);
    expect(settings.cluster).toMatchObject({ namespace: 'c', kubectl: 'i' });
    expect(read({ ...GOOD, config }).nodes).toMatchObject([{ host: '10.0.0.11' }]);
  });

  it('says all that is wrong with both files, and nothing of what they may have set', () => {
    const config = file('c.yaml', 'settings:\n  mode: plan\n  nodes: w1\n  config: x\n  ssh-private-key: x\n');
    const inventory = file('i.yaml', 'settings: { images: app:1 }');
    const error = failure({ config, inventory, images: 'app:1' });
    expect(error.message.split('\n')).toEqual([
      expect.stringContaining('2 problems'),
      expect.stringMatching(/c\.yaml:2: `mode` is given by the job, not by this file$/),
      expect.stringMatching(/c\.yaml:3: `nodes` stands beside `settings`, not in it$/),
      expect.stringMatching(/c\.yaml:4: `config` is given by the job/),
      expect.stringMatching(/c\.yaml:5: `ssh-private-key` is a secret/),
      expect.stringMatching(/i\.yaml:1: `images` is given by the job, not by the inventory/),
    ]);
  });

  it('is looked for by the command line alone, which says so', () => {
    const path = file('kube-sideload.yaml', 'settings: { namespace: here }');
    const host = recordingHost(GOOD);
    expect(readSettings(host, {}).cluster?.namespace).toBe('default');
    expect(readSettings({ ...host, defaultConfig: path }, {}).cluster?.namespace).toBe('here');
    expect(host.calls).toEqual([`info settings of ${path} in the working directory apply`]);
    const other = file('other.yaml', 'settings: { namespace: there }');
    const named = recordingHost({ ...GOOD, config: other });
    expect(readSettings({ ...named, defaultConfig: path }, {}).cluster?.namespace).toBe('there');
    expect(named.calls).toEqual([]);
  });
});

describe('files of the record', () => {
  it('are read with the rest, and what keeps them from being written is a problem of the inputs', () => {
    expect(read({ ...GOOD, 'report-json': 'r.json', 'report-dotenv': 'r.env' }).reports).toEqual({
      json: 'r.json',
      dotenv: 'r.env',
    });
    const error = failure({ ...GOOD, 'report-json': home, 'ssh-port': 'x' });
    expect(error.message).toMatch(/`ssh-port` must be .*\n.*`report-json`: ".*" is a directory/);
  });

  it('are known also when nothing else can be read, as far as they can be written', () => {
    const config = file('c.yaml', 'settings: { report-junit: j.xml }');
    const inputs = { config, inventory: '/nope.yaml', 'report-json': 'r.json', nodes: 'not a node' };
    expect(readReportFiles(recordingHost(inputs), {})).toEqual({ json: 'r.json', junit: 'j.xml' });
    expect(readReportFiles(recordingHost({ ...inputs, 'report-json': home }), {})).toEqual({});
  });
});

describe('an inventory of the runner', () => {
  const yaml = `
nodes:
  - 10.0.0.11=w1
  - { host: 10.0.0.12, name: w2, user: ci, port: 2222 }
settings:
  ssh-user: kube
  ssh-port: 22022
  namespace: smoke
  smoke-command: [/app, --version]
`;

  it('gives nodes and settings, so that a job needs images alone', () => {
    const key = file('key', KEYS.user.privateKey);
    const hosts = file('hosts', KNOWN_HOSTS);
    const inventory = file(
      'inventory.yaml',
      `${yaml}  ssh-private-key-file: ${key}\n  ssh-known-hosts-file: ${hosts}\n`,
    );
    const settings = read({ images: 'app:1' }, { KUBE_SIDELOAD_INVENTORY: inventory });
    expect(settings.nodes).toMatchObject([
      { label: 'w1', host: '10.0.0.11', port: 22022, user: 'kube', kubernetesName: 'w1' },
      { label: 'w2', host: '10.0.0.12', port: 2222, user: 'ci', kubernetesName: 'w2' },
    ]);
    expect(settings).toMatchObject({ cluster: { namespace: 'smoke' }, smoke: { command: ['/app', '--version'] } });
  });

  it('gives way to inputs, and defaults to it', () => {
    const inventory = file('inventory.yaml', yaml);
    const { nodes, cluster, smoke } = read({ ...GOOD, inventory, nodes: 'a', 'ssh-port': '23' });
    expect(nodes).toMatchObject([{ label: 'a', host: 'a', port: 23, user: 'kube', kubernetesName: undefined }]);
    expect(cluster?.namespace).toBe('smoke');
    expect(smoke?.timeoutMs).toBe(120_000);
  });

  it('is found by the input first, then by the variable, then in the configuration directory', () => {
    const at = (name: string) => file(name, `nodes: [${name.split('/')[0]}]`);
    at('.config/kube-sideload/inventory.yaml');
    at('xdg/kube-sideload/inventory.yaml');
    const label = (texts: Texts, env: NodeJS.ProcessEnv) => read({ ...GOOD, nodes: '', ...texts }, env).nodes[0]?.label;
    // `.config` is no name of a node: that it is read shows in the error.
    expect(failure({ ...GOOD, nodes: '' }).message).toContain('".config" is not a node');
    const xdg = { XDG_CONFIG_HOME: join(home, 'xdg') };
    expect(label({}, xdg)).toBe('xdg');
    expect(label({}, { ...xdg, KUBE_SIDELOAD_INVENTORY: at('variable/i.yaml') })).toBe('variable');
    expect(label({ inventory: at('input/i.yaml') }, { ...xdg, KUBE_SIDELOAD_INVENTORY: at('variable/i.yaml') })).toBe(
      'input',
    );
  });

  it('that is wrong is the only error: what it would have set is not missing', () => {
    const inventory = file('inventory.yaml', 'nodes: [a, b c]\nsettings:\n  ssh-prot: 23\n');
    const error = failure({ images: 'app:1', inventory });
    expect(error.code).toBe('INVENTORY_INVALID');
    expect(error.message.split('\n')).toEqual([
      expect.stringMatching(/inventory.yaml:1: "b c" is not a node/),
      expect.stringMatching(/inventory.yaml:3: there is no setting `ssh-prot`/),
    ]);
  });

  it('whose values are wrong is told with the others', () => {
    const inventory = file('inventory.yaml', 'settings: { ssh-port: 70000, smoke: maybe }');
    expect(failure({ ...GOOD, inventory }).message).toMatch(/`ssh-port` must be .*\n.*`smoke` must be/);
  });
});

describe('the way to a node', () => {
  const hop = (host: string, port: number, user: string) => ({ host, port, user });

  it('goes through the jump hosts that are set, by the same user, at port 22', () => {
    const { nodes, ssh } = read({
      ...GOOD,
      'ssh-jump': 'gw, ops@[fd00::1]:2222',
      'ssh-user': 'kube',
      'ssh-port': '23',
    });
    const jump = [hop('gw', 22, 'kube'), hop('fd00::1', 2222, 'ops')];
    expect(nodes).toMatchObject([{ port: 23, user: 'kube', jump }]);
    expect(ssh).toMatchObject({ jump, sudo: 'auto' });
  });

  it('is each node’s own in the inventory', () => {
    const inventory = file(
      'inventory.yaml',
      `
nodes:
  - { host: 10.0.0.11 }
  - { host: 10.0.0.12, jump: none, sudo: doas }
  - { host: 10.0.0.13, jump: "one, two:23" }
  - { host: 10.0.0.13, name: other, jump: [three] }
settings: { ssh-jump: gw, sudo: none }
`,
    );
    expect(read({ ...GOOD, nodes: '', inventory }).nodes).toMatchObject([
      { jump: [hop('gw', 22, 'root')], sudo: 'none' },
      { jump: [], sudo: 'doas' },
      { jump: [hop('one', 22, 'root'), hop('two', 23, 'root')], sudo: 'none' },
      { label: 'other', jump: [hop('three', 22, 'root')] },
    ]);
  });

  it('has what somebody said apart from what applies, for OpenSSH’s own defaults', () => {
    const { nodes } = read({ ...GOOD, nodes: 'a, ci@b:24', 'ssh-jump': 'gw', 'ssh-port': '23' });
    expect(nodes.map(({ given }) => given)).toEqual([
      { user: undefined, port: 23 },
      { user: 'ci', port: 24 },
    ]);
    expect(nodes[0]?.jump[0]?.given).toEqual({ user: undefined, port: undefined });
  });

  it.each(['gw=name', 'gw:0', 'a b', '-oProxyCommand=id', 'gw;id', 'none,gw', ''].map(text => [text]))(
    'is not through %j',
    text => {
      const inventory = file('inventory.yaml', `nodes: [{ host: a, jump: ${JSON.stringify(text)} }]`);
      const error = failure({ ...GOOD, nodes: '', inventory });
      expect(error.code).toBe('INVENTORY_INVALID');
    },
  );
});

describe('an ssh-agent', () => {
  const texts = { images: 'app:1', nodes: 'a', smoke: 'none', 'ssh-known-hosts': KNOWN_HOSTS };
  const env = { SSH_AUTH_SOCK: '/run/agent' };
  const login = (changes: Texts, environment = env) => read({ ...texts, ...changes }, environment).ssh.authentication;

  it('is asked when no key is given', () => {
    expect(login({})).toMatchObject({ agent: '/run/agent', key: undefined });
    expect(login({ 'ssh-agent': '/run/other' })).toMatchObject({ agent: '/run/other' });
  });

  it('is asked beside the key of the runner, also when that cannot be read', () => {
    file('.ssh/id_ed25519', KEYS.user.privateKey);
    expect(login({})).toMatchObject({ agent: '/run/agent', key: { fingerprint: KEYS.user.fingerprint } });
    file('.ssh/id_ed25519', generateKey('ed25519', 'open sesame').privateKey);
    expect(login({})).toMatchObject({ agent: '/run/agent', key: undefined });
  });

  it('gives way to a key, to a password, and to `off`', () => {
    expect(login({ 'ssh-private-key': KEYS.user.privateKey }).agent).toBeUndefined();
    expect(login({ 'ssh-password': 'swordfish' })).toMatchObject({ agent: undefined, password: 'swordfish' });
    expect(failure({ ...texts, 'ssh-agent': 'off' }, env).message).toMatch(/no SSH key/);
    expect(failure({ ...texts, 'ssh-agent': 'yes' }, env).message).toMatch(/`ssh-agent` must be/);
  });
});

describe('passwords', () => {
  it('lose the line break of the file that they were in, and have none inside', () => {
    const { ssh } = read({ ...GOOD, 'sudo-password': 'swordfish\n' });
    expect(ssh.sudoPassword).toBe('swordfish');
    expect(failure({ ...GOOD, 'sudo-password': 'sword\nfish' }).message).toMatch(
      /`sudo-password` has more than one line/,
    );
  });

  it('are masked, and a login by one is warned of', () => {
    const host = recordingHost({ ...GOOD, 'ssh-password': 'swordfish', 'sudo-password': 'marlin' });
    readSettings(host, {});
    expect(host.masked).toEqual(expect.arrayContaining(['swordfish', 'marlin']));
    expect(host.calls.filter(call => call.startsWith('warning'))).toEqual([
      expect.stringMatching(/a key .* is better/),
    ]);
    expect(host.calls.join('\n')).not.toContain('swordfish');
  });
});

describe('OpenSSH’s own client', () => {
  const texts = { images: 'app:1', nodes: 'a', smoke: 'none', 'ssh-transport': 'openssh' };

  it('needs neither a key nor host keys from here', () => {
    expect(read(texts).ssh.openssh).toEqual({
      key: undefined,
      agent: undefined,
      knownHosts: undefined,
      connectTimeoutMs: 20_000,
    });
  });

  it('gets what is given', () => {
    const key = file('key', KEYS.user.privateKey);
    const { ssh } = read({ ...texts, 'ssh-private-key-file': key, 'ssh-known-hosts': KNOWN_HOSTS, 'ssh-agent': 'off' });
    expect(ssh.openssh).toMatchObject({
      key: { file: key },
      agent: 'none',
      knownHosts: { text: `${KNOWN_HOSTS.trim()}\n` },
    });
  });

  it('is not given what it cannot take', () => {
    const fingerprints = { 'ssh-host-key-fingerprints': KEYS.ed25519.fingerprint };
    const error = failure({ ...texts, ...fingerprints, 'ssh-password': 'x', 'ssh-key-passphrase': 'y' });
    for (const name of ['ssh-password', 'ssh-key-passphrase', 'ssh-host-key-fingerprints']) {
      expect(error.message).toContain(`\`${name}\` cannot be used with \`ssh-transport: openssh\``);
    }
  });
});

describe('files of the runner', () => {
  it('that know hosts may have lines that cannot be read, unless the user names them', () => {
    const known = file('.ssh/known_hosts', `what is this\n${KNOWN_HOSTS}\n10.0.0.9 ssh-dss AAAA\n`);
    const host = recordingHost({ ...GOOD, 'ssh-known-hosts': '' });
    const presented = Buffer.from(KEYS.ed25519.publicKey.split(' ')[1] ?? '', 'base64');
    const { hostKeys } = readSettings(host, {}).ssh;
    expect(hostKeys.verify({ label: 'w', host: '10.0.0.11', port: 22 }, presented)).toBeUndefined();
    expect(host.calls.filter(call => call.startsWith('warning'))).toEqual([
      expect.stringMatching(/known_hosts, line 1: .*; it is left out/),
      expect.stringMatching(/known_hosts, line \d+: .*; it is left out/),
    ]);
    expect(failure({ ...GOOD, 'ssh-known-hosts': '', 'ssh-known-hosts-file': known }).message).toMatch(/line 1: /);
  });

  it('give the key and the host keys when no input does', () => {
    file('.ssh/id_ed25519', KEYS.user.privateKey);
    file('.ssh/known_hosts', KNOWN_HOSTS);
    const { ssh } = read({ images: 'app:1', nodes: 'a' });
    expect(ssh.authentication.key?.fingerprint).toBe(KEYS.user.fingerprint);
    const presented = Buffer.from(KEYS.ed25519.publicKey.split(' ')[1] ?? '', 'base64');
    expect(ssh.hostKeys.verify({ label: 'w', host: '10.0.0.11', port: 22 }, presented)).toBeUndefined();
  });

  it('give way to the file that an input names, and that to the key itself', () => {
    file('.ssh/id_ed25519', KEYS.ed25519.privateKey);
    const named = { ...GOOD, 'ssh-private-key-file': file('key', KEYS.rsa.privateKey) };
    expect(read({ ...named, 'ssh-private-key': '' }).ssh.authentication.key?.fingerprint).toBe(KEYS.rsa.fingerprint);
    expect(read(named).ssh.authentication.key?.fingerprint).toBe(KEYS.user.fingerprint);
  });

  it('are opened with the passphrase', () => {
    const key = generateKey('ed25519', 'open sesame');
    const path = file('key', key.privateKey);
    const texts = { ...GOOD, 'ssh-private-key': '', 'ssh-private-key-file': path };
    expect(read({ ...texts, 'ssh-key-passphrase': 'open sesame' }).ssh.authentication.key?.fingerprint).toBe(
      key.fingerprint,
    );
    expect(failure({ ...texts, 'ssh-key-passphrase': 'wrong' }).message).toMatch(/the passphrase is wrong/);
  });

  it.each([
    ['an empty home', () => {}],
    ['a home that is not there', () => vi.stubEnv('HOME', '/nonexistent')],
    [
      'a user without any home',
      () => {
        // What a container does whose user has no entry in /etc/passwd.
        const stub = vi.spyOn(os, 'homedir').mockImplementation(() => {
          throw new Error('A system error occurred: uv_os_homedir returned ENOENT (no such file or directory)');
        });
        syncBuiltinESMExports();
        onTestFinished(() => {
          stub.mockRestore();
          syncBuiltinESMExports();
        });
      },
    ],
  ])('are not needed: %s', (_what, arrange) => {
    arrange();
    expect(read(GOOD).images).toEqual(['app:1']);
    expect(failure({ ...GOOD, 'ssh-private-key': '' })).toMatchObject({
      code: 'INPUT_INVALID',
      message: expect.stringContaining('no SSH key'),
    });
  });
});

describe('a kubeconfig', () => {
  const content = `apiVersion: v1
users:
- name: ci
  user:
    token: very-secret-token
    password: "two words"
    client-key-data: LS0tLS1CRUdJTi
    client-certificate-data: LS0tPUBLIC
`;

  it('is a path or the content', () => {
    const path = file('config', content);
    expect(read({ ...GOOD, kubeconfig: path }).cluster?.kubeconfig).toEqual({ path });
    expect(read({ ...GOOD, kubeconfig: content }).cluster?.kubeconfig).toEqual({ content: content.trim() });
    const json = '{"apiVersion":"v1"}';
    expect(read({ ...GOOD, kubeconfig: json }).cluster?.kubeconfig).toEqual({ content: json });
  });

  it('has its credentials masked, and no other line', () => {
    const host = recordingHost({ ...GOOD, kubeconfig: content });
    readSettings(host, {});
    expect(host.masked.slice(1)).toEqual(['very-secret-token', 'two words', 'LS0tLS1CRUdJTi', '-----BEGIN']);
    const inJson = recordingHost({ ...GOOD, kubeconfig: '{"users":[{"user":{"token":"json-token"}}]}' });
    readSettings(inJson, {});
    expect(inJson.masked.slice(1)).toEqual(['json-token']);
  });

  it.each([
    ['whose line breaks are lost', content.replaceAll('\n', ' ')],
    ['in base64', Buffer.from(content).toString('base64')],
  ])('%s is an error without its content', (_what, kubeconfig) => {
    const error = failure({ ...GOOD, kubeconfig });
    expect(error.code).toBe('KUBECONFIG_INVALID');
    expect(error.message).toMatch(/line breaks are lost, or it is encoded/);
    expect(error.message).not.toContain('very-secret-token');
    expect(error.message).not.toContain(Buffer.from(content).toString('base64').slice(0, 40));
  });
});

describe('secrets', () => {
  it('are masked before anything can fail', () => {
    const texts = { ...GOOD, images: '', 'ssh-key-passphrase': 'open sesame' };
    const host = recordingHost(texts);
    expect(() => readSettings(host, {})).toThrow();
    expect(host.masked).toEqual([KEYS.user.privateKey, 'open sesame']);
  });

  it('are masked when they come from a file', () => {
    const host = recordingHost({
      ...GOOD,
      'ssh-private-key': '',
      'ssh-private-key-file': file('key', KEYS.user.privateKey),
    });
    readSettings(host, {});
    expect(host.masked).toEqual([KEYS.user.privateKey]);
  });

  it.each<[what: string, texts: Texts]>([
    ['a key for a path', { 'ssh-private-key': '', 'ssh-private-key-file': KEYS.user.privateKey }],
    [
      'a key without line breaks for a path',
      { 'ssh-private-key': '', 'ssh-private-key-file': KEYS.user.privateKey.replaceAll('\n', ' ') },
    ],
    ['a key for a time', { 'connect-timeout': KEYS.user.privateKey }],
    ['a key for an inventory', { inventory: KEYS.user.privateKey.replaceAll('\n', ' ') }],
  ])('do not get into the message when somebody gives %s', (_what, texts) => {
    const { message, hint } = failure({ ...GOOD, ...texts });
    const secret = KEYS.user.privateKey.split('\n')[2] ?? '';
    expect(secret).toHaveLength(70);
    expect(`${message} ${hint}`).not.toContain(secret.slice(0, 20));
  });
});

import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { ErrorCode } from '../../src/errors.ts';
import { EXIT } from '../../src/host/host.ts';
import { type Inputs, push, runAction, runCli } from '../shipped.ts';
import { generateKey, KEYS } from '../ssh/server.ts';
import { dockerArchive, sampleImage, sampleLayer, writeTar } from '../unit/image/archives.ts';
import { closedPort, expectRefusal } from './refusal.ts';

const ENCRYPTED = generateKey('ed25519', 'open sesame');

/** Files that the tests need, made before them; their names stand in the tables below. */
const directory = await mkdtemp(join(tmpdir(), 'kube-sideload-bad-'));
const at = (name: string) => join(directory, name);
const port = await closedPort();

/** Nothing is wrong with these, but that nobody listens at the node. */
const GOOD: Inputs = {
  archive: at('good.tar'),
  nodes: `127.0.0.1:${port}`,
  'ssh-private-key': KEYS.user.privateKey,
  'ssh-known-hosts': `[127.0.0.1]:${port} ${KEYS.ed25519.publicKey}`,
  smoke: 'none',
};

beforeAll(async () => {
  const image = sampleImage([await sampleLayer('etc/one'), await sampleLayer('etc/two', 'x'.repeat(9000))]);
  const entries = dockerArchive([[['app:1'], image]], 'docker');
  await writeTar(at('good.tar'), entries);
  const bytes = await readFile(at('good.tar'));
  await writeFile(at('truncated.tar'), bytes.subarray(0, bytes.length * 0.6));
  await writeFile(at('not-a.tar'), 'this is a letter, and it is long enough for a header. '.repeat(40));
  await writeFile(at('empty.tar'), '');
  await mkdir(at('directory'));
  const layer = entries.findIndex(({ content }) => (content?.length ?? 0) > 9000);
  await writeTar(at('no-layer.tar'), entries.toSpliced(layer, 1));
  await writeTar(
    at('corrupt.tar'),
    entries.map(entry =>
      entry.content?.equals(image.config) ? { ...entry, content: Buffer.from('{"os":"linux"}') } : entry,
    ),
  );
  await writeTar(at('no-manifest.tar'), [{ name: 'etc/passwd', content: Buffer.from('root') }]);
  await writeFile(
    at('broken.yaml'),
    'nodes:\n  - worker-1\n  - worker 2\nsettings:\n  ssh-prot: 22\n  ssh-private-key: x\n',
  );
  await writeFile(at('not.yaml'), 'nodes: [worker-1\n');
});

afterAll(() => rm(directory, { recursive: true, force: true }));

type Row = readonly [what: string, inputs: Inputs, code: ErrorCode, message: RegExp];

const references: readonly Row[] = [
  ['a space', 'app :1'],
  ['a quote', "app':1"],
  ['a double quote', 'app":1'],
  ['a command', 'app:$(id)'],
  ['a back quote', 'app:`id`'],
  ['a semicolon', 'app:1;id'],
  ['a carriage return', 'app\r:1'],
  ['a zero-width space', 'app\u200b:1'],
].map(([what = '', images = '']) => [
  `a reference with ${what}`,
  { images },
  'INPUT_INVALID',
  /the character ".*" cannot be part of one/,
]);

const refusedBeforeAnything: readonly Row[] = [
  ['no images', { images: '', archive: '' }, 'INPUT_INVALID', /`images` is empty/],
  ['an empty list of images', { images: ' , ,\n#nothing\n', archive: '' }, 'INPUT_INVALID', /`images` is empty/],
  ...references,
  ['a reference with a line break', { images: 'ap\np:1\n:2' }, 'INPUT_INVALID', /":2" is not an image reference/],
  [
    'a reference in capitals',
    { images: 'MyApp:1' },
    'INPUT_INVALID',
    /"MyApp:1" is not an image reference: .*lowercase/,
  ],
  ['the same image twice', { images: 'app:1,app:1' }, 'INPUT_INVALID', /`images` names .* more than once/],
  ['an unknown source', { source: 'registry' }, 'INPUT_INVALID', /`source` must be `auto` or .*, not "registry"/],
  ['an unknown gate', { smoke: 'yes' }, 'INPUT_INVALID', /`smoke` must be `pod` or `cri` or `none`, not "yes"/],
  ['a port that is none', { 'ssh-port': '22a' }, 'INPUT_INVALID', /`ssh-port` must be a port from 1 to 65535/],
  ['a user that is an option', { 'ssh-user': '-oProxyCommand=id' }, 'INPUT_INVALID', /`ssh-user` "-o.*" is not a name/],
  ['a user that is a command', { 'ssh-user': 'ci;id' }, 'INPUT_INVALID', /`ssh-user` "ci;id" is not a name of a user/],
  ['a user with a colour', { 'ssh-user': '\u001b[31mci' }, 'INPUT_INVALID', /`ssh-user` .* is not a name of a user/],
  ['no nodes', { nodes: '' }, 'INPUT_INVALID', /`nodes` is empty/],
  ['a list of no nodes', { nodes: ' , \n# worker-1' }, 'INPUT_INVALID', /`nodes` is empty/],
  ['a node that is a command', { nodes: 'worker-1;reboot' }, 'INPUT_INVALID', /"worker-1;reboot" is not a node/],
  ['a node that is an option', { nodes: '-oProxyCommand=id' }, 'INPUT_INVALID', /is not a node/],
  [
    'the same address twice',
    { nodes: '10.0.0.1,root@10.0.0.1:22' },
    'INPUT_INVALID',
    /`nodes` names "10.0.0.1:22" more than once/,
  ],
  [
    'the same Kubernetes node twice',
    { nodes: '10.0.0.1=w1,10.0.0.2=w1' },
    'INPUT_INVALID',
    /`nodes` names "w1" more than once/,
  ],
  ['no key', { 'ssh-private-key': '' }, 'INPUT_INVALID', /no SSH key/],
  [
    'an empty key file',
    { 'ssh-private-key': '', 'ssh-private-key-file': '/dev/null' },
    'SSH_KEY_INVALID',
    /it is empty/,
  ],
  [
    'a key whose line breaks are spaces',
    { 'ssh-private-key': KEYS.user.privateKey.replaceAll('\n', ' ') },
    'SSH_KEY_INVALID',
    /its line breaks have become spaces/,
  ],
  ['a public key', { 'ssh-private-key': KEYS.user.publicKey }, 'SSH_KEY_INVALID', /it is a public key/],
  ['an encrypted key alone', { 'ssh-private-key': ENCRYPTED.privateKey }, 'SSH_KEY_INVALID', /no passphrase was given/],
  [
    'a wrong passphrase',
    { 'ssh-private-key': ENCRYPTED.privateKey, 'ssh-key-passphrase': 'open barley' },
    'SSH_KEY_INVALID',
    /the passphrase is wrong/,
  ],
  ['half a key', { 'ssh-private-key': KEYS.user.privateKey.slice(0, 200) }, 'SSH_KEY_INVALID', /its end is cut off/],
  [
    'a known_hosts that is none',
    { 'ssh-known-hosts': '<html>\n' },
    'INPUT_INVALID',
    /known_hosts cannot be read: line 1/,
  ],
  ['no known_hosts', { 'ssh-known-hosts': '', 'ssh-known-hosts-file': '/dev/null' }, 'INPUT_INVALID', /no host keys/],
  [
    'a fingerprint that is none',
    { 'ssh-host-key-fingerprints': 'ab:cd' },
    'INPUT_INVALID',
    /Not a host key fingerprint/,
  ],
  ['an inventory that is not there', { inventory: at('gone.yaml') }, 'INPUT_INVALID', /`inventory`: cannot read/],
  [
    'an inventory that is a directory',
    { inventory: at('directory') },
    'INPUT_INVALID',
    /`inventory`: cannot read .*EISDIR/,
  ],
  ['an inventory that is no YAML', { inventory: at('not.yaml') }, 'INVENTORY_INVALID', /not\.yaml:\d+: /],
  [
    'an inventory with faults in several lines',
    { inventory: at('broken.yaml') },
    'INVENTORY_INVALID',
    /broken\.yaml:3: "worker 2" is not a node\n.*broken\.yaml:5: .*`ssh-prot`\n.*broken\.yaml:6: `ssh-private-key` is a secret/,
  ],
  [
    'a kubeconfig that is not there',
    { smoke: 'pod', kubeconfig: '/nope/config' },
    'KUBECONFIG_INVALID',
    /there is no file "\/nope\/config"/,
  ],
  ...(
    [
      ['a record below a file', 'report-json', '/dev/null/x', '/dev/null is not a directory'],
      ['a record where nothing can be made', 'report-json', '/proc/x/y.json', '/proc \\('],
      ['a record in a directory where nothing can be made', 'report-junit', '/proc/y.xml', '/proc \\('],
      ['a cache below a file', 'cache-dir', '/dev/null/x', '/dev/null is not a directory'],
      ['a cache where nothing can be made', 'cache-dir', '/proc/nope', '/proc \\('],
    ] as const
  ).map(
    ([what, input, path, fault]): Row => [
      what,
      { [input]: path },
      'INPUT_INVALID',
      new RegExp(`\`${input}\`: "${path}" cannot be written: ${fault}`),
    ],
  ),
  ['a namespace that is a path', { smoke: 'pod', namespace: '../x' }, 'INPUT_INVALID', /is not a name of a namespace/],
];

describe('refused before anything is done', () => {
  it.each(refusedBeforeAnything)('%s', async (_what, inputs, code, message) => {
    const outcome = await push({ ...GOOD, ...inputs });
    expectRefusal(outcome, code, message, EXIT.usage);
    expect(outcome.stdout).toBe('');
    expect(outcome.log.match(/Next step: /g)).toHaveLength(1);
  });
});

const refusedArchives: readonly Row[] = [
  ['that is not there', { archive: at('gone.tar') }, 'ARCHIVE_INVALID', /gone\.tar does not exist/],
  ['that is a directory', { archive: at('directory') }, 'ARCHIVE_INVALID', /is a directory/],
  ['that is empty', { archive: at('empty.tar') }, 'ARCHIVE_INVALID', /is empty/],
  ['that is cut off', { archive: at('truncated.tar') }, 'ARCHIVE_INVALID', /ends after \d+ bytes/],
  [
    'that is no tar',
    { archive: at('not-a.tar') },
    'ARCHIVE_INVALID',
    /not-a\.tar is not a tar archive: no header at byte 0/,
  ],
  ['that is no image', { archive: at('no-manifest.tar') }, 'ARCHIVE_INVALID', /neither manifest.json nor index.json/],
  ['that lacks a layer', { archive: at('no-layer.tar') }, 'ARCHIVE_INCOMPLETE', /layer/],
  ['whose bytes have changed', { archive: at('corrupt.tar') }, 'ARCHIVE_CORRUPT', /should be sha256:/],
  [
    'of another image',
    { images: 'web:2' },
    'IMAGE_NOT_FOUND',
    /does not hold .*web:2; it holds docker.io\/library\/app:1/,
  ],
];

describe('an archive', () => {
  it.each(refusedArchives)('%s', async (_what, inputs, code, message) => {
    const outcome = await push({ ...GOOD, ...inputs });
    expectRefusal(outcome, code, message);
    // The record is complete: what became of the node is in it too.
    expect(outcome.outputs).toMatchObject({ images: '', changed: 'false', 'bytes-sent': '0' });
    expect(outcome.nodes).toMatchObject([{ node: `127.0.0.1:${port}`, error: { code: 'SSH_UNREACHABLE' } }]);
    expect(outcome.stderr.trimEnd().split('\n').at(-1)).toContain(`[${code}]`);
  });

  it('is not looked for in an engine that is not there', async () => {
    const inputs = { ...GOOD, archive: '', images: 'app:1' };
    for (const source of ['auto', 'docker', 'podman']) {
      const outcome = await push({ ...inputs, source }, { env: { PATH: '/nonexistent' } });
      expectRefusal(outcome, 'SOURCE_UNAVAILABLE', /is not installed/);
    }
  });
});

it('every place that cannot be written is named at once', async () => {
  const places = { 'report-json': '/dev/null/x', 'report-junit': '/proc/x/y.xml', 'cache-dir': '/proc/nope' };
  const outcome = await push({ ...GOOD, ...places }, { env: { TMPDIR: '/proc/self/nope' } });
  expectRefusal(outcome, 'INPUT_INVALID', /4 problems with the inputs:/, EXIT.usage);
  for (const place of [...Object.values(places), '/proc/self/nope']) {
    expect(outcome.log).toContain(JSON.stringify(place));
  }
});

it('a bundle where nothing can be made is refused', async () => {
  const outcome = await runCli(['bundle', `--archive=${at('good.tar')}`, '--bundle=/proc/x/app.tar']);
  expectRefusal(outcome, 'INPUT_INVALID', /`bundle`: "\/proc\/x\/app\.tar" cannot be written: \/proc \(/, EXIT.usage);
});

it('a runner without an OpenSSH client is told of it, and by the node', async () => {
  const outcome = await push({ ...GOOD, 'ssh-transport': 'openssh' }, { env: { PATH: directory } });
  expectRefusal(outcome, 'INPUT_INVALID', /the program `ssh` cannot be started on the runner/, EXIT.usage);
  expect(outcome.nodes[0]?.error).toMatchObject({ code: 'INPUT_INVALID' });
});

it('a node that cannot be reached fails with an image that can be read', async () => {
  const outcome = await push(GOOD);
  expectRefusal(outcome, 'SSH_UNREACHABLE', /ECONNREFUSED/);
  expect(outcome.log).toContain('docker.io/library/app:1 from archive');
  expect(outcome.outputs.images).toBe('');
});

describe('several things that are wrong', () => {
  const inputs: Inputs = {
    images: 'App:1\nweb :2',
    nodes: 'a\na\nb c',
    'ssh-port': 'x',
    'ssh-private-key': KEYS.user.publicKey,
    'ssh-known-hosts': 'nonsense',
    smoke: 'maybe',
  };

  it.each([
    ['command line', push, EXIT.usage],
    ['action', runAction, EXIT.failed],
  ] as const)('are reported at once: %s', async (_what, run, exitCode) => {
    const outcome = await run(inputs);
    expectRefusal(outcome, 'INPUT_INVALID', /8 problems with the inputs:/, exitCode);
    for (const part of [
      'App:1',
      'web :2',
      'is not a node',
      'more than once',
      'ssh-port',
      'public key',
      'known_hosts',
      'smoke',
    ]) {
      expect(outcome.log).toContain(part);
    }
  });
});

describe('secrets', () => {
  const secretLines = (key: string) => key.split('\n').filter(line => line.length > 20 && !line.startsWith('-----'));
  const kubeconfig = 'apiVersion: v1\nusers: [{name: u, user: {token: token-of-the-cluster}}]\n';
  const rows: readonly (readonly [what: string, inputs: Inputs])[] = [
    ['in their place', {}],
    ['next to a wrong input', { 'ssh-port': 'x' }],
    ['wrong themselves', { 'ssh-private-key': ENCRYPTED.privateKey.replaceAll('\n', ' ') }],
    ['in the input of a path', { 'ssh-private-key-file': ENCRYPTED.privateKey, 'ssh-private-key': '' }],
    [
      'in the input of a path, in one line',
      { 'ssh-private-key-file': ENCRYPTED.privateKey.replaceAll('\n', ' '), 'ssh-private-key': '' },
    ],
    ['in the input of a choice', { smoke: ENCRYPTED.privateKey }],
    ['in a kubeconfig without line breaks', { smoke: 'pod', kubeconfig: kubeconfig.replaceAll('\n', ' ') }],
  ];

  it.each(rows)('never get into the log: %s', async (_what, changes) => {
    const inputs: Inputs = {
      ...GOOD,
      'ssh-private-key': ENCRYPTED.privateKey,
      'ssh-key-passphrase': 'open sesame',
      'report-json': at('report.json'),
      'report-junit': at('report.xml'),
      ...changes,
    };
    const cli = await push(inputs);
    const action = await runAction(inputs);
    // GitHub is told its masks on standard output, and shows none of these lines.
    const shown = action.log.replaceAll(/^::add-mask::.*$/gm, '');
    for (const secret of [...secretLines(ENCRYPTED.privateKey), 'open sesame', 'token-of-the-cluster']) {
      expect(cli.log).not.toContain(secret);
      expect(shown).not.toContain(secret);
      expect(action.summary).not.toContain(secret);
      for (const name of ['report.json', 'report.xml']) {
        expect(await readFile(at(name), 'utf8')).not.toContain(secret);
      }
    }
    expect([cli.code, action.code]).toEqual([Object.keys(changes).length === 0 ? EXIT.failed : EXIT.usage, 1]);
    expect([...cli.leftOnRunner, ...action.leftOnRunner]).toEqual([]);
  });
});

import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import type { Platform } from '../../../src/image/platform.ts';
import type { NodeFacts } from '../../../src/node/facts.ts';
import { parseKubelet } from '../../../src/node/kubelet.ts';
import { containerd } from '../../../src/runtime/containerd.ts';
import { runtimeOf } from '../../../src/runtime/detect.ts';

const FACTS: NodeFacts = {
  platform: { os: 'linux', architecture: 'amd64' },
  kubernetesName: 'worker-1',
  identity: undefined,
  privilege: 'root',
  criSocket: '/run/k3s/containerd/containerd.sock',
  criSocketOrigin: 'well-known socket',
  runtime: { name: 'containerd', version: 'v2.1.4' },
  distribution: 'k3s',
  tools: { ctr: ['/usr/local/bin/ctr'], crictl: ['/usr/local/bin/crictl'] },
  machineId: '0123456789abcdef0123456789abcdef',
  addresses: ['10.0.0.11'],
  instance: '17 /run/containerd/containerd.sock',
  importFlags: new Set(['--platform', '--local', '--all-platforms']),
  snapshotter: 'overlayfs',
  staged: [],
  politeness: [],
  imageRoot: '/var/lib/rancher/k3s/agent/containerd/io.containerd.snapshotter.v1.overlayfs',
  disk: { path: '/', sizeBytes: 2e9, freeBytes: 1e9 },
  kubelet: parseKubelet('', ''),
  workDisk: undefined,
  sandbox: undefined,
  isNarrow: false,
  leases: [],
  imageIds: [],
};
const AMD64 = FACTS.platform;
const STAGE = 'kube-sideload.invalid/t4y1q2abcdef:0';
const REFERENCE = 'docker.io/library/app:1';
const ID = `sha256:${'a'.repeat(64)}`;
const OTHER_ID = `sha256:${'b'.repeat(64)}`;

it('is found by its name', () => {
  expect(runtimeOf('containerd')).toBe(containerd);
});

describe('the command that imports', () => {
  const directory = mkdtempSync(join(tmpdir(), 'kube-sideload-import-'));
  const ctr = join(directory, 'ctr');
  writeFileSync(ctr, '#!/bin/sh\necho "ctr $*"; cat; exit $((CODE))\n', { mode: 0o755 });
  for (const name of ['sudo', 'doas']) {
    writeFileSync(join(directory, name), `#!/bin/sh\nprintf '${name} %s ' "$1"; shift; exec "$@"\n`, { mode: 0o755 });
  }
  afterAll(() => rmSync(directory, { recursive: true, force: true }));

  function run(facts: Partial<NodeFacts>, more: Readonly<Record<string, string>> = {}, platform: Platform = AMD64) {
    const [program = '', ...args] = containerd.importArchive(
      { ...FACTS, tools: { ctr: [ctr] }, ...facts },
      STAGE,
      platform,
    );
    const env = { ...process.env, ...more, PATH: `${directory}:${process.env.PATH}` };
    return spawnSync(program, args, { env, input: 'the archive', encoding: 'utf8' });
  }

  const line = `ctr --address ${FACTS.criSocket} --namespace k8s.io images import --base-name kube-sideload.invalid/t4y1q2abcdef`;
  it.each<[what: string, facts: Partial<NodeFacts>, said: string]>([
    ['as root', {}, `${line} --platform linux/amd64 --local -`],
    ['with sudo', { privilege: 'sudo' }, `sudo -n ${line} --platform linux/amd64 --local -`],
    ['with doas', { privilege: 'doas' }, `doas -n ${line} --platform linux/amd64 --local -`],
    ['without root', { privilege: 'none' }, `${line} --platform linux/amd64 --local -`],
    [
      'without crictl, which alone knows the snapshotter',
      { snapshotter: undefined },
      `${line} --platform linux/amd64 --local -`,
    ],
    [
      'for another snapshotter on containerd 2',
      { snapshotter: 'zfs' },
      `${line} --platform linux/amd64 --local --snapshotter zfs -`,
    ],
    [
      'for another snapshotter on containerd 1.6, which has no --local',
      { snapshotter: 'zfs', importFlags: new Set(['--platform']) },
      `${line} --platform linux/amd64 --snapshotter zfs -`,
    ],
  ])('%s', (_what, facts, said) => {
    expect(run(facts)).toMatchObject({ stdout: `${said}\nthe archive`, stderr: '', status: 0 });
  });

  it('names the platform of the image', () => {
    expect(run({}, {}, { os: 'linux', architecture: 'arm64', variant: 'v8' }).stdout).toContain(
      '--platform linux/arm64 ',
    );
  });

  it('ends with what ctr ends with, and adds no word', () => {
    expect(run({}, { CODE: '7' })).toMatchObject({ status: 7, stderr: '' });
  });

  it('has the stage name on its command line, by which a later run finds it', () => {
    expect(containerd.importArchive(FACTS, STAGE, AMD64)).toContain('kube-sideload.invalid/t4y1q2abcdef');
  });
});

describe('scripts', () => {
  const evil = 'app\'; $(reboot) `reboot` "$HOME"';
  it.each([
    ['inspect', containerd.inspect(FACTS, [evil])],
    ['tag', containerd.tag(FACTS, [{ from: evil, to: evil }])],
    ['remove', containerd.remove(FACTS, [evil])],
  ])('get references as variables and never as text: %s', (_what, { body, variables }) => {
    expect(body).not.toContain('reboot');
    expect(variables?.REFERENCES).toContain(evil);
    expect(variables?.SOCKET).toBe(FACTS.criSocket);
  });

  it('move references in pairs, from and to', () => {
    const { variables } = containerd.tag(FACTS, [
      { from: 's:0', to: 'a:1' },
      { from: 's:1', to: 'b:1' },
    ]);
    expect(variables?.REFERENCES?.split('\n')).toEqual(['s:0', 'a:1', 's:1', 'b:1']);
  });
});

/** The answer of a node that holds an image well, by section. */
const ANSWER: Readonly<Record<string, string>> = {
  'manifest 0': `sha256:${'c'.repeat(64)}`,
  'check 0': `${REFERENCE} application/vnd.oci.image.manifest.v1+json sha256:${'c'.repeat(64)} complete (3/3) 1.2 MiB/1.2 MiB true`,
  'config-digest 0': ID,
  'config 0': '{"os":"linux","architecture":"amd64","rootfs":{"type":"layers"}}',
  'cri 0': JSON.stringify({ status: { id: ID, repoTags: [REFERENCE] } }),
};

function held(sections: Readonly<Record<string, string | undefined>>) {
  const present = Object.entries({ ...ANSWER, ...sections }).filter(([, text]) => text !== undefined);
  return containerd.held(new Map(present as [string, string][]), [REFERENCE]).get(REFERENCE);
}

it('removes a name by itself', () => {
  const ctr = ['ctr', '--address', FACTS.criSocket, '--namespace', 'k8s.io'];
  expect(containerd.removeOne({ ...FACTS, tools: {} }, REFERENCE, ID)).toEqual([
    [...ctr, 'images', 'rm', REFERENCE],
    [...ctr, 'images', 'rm', ID],
  ]);
});

it('says of missing content what ctr says', () => {
  expect(containerd.lacksContent(`ctr: content digest ${ID}: not found`)).toBe(true);
  expect(containerd.lacksContent('ctr: content digest x: not found')).toBe(false);
});

describe('the answer', () => {
  it('is what the CRI says', () => {
    const known = { imageId: ID, os: 'linux', architecture: 'amd64', unpacked: true, witness: 'crictl' };
    expect(held({})).toEqual({ ...known, isPinned: false });
    const pinned = JSON.stringify({ status: { id: ID, pinned: true } });
    expect(held({ 'cri 0': pinned })).toEqual({ ...known, isPinned: true });
  });

  it('is what ctr says on a node without crictl', () => {
    expect(held({ 'cri 0': undefined })).toMatchObject({
      imageId: ID,
      isPinned: undefined,
      witness: 'ctr',
    });
  });

  it.each<[what: string, sections: Readonly<Record<string, string | undefined>>]>([
    ['ctr has no such reference', Object.fromEntries(Object.keys(ANSWER).map(name => [name, undefined]))],
    ['ctr has it and the CRI does not', { 'cri 0': 'time="…" level=fatal msg="no such image \\"app\\" present"' }],
    ['the CRI answers with something else', { 'cri 0': '{"status":{}}' }],
    ['the CRI answers with nothing', { 'cri 0': '' }],
    ['there is no crictl, and the manifest cannot be read', { 'cri 0': undefined, 'config-digest 0': '' }],
    ['there is no crictl, and no config', { 'cri 0': undefined, 'config-digest 0': undefined }],
    ['the CRI has what ctr has not', { 'manifest 0': undefined }],
  ])('is that nothing is held: %s', (_what, sections) => {
    expect(held(sections)).toBeUndefined();
  });

  it('is what the CRI says when ctr disagrees', () => {
    expect(held({ 'cri 0': JSON.stringify({ status: { id: OTHER_ID } }) })).toMatchObject({
      imageId: OTHER_ID,
      witness: 'crictl',
    });
  });

  it.each([
    ['false', `${REFERENCE} application/vnd.oci.image.manifest.v1+json sha256:cc complete (3/3) 1.2 MiB/1.2 MiB false`],
    ['nothing', ''],
    ['something else at its end', `${REFERENCE} true (3/3) false`],
    ['an error', 'ctr: snapshotter not loaded: zfs: invalid argument'],
  ])('is not unpacked unless `ctr images check` says true: %s', (_what, check) => {
    expect(held({ 'check 0': check })?.unpacked).toBe(false);
  });

  it('does not guess a platform that cannot be read', () => {
    expect(held({ 'config 0': 'ctr: content digest not found' })).toMatchObject({
      os: 'unknown',
      architecture: 'unknown',
    });
  });

  it('belongs to its own reference', () => {
    const sections = new Map(Object.entries(ANSWER).map(([name, text]) => [name.replace('0', '1'), text]));
    const answers = containerd.held(sections, ['absent:1', REFERENCE]);
    expect(answers.get('absent:1')).toBeUndefined();
    expect(answers.get(REFERENCE)?.imageId).toBe(ID);
  });
});

describe('the layers on a node', () => {
  const digest = (character: string) => `sha256:${character.repeat(64)}` as const;
  const ours = { digest: digest('e'), sizeBytes: 9, compression: 'zstd' } as const;
  const asked = [
    { diffId: digest('1'), chainId: digest('1'), blob: undefined },
    { diffId: digest('2'), chainId: digest('3'), blob: ours },
  ];
  const held = (content: readonly string[], snapshots: readonly string[] = []) =>
    containerd.heldLayers(
      new Map([
        ['content', content.join('\n')],
        ['snapshots', snapshots.join('\n')],
      ]),
      asked,
    );
  // After digest, size and first bytes stands what `content ls` has there: a rounded size, the age, the labels.
  const label = `400B\t14 seconds\tcontainerd.io/distribution.source.docker.io=app,containerd.io/uncompressed=${digest('1')}`;

  it('may be blobs of somebody else, whose compression shows in their first bytes', () => {
    expect(held([`${digest('a')} 12345 1f8b0800 ${label}`, `${digest('b')} 99 28b52ffd ${label}`])[0]).toEqual([
      { digest: digest('a'), sizeBytes: 12_345, compression: 'gzip' },
      { digest: digest('b'), sizeBytes: 99, compression: 'zstd' },
    ]);
    expect(held([`${digest('1')} 5 2e2f0000 ${label}`])[0]).toMatchObject([{ compression: 'none' }]);
  });

  it('are not taken for anything else when the blob cannot be read or is of no known form', () => {
    expect(held([`${digest('a')}   ${label}`, `${digest('b')} 5 2e2f0000 ${label}`])).toEqual([[], []]);
    expect(held([])).toEqual([[], []]);
    for (const line of [
      `x${digest('a')} 5 1f8b0800 ${label}`,
      `${digest('a')} 5x 1f8b0800 ${label}`,
      `${digest('a')} x5 1f8b0800 ${label}`,
      `${digest('a')} 5 1f8b0800 400B`,
    ]) {
      expect(held([line]), line).toEqual([[], []]);
    }
  });

  it('are not asked for when there are none', () => {
    expect(containerd.layers(FACTS, []).body).toBe('');
    expect(containerd.layers(FACTS, asked).body).not.toBe('');
  });

  it('are ours by digest, also when an import broke off, and by snapshot when blobs are discarded', () => {
    expect(held([digest('e')])).toEqual([[], [ours]]);
    expect(held([], [digest('3')])).toEqual([[], [ours]]);
    expect(held([], [digest('2')])).toEqual([[], []]);
  });

  it('are asked for with values that reach the shell as variables only', () => {
    const { body, variables } = containerd.layers(FACTS, asked);
    expect(body).not.toContain(digest('1'));
    expect(variables).toMatchObject({
      CONTENT: '/var/lib/rancher/k3s/agent/containerd/io.containerd.content.v1.content',
      WANTED: [digest('1'), digest('2'), digest('e')].join('\n'),
      BLOBS: digest('e'),
      CHAINS: [digest('1'), digest('3')].join('\n'),
    });
  });
});

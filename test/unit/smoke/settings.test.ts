import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it, onTestFinished } from 'vitest';
import type { InputName } from '../../../src/inputs.ts';
import { readSettings, type Settings } from '../../../src/settings.ts';
import { KEYS } from '../../ssh/server.ts';
import { recordingHost } from '../recording-host.ts';

type Texts = Partial<Record<InputName, string>>;

function read(texts: Texts): Settings {
  const good: Texts = {
    images: 'app:1',
    nodes: '10.0.0.11',
    'ssh-private-key': KEYS.user.privateKey,
    'ssh-known-hosts': `10.0.0.11 ${KEYS.ed25519.publicKey}\n`,
  };
  return readSettings(recordingHost({ ...good, ...texts }), {});
}

const MANIFEST = '{"kind":"Pod","spec":{"containers":[{"name":"app","image":"app:1"}]}}';

describe('the smoke pods', () => {
  it('are by default whatever the namespace admits, judged by the kubelet', () => {
    expect(read({}).smoke).toEqual({
      by: 'pod',
      timeoutMs: 120_000,
      command: [],
      expect: 'started',
      parallel: 50,
      security: 'auto',
      resources: { requests: { cpu: '10m', memory: '16Mi' }, limits: {} },
      template: undefined,
    });
  });

  it('may be made from a manifest, as content or as a file', () => {
    const directory = mkdtempSync(join(tmpdir(), 'kube-sideload-manifest-'));
    onTestFinished(() => rmSync(directory, { recursive: true }));
    const file = join(directory, 'pod.json');
    writeFileSync(file, MANIFEST);
    for (const given of [MANIFEST, file]) {
      const { smoke } = read({ 'smoke-manifest': given, 'smoke-expect': 'ready' });
      expect(smoke?.template?.containers).toEqual([
        { name: 'app', reference: 'docker.io/library/app:1', spelling: 'app:1' },
      ]);
    }
  });

  it('need no cluster when the runtimes are asked', () => {
    const { cluster, smoke } = read({ smoke: 'cri', kubeconfig: '/nope' });
    expect([cluster, smoke?.by]).toEqual([undefined, 'cri']);
  });

  it.each<[what: string, texts: Texts, message: RegExp]>([
    ['a manifest that is not there', { 'smoke-manifest': '/nope.yaml' }, /cannot read "\/nope.yaml"/],
    ['a manifest that is none', { 'smoke-manifest': '{"kind":"Service"}' }, /its kind is "Service"/],
    ['a manifest for crictl', { 'smoke-manifest': MANIFEST, smoke: 'cri' }, /`smoke-manifest` and `smoke: cri`/],
    [
      'a manifest and a command',
      { 'smoke-manifest': MANIFEST, 'smoke-command': 'a' },
      /`smoke-manifest` and `smoke-command`/,
    ],
    ['readiness without probes', { 'smoke-expect': 'ready' }, /needs a `smoke-manifest`/],
    ['resources that are none', { 'smoke-resources': 'gpu=1' }, /`smoke-resources` has "gpu=1"/],
    ['a number that is none', { 'smoke-parallel': '0' }, /`smoke-parallel` must be a number from 1 to 9999/],
  ])('are refused with %s', (_what, texts, message) => {
    expect(() => read(texts)).toThrow(message);
  });
});

describe('kubectl on a control-plane node', () => {
  it('is reached as the nodes are, unless it is said otherwise', () => {
    expect(read({ kubectl: 'ssh://10.0.0.1', 'ssh-user': 'core' }).cluster?.kubectl).toEqual({
      label: 'the control plane 10.0.0.1',
      host: '10.0.0.1',
      port: 22,
      user: 'core',
    });
    const { cluster } = read({ kubectl: 'ssh://admin@[fe80::1]:2222/', kubeconfig: '/root/admin.conf' });
    expect(cluster).toMatchObject({
      kubectl: { host: 'fe80::1', port: 2222, user: 'admin' },
      kubeconfig: { path: '/root/admin.conf' },
    });
  });

  it.each<[what: string, texts: Texts, message: RegExp]>([
    ['no address', { kubectl: 'ssh://' }, /is not a node/],
    ['a name of a node', { kubectl: 'ssh://a=b' }, /has more than an address/],
    [
      'a kubeconfig’s content',
      { kubectl: 'ssh://a', kubeconfig: 'apiVersion: v1\nkind: Config' },
      /absolute path on the node/,
    ],
    ['a relative kubeconfig', { kubectl: 'ssh://a', kubeconfig: 'admin.conf' }, /absolute path on the node/],
  ])('is refused with %s', (_what, texts, message) => {
    expect(() => read(texts)).toThrow(message);
  });
});

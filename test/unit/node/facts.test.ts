import { describe, expect, it } from 'vitest';
import type { SideloadError } from '../../../src/errors.ts';
import { type NodeFacts, parseFacts, parseMachine } from '../../../src/node/facts.ts';

/** What the probe brings back from a node with containerd 2.1 and crictl 1.36. */
const NODE: Readonly<Record<string, string>> = {
  uid: '0',
  machine: 'x86_64',
  'kubernetes-name': 'worker-1',
  'machine-id': '0123456789abcdef0123456789abcdef',
  addresses: '10.0.0.11\n127.0.0.1\n00000000000000000000000000000001',
  socket: '/run/containerd/containerd.sock',
  'socket-origin': 'kubelet command line',
  'socket-state': 'present',
  crictl: '/usr/local/bin/crictl',
  'cri-version': 'Version:  0.1.0\nRuntimeName:  containerd\nRuntimeVersion:  v2.1.4\nRuntimeApiVersion:  v1',
  snapshotter: 'overlayfs',
  ctr: '/usr/bin/ctr',
  distribution: 'kubeadm',
  runtime: 'containerd',
  instance: '17 /run/containerd/containerd.sock',
  'client-version':
    'Client:\n  Version:  2.1.4\n  Revision: 75cb2b7193e4\n  Go version: go1.24.5\n\nServer:\n  Version:  v2.1.4\n  Revision: 75cb2b7193e4\n  UUID: 6f1e',
  'import-help': 'OPTIONS:\n   --base-name value\n   --platform value\n   --local\n   --all-platforms',
  staged: 'kube-sideload.invalid/t4y1q2abcdef:0\nkube-sideload.invalid/t4y1q2abcdef:1',
  politeness: 'nice -n 10 ionice -c 2 -n 7',
  'image-root': '/var/lib/containerd/io.containerd.snapshotter.v1.overlayfs',
  disk: '/dev/vda1  103081248 61234567  41830297      60% /var/lib/containerd',
};

/** On a node with CRI-O, a user who is not root. */
const LOADER = {
  uid: '1000',
  'sudo-refused': 'sudo: a password is required',
  runtime: 'cri-o',
  'cri-version': undefined,
  'client-version': undefined,
  ctr: undefined,
  crictl: undefined,
  podman: '/usr/bin/podman',
};

function facts(sections: Readonly<Record<string, string | undefined>> = {}): NodeFacts {
  const present = Object.entries({ ...NODE, ...sections }).filter(([, text]) => text !== undefined);
  return parseFacts(new Map(present as [string, string][]), 'w1');
}

it('tells of a machine without a runtime what can be told', () => {
  const { 'socket-state': _state, ...sections } = NODE;
  expect(parseMachine(new Map(Object.entries(sections)), 'w1')).toMatchObject({
    platform: { architecture: 'amd64' },
    kubernetesName: 'worker-1',
  });
});

it.each([
  ['e8e175dc-8737-4dc3-be32-926c4362db18\npid:[4026531836]\nn1', true],
  ['e8e175dc-8737-4dc3-be32-926c4362db18', false],
  ['pid:[4026531836]\nn1', false],
  ['', false],
])(
  'knows a machine again by its boot, its processes and its name, by all three or not at all (%j)',
  (identity, isKnown) => {
    expect(facts({ identity }).identity).toBe(isKnown ? identity : undefined);
  },
);

function failure(sections: Readonly<Record<string, string | undefined>>): SideloadError {
  try {
    facts(sections);
  } catch (error) {
    return error as SideloadError;
  }
  return expect.unreachable('it should have failed');
}

it('tells of a node what later steps need', () => {
  expect(facts()).toEqual({
    platform: { os: 'linux', architecture: 'amd64' },
    kubernetesName: 'worker-1',
    privilege: 'root',
    criSocket: '/run/containerd/containerd.sock',
    criSocketOrigin: 'kubelet command line',
    runtime: { name: 'containerd', version: 'v2.1.4' },
    machineId: '0123456789abcdef0123456789abcdef',
    addresses: ['10.0.0.11'],
    instance: '17 /run/containerd/containerd.sock',
    distribution: 'kubeadm',
    tools: { ctr: ['/usr/bin/ctr'], crictl: ['/usr/local/bin/crictl'] },
    importFlags: new Set(['--base-name', '--platform', '--local', '--all-platforms']),
    politeness: ['nice', '-n', '10', 'ionice', '-c', '2', '-n', '7'],
    snapshotter: 'overlayfs',
    staged: ['kube-sideload.invalid/t4y1q2abcdef:0', 'kube-sideload.invalid/t4y1q2abcdef:1'],
    imageRoot: '/var/lib/containerd/io.containerd.snapshotter.v1.overlayfs',
    disk: { path: '/var/lib/containerd', sizeBytes: 103_081_248 * 1024, freeBytes: 41_830_297 * 1024 },
    kubelet: {
      imageGcHighThresholdPercent: 85,
      credentialPolicy: 'NeverVerifyPreloadedImages',
      credentialAllowlist: [],
    },
    workDisk: undefined,
    sandbox: undefined,
    isNarrow: false,
    leases: [],
    imageIds: [],
  });
});

it.each<[what: string, sections: Readonly<Record<string, string | undefined>>, expected: Partial<NodeFacts>]>([
  [
    'a user whom sudo lets load images by podman and ask for them',
    { ...LOADER, 'sudo-allows': 'load\ninspect' },
    {
      privilege: 'user',
      runtime: { name: 'cri-o', version: 'of unknown version' },
      tools: { podman: ['/usr/bin/podman'] },
    },
  ],
  ['a user with sudo', { uid: '1000', 'as-root': 'sudo -n' }, { privilege: 'sudo' }],
  [
    'a user whom sudo lets run some commands',
    { uid: '1000', 'as-root': 'sudo -n', narrow: 'yes' },
    { privilege: 'sudo', isNarrow: true },
  ],
  ['a user with doas', { uid: '1000', 'as-root': 'doas -n' }, { privilege: 'doas' }],
  ['a user who does without', { uid: '1000', 'as-root': '' }, { privilege: 'none' }],
  ['an arm64 machine', { machine: 'aarch64' }, { platform: { os: 'linux', architecture: 'arm64', variant: 'v8' } }],
  [
    'no crictl',
    { crictl: undefined, 'cri-version': undefined, snapshotter: undefined },
    { tools: { ctr: ['/usr/bin/ctr'] }, snapshotter: undefined },
  ],
  [
    'a client inside a multi-call binary',
    { distribution: 'k3s', ctr: '/usr/local/bin/k3s ctr', crictl: '/usr/local/bin/k3s crictl' },
    { distribution: 'k3s', tools: { ctr: ['/usr/local/bin/k3s', 'ctr'], crictl: ['/usr/local/bin/k3s', 'crictl'] } },
  ],
  [
    'CRI-O',
    {
      'cri-version': 'RuntimeName:  cri-o\nRuntimeVersion:  1.37.0',
      ctr: undefined,
      'client-version': undefined,
      podman: '/usr/bin/podman',
    },
    {
      runtime: { name: 'cri-o', version: '1.37.0' },
      tools: { podman: ['/usr/bin/podman'], crictl: ['/usr/local/bin/crictl'] },
    },
  ],
  [
    'a sandbox image that is there',
    { 'sandbox-image': 'registry.k8s.io/pause:3.10', 'sandbox-state': 'held' },
    { sandbox: { reference: 'registry.k8s.io/pause:3.10', isHeld: true } },
  ],
  [
    'a sandbox image that is missing',
    {
      'sandbox-image': 'registry.k8s.io/pause:3.10',
      'sandbox-state': 'level=fatal msg="no such image \\"registry.k8s.io/pause:3.10\\" present"',
    },
    { sandbox: { reference: 'registry.k8s.io/pause:3.10', isHeld: false } },
  ],
  [
    'a sandbox image of which the CRI says nothing',
    { 'sandbox-image': 'registry.k8s.io/pause:3.10', 'sandbox-state': 'context deadline exceeded' },
    { sandbox: undefined },
  ],
  ['a name in capitals, as kubelets lower it', { 'kubernetes-name': 'Worker-1' }, { kubernetesName: 'worker-1' }],
  ['a name that no node has', { 'kubernetes-name': 'a b' }, { kubernetesName: undefined }],
  ['a distribution that nobody knows', { distribution: '$(id)' }, { distribution: 'unknown' }],
  ['words before a command that are not ours', { politeness: 'sh -c id' }, { politeness: [] }],
  [
    'one of the words before a command',
    { politeness: 'ionice -c 2 -n 7' },
    { politeness: ['ionice', '-c', '2', '-n', '7'] },
  ],
  [
    'a sandbox image that no reference is',
    { 'sandbox-image': '-x;id', 'sandbox-state': 'held' },
    { sandbox: undefined },
  ],
  ['a staged image that no reference is', { staged: 'kube-sideload.invalid/*;id:0' }, { staged: [] }],
  ['another snapshotter', { snapshotter: 'zfs' }, { snapshotter: 'zfs' }],
  ['nothing staged', { staged: '' }, { staged: [] }],
  [
    'another disk for what is unpacked on the way',
    { 'work-disk': 'tmpfs 2048 1024 1024 50% /var/tmp' },
    { workDisk: { path: '/var/tmp', sizeBytes: 2048 * 1024, freeBytes: 1024 * 1024 } },
  ],
  [
    'a disk whose names have spaces',
    { disk: '/dev/mapper/vg-my disk 1000 400 600 40% /mnt/my images' },
    { disk: { path: '/mnt/my images', sizeBytes: 1000 * 1024, freeBytes: 600 * 1024 } },
  ],
  [
    'a disk that is full',
    { disk: '/dev/vda1 1000 1000 0 100% /' },
    { disk: { path: '/', sizeBytes: 1000 * 1024, freeBytes: 0 } },
  ],
])('understands %s', (_what, sections, expected) => {
  expect(facts(sections)).toMatchObject(expected);
});

describe('a node that cannot be used', () => {
  const dead = 'ctr: failed to dial "/run/containerd/containerd.sock": connection refused';
  it.each<[what: string, sections: Readonly<Record<string, string | undefined>>, code: string, message: RegExp]>([
    [
      'sudo asks for a password',
      { 'as-root': 'sudo -n', 'sudo-refused': 'sudo: a password is required' },
      'SUDO_REFUSED',
      /^`sudo -n` refused: sudo: a password is required/,
    ],
    ['sudo says nothing', { 'sudo-refused': '' }, 'SUDO_REFUSED', /without a word/],
    [
      'CRI-O without crictl',
      { runtime: 'cri-o', 'cri-version': undefined, crictl: undefined, podman: '/usr/bin/podman' },
      'RUNTIME_NOT_FOUND',
      /the runtime is CRI-O, and the node has no crictl/,
    ],
    [
      'sudo lets images be loaded, and nobody ask for them',
      { ...LOADER, 'sudo-allows': 'load' },
      'SUDO_REFUSED',
      /but not `podman image inspect`/,
    ],
    [
      'sudo lets images be asked for, and nobody load them',
      { ...LOADER, 'sudo-allows': 'inspect' },
      'SUDO_REFUSED',
      /a password is required/,
    ],
    [
      'podman is not what the runtime needs',
      { 'sudo-refused': 'sudo: a password is required', 'sudo-allows': 'load\ninspect' },
      'SUDO_REFUSED',
      /a password is required/,
    ],
    ['a machine nobody knows', { machine: 'sparc64' }, 'PROBE_FAILED', /"sparc64"/],
    ['no answer at all', { machine: undefined }, 'PROBE_FAILED', /unknown machine ""/],
    ['no socket', { socket: '', 'socket-origin': '', 'socket-state': '' }, 'RUNTIME_NOT_FOUND', /no kubelet runs/],
    [
      'a socket that does not exist',
      { 'socket-state': '' },
      'RUNTIME_NOT_RUNNING',
      /containerd.sock \(from: kubelet command line\)/,
    ],
    [
      'no client',
      { ctr: undefined, crictl: undefined, 'cri-version': undefined, runtime: undefined },
      'RUNTIME_NOT_FOUND',
      /no client program/,
    ],
    [
      'crictl without ctr',
      { ctr: undefined, 'client-version': undefined },
      'RUNTIME_NOT_FOUND',
      /containerd runs, but ctr is not installed/,
    ],
    [
      'another runtime',
      { 'cri-version': 'RuntimeName:  rkt\nRuntimeVersion:  1.30.0' },
      'RUNTIME_UNSUPPORTED',
      /is rkt/,
    ],
    [
      'a runtime that does not answer',
      { 'client-version': `Client:\n  Version:  2.1.4\n\n${dead}`, 'cri-version': 'E1124 connect: connection refused' },
      'RUNTIME_NOT_RUNNING',
      /connection refused/,
    ],
    [
      'a runtime that says nothing',
      { 'client-version': '', 'cri-version': '' },
      'RUNTIME_NOT_RUNNING',
      /does not answer$/,
    ],
    [
      'a runtime that answers with an error',
      {
        'client-version': 'Error response from daemon: client version 1.51 is too new',
        'cri-version': '',
        runtime: 'docker',
      },
      'RUNTIME_ERROR',
      /answers with an error: Error response from daemon: client version 1\.51/,
    ],
    [
      'a runtime that does not let the user in',
      {
        uid: '1000',
        user: 'deploy',
        'as-root': '',
        sockets: 'srw-rw---- 1 root root 0 Nov 29 03:35 /run/containerd/containerd.sock',
        'client-version':
          'Client:\n  Version:  2.1.4\n\nctr: dial unix /run/containerd/containerd.sock: connect: permission denied',
        'cri-version': 'dial unix /run/containerd/containerd.sock: connect: permission denied',
      },
      'RUNTIME_REFUSED',
      /does not let deploy in: dial unix \S+: connect: permission denied\nsrw-rw---- 1 root root/,
    ],
    [
      'a CRI that does not let in whom docker does',
      {
        user: 'deploy',
        uid: '1000',
        'as-root': '',
        docker: '/usr/bin/docker',
        runtime: 'docker',
        'cri-version': 'dial unix /run/cri-dockerd.sock: connect: permission denied',
      },
      'RUNTIME_REFUSED',
      /cri-dockerd\.sock: connect: permission denied/,
    ],
    [
      'a directory that is closed to the user',
      { user: 'deploy', 'socket-state': '', hidden: '/run/k3s' },
      'RUNTIME_REFUSED',
      /deploy may not look for \/run\/containerd\/containerd\.sock: \/run\/k3s is closed to it/,
    ],
    [
      'several sockets and no kubelet',
      { candidates: '/run/containerd/containerd.sock\n/run/k3s/containerd/containerd.sock' },
      'RUNTIME_AMBIGUOUS',
      /: \/run\/containerd\/containerd.sock, \/run\/k3s/,
    ],
    [
      'kubelets that differ',
      { candidates: '/run/a.sock w1\n/run/;id w2\n evil\\e' },
      'RUNTIME_AMBIGUOUS',
      /: \/run\/a.sock of w1, a default or nameless socket of w2, a default or nameless socket$/,
    ],
    [
      'a socket that is shell text',
      { socket: '/run/x;id' },
      'PROBE_FAILED',
      /the CRI socket is no path that can be used: "\/run\/x;id"/,
    ],
    ['a socket that climbs', { socket: '/run/../etc/x' }, 'PROBE_FAILED', /no path/],
    ['a socket on two lines', { socket: '/run/x\n::error::y' }, 'PROBE_FAILED', /"\/run\/x\\n::error::y"/],
    ['a socket from nowhere', { 'socket-origin': 'me' }, 'PROBE_FAILED', /does not say/],
    [
      'a program that is shell text',
      { ctr: '/usr/bin/ctr $(id)' },
      'PROBE_FAILED',
      /the program ctr of the node is no word/,
    ],
    ['a program without a path', { crictl: 'crictl' }, 'PROBE_FAILED', /the program crictl of the node is no path/],
    ['a snapshotter that is an option', { snapshotter: '--all' }, 'PROBE_FAILED', /the snapshotter is no snapshotter/],
    ['a root of images with a blank', { 'image-root': '/var/lib/a b' }, 'PROBE_FAILED', /keeps its images is no path/],
    [
      'a version that is a command of a workflow',
      { 'client-version': 'Server:\n Version: ::error::x' },
      'PROBE_FAILED',
      /the version of containerd/,
    ],
    ['no disk', { disk: 'df: /var/lib/containerd: No such file' }, 'PROBE_FAILED', /free disk space: df:/],
  ])('%s', (_what, sections, code, message) => {
    const error = failure(sections);
    expect(error).toMatchObject({ code, node: 'w1' });
    expect(error.message).toMatch(message);
  });
});

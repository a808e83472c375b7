import { describe, expect, it } from 'vitest';
import { SideloadError } from '../../src/errors.ts';
import type { PlatformImage, SourceImage } from '../../src/image/image.ts';
import type { Platform } from '../../src/image/platform.ts';
import type { NodeFacts } from '../../src/node/facts.ts';
import type { KubeletFacts } from '../../src/node/kubelet.ts';
import { planNode } from '../../src/plan.ts';
import { type CheckedNode, errorOf, preflight } from '../../src/preflight.ts';
import type { NodeObject } from '../../src/smoke/objects.ts';
import { nodeSettings } from './node/settings.ts';

const AMD64: Platform = { os: 'linux', architecture: 'amd64' };
const ARM64: Platform = { os: 'linux', architecture: 'arm64', variant: 'v8' };
const REFERENCE = 'docker.io/library/app:1';
const PAUSE = 'registry.k8s.io/pause:3.10';
const MB = 1_000_000;

function variant(character: string, platform: Platform, megabytes = 100): PlatformImage {
  return {
    platform,
    imageId: `sha256:${character.repeat(64)}`,
    user: '',
    config: async () => Buffer.from('{}'),
    layers: [
      { diffId: `sha256:${character.repeat(64)}`, sourceSizeBytes: megabytes * MB } as PlatformImage['layers'][0],
    ],
  };
}

function source(reference: string, ...variants: readonly PlatformImage[]): SourceImage {
  return { reference, origin: 'docker', variants };
}

const IMAGE = source(REFERENCE, variant('a', AMD64), variant('b', ARM64));

interface Changes {
  readonly platform?: Platform;
  readonly facts?: Partial<NodeFacts>;
  readonly kubelet?: Partial<KubeletFacts>;
  readonly object?: CheckedNode['object'];
  readonly isHeld?: boolean;
  readonly image?: SourceImage;
  readonly rest?: Partial<CheckedNode>;
}

/** A node with which nothing is wrong, and that lacks the image. */
function node(
  name: string,
  { platform = AMD64, facts, kubelet, object, isHeld = false, image = IMAGE, rest }: Changes = {},
) {
  const known: NodeFacts = {
    platform,
    kubernetesName: name,
    addresses: [],
    disk: { path: '/var', sizeBytes: 10_000 * MB, freeBytes: 9_000 * MB },
    sandbox: { reference: PAUSE, isHeld: true },
    kubelet: {
      imageGcHighThresholdPercent: 85,
      credentialPolicy: 'NeverVerifyPreloadedImages',
      credentialAllowlist: [],
      ...kubelet,
    },
    ...facts,
  } as NodeFacts;
  let plans: ReturnType<typeof planNode> = [];
  let error: SideloadError | undefined;
  try {
    plans = planNode([image], known, new Map());
  } catch (thrown) {
    error = thrown as SideloadError;
  }
  const checked: CheckedNode = {
    settings: nodeSettings(name),
    machine: known,
    facts: known,
    object,
    missing: [],
    nameFaults: [],
    images: plans.map(plan => ({
      ...plan,
      spelling: plan.reference,
      stage: isHeld ? undefined : 'stage:0',
      held: [],
      isWhole: false,
      estimate: { bytes: 0, isExact: true },
      isSandbox: false,
      hasMoved: false,
      isPinned: false,
      outcome: 'none',
      bytesSent: 0,
      smoke: undefined,
    })),
    error,
    ...rest,
  };
  return checked;
}

function found(
  nodes: readonly CheckedNode[],
  { isSmoked = true, isPinning = false, cluster, images = [IMAGE] }: Partial<Options> = {},
) {
  return preflight(nodes, images, { isSmoked, isPinning, cluster }).map(
    ({ node, severity, code }) => `${node} ${severity} ${code}`,
  );
}

interface Options {
  readonly isSmoked: boolean;
  readonly isPinning: boolean;
  readonly cluster: readonly NodeObject[];
  readonly images: readonly SourceImage[];
}

function object(name: string, changes: Omit<NodeObject, 'metadata'> = {}): NodeObject {
  return { metadata: { name }, ...changes };
}

describe('nothing is found', () => {
  it('on nodes that are well, of one architecture or of several', () => {
    expect(found([node('w1'), node('w2', { platform: ARM64, object: object('w2') })])).toEqual([]);
  });
});

describe('one thing that is wrong', () => {
  const notReady = object('w1', {
    status: { conditions: [{ type: 'Ready', status: 'False', reason: 'KubeletNotReady' }] },
  });
  it.each<[what: string, changes: Changes, pod: string | undefined, none?: string | undefined]>([
    [
      'an architecture that the image lacks',
      { platform: { os: 'linux', architecture: 's390x' } },
      'error PLATFORM_MISMATCH',
    ],
    ['a name that is not in the cluster', { object: 'absent' }, 'error NODE_NOT_IN_CLUSTER', undefined],
    ['a kubelet that does not answer', { object: notReady }, 'error NODE_NOT_READY', 'warning NODE_NOT_READY'],
    ['a cordoned node', { object: object('w1', { spec: { unschedulable: true } }) }, undefined],
    ['a disk too small for the layers', { facts: { disk: disk(99) } }, 'error DISK_FULL'],
    ['a full disk on a node that has the image', { facts: { disk: disk(99, 100) }, isHeld: true }, undefined],
    [
      'a sandbox image that is missing',
      { facts: { sandbox: { reference: PAUSE, isHeld: false } } },
      'error SANDBOX_IMAGE_MISSING',
      'warning SANDBOX_IMAGE_MISSING',
    ],
    ['a sandbox image that is not known', { facts: { sandbox: undefined } }, undefined],
    [
      'a policy that refuses what was imported',
      { kubelet: { credentialPolicy: 'AlwaysVerify' } },
      'error IMAGE_CREDENTIALS_POLICY',
    ],
    [
      'that policy and an allowlist, which it does not heed',
      { kubelet: { credentialPolicy: 'AlwaysVerify', credentialAllowlist: ['docker.io/library/app'] } },
      'error IMAGE_CREDENTIALS_POLICY',
    ],
    [
      'an allowlist with the image and others',
      { kubelet: allow('docker.io/library/db', 'docker.io/library/app') },
      undefined,
    ],
    [
      'a sandbox image whose configured name is none',
      { facts: { sandbox: { reference: 'Not a name', isHeld: false } } },
      'error SANDBOX_IMAGE_MISSING',
      'warning SANDBOX_IMAGE_MISSING',
    ],
    [
      'that policy where the image is',
      { kubelet: { credentialPolicy: 'AlwaysVerify' }, isHeld: true },
      'warning IMAGE_CREDENTIALS_POLICY',
    ],
    [
      'an allowlist without the image',
      { kubelet: allow('docker.io/library/ap', 'docker.io/libr/*') },
      'error IMAGE_CREDENTIALS_POLICY',
    ],
    ['an allowlist with the image', { kubelet: allow('docker.io/library/app') }, undefined],
    ['an allowlist with what is around it', { kubelet: allow('docker.io/library/*') }, undefined],
    ['a policy that verifies nothing', { kubelet: { credentialPolicy: 'NeverVerify' } }, undefined],
  ])('%s', (_what, changes, pod, none = pod) => {
    const known = (answer: string | undefined) => (answer === undefined ? [] : [`w1 ${answer}`]);
    expect(found([node('w1', changes)])).toEqual(known(pod));
    if (changes.object !== 'absent') {
      expect(found([node('w1', changes)], { isSmoked: false })).toEqual(known(none));
    } else {
      expect(found([node('w1', changes)], { isSmoked: false })).toEqual([]);
    }
  });

  it.each([
    ['refused', 'error SHORT_NAME_REFUSED', 'error SHORT_NAME_REFUSED'],
    ['doubtful', 'warning SHORT_NAME_DOUBTFUL', 'warning SHORT_NAME_DOUBTFUL'],
    ['unproven', 'warning SHORT_NAME_DOUBTFUL', 'error SHORT_NAME_DOUBTFUL'],
  ] as const)('a short name that is %s: an error when nobody will prove it', (kind, pod, none) => {
    const nameFaults = [{ spelling: 'app:1', reference: 'docker.io/library/app:1', why: 'why', kind }];
    expect(found([{ ...node('w1'), nameFaults }])).toEqual([`w1 ${pod}`]);
    expect(found([{ ...node('w1'), nameFaults }], { isSmoked: false })).toEqual([`w1 ${none}`]);
  });

  it('a runtime without pins, where images are to be pinned', () => {
    const old = node('w1', { facts: { runtime: { name: 'containerd', version: '1.6.20' } } });
    expect(found([old], { isPinning: true })).toEqual(['w1 warning PIN_UNSUPPORTED']);
    expect(found([old])).toEqual([]);
  });

  it('a disk that may be too small for layers and archive, and would be fuller than the kubelet likes', () => {
    expect(found([node('w1', { facts: { disk: disk(199) } })])).toEqual([
      'w1 warning DISK_TIGHT',
      'w1 warning IMAGE_GC_LIKELY',
    ]);
    expect(
      found([node('w1', { facts: { disk: disk(200, 1000) }, kubelet: { imageGcHighThresholdPercent: 100 } })]),
    ).toEqual([]);
  });

  it('a disk on which the kubelet will collect, counted as the kubelet does', () => {
    // 350 MB free of 1000, less 2 × 100: 15 % are left.
    expect(
      preflight([node('w1', { facts: { disk: disk(350, 1000) } })], [IMAGE], {
        isSmoked: true,
        isPinning: false,
        cluster: undefined,
      }),
    ).toMatchObject([
      {
        code: 'IMAGE_GC_LIKELY',
        severity: 'warning',
        message: '/var would be up to 85 % full, and the kubelet removes unused images from 85 % on',
      },
    ]);
    expect(found([node('w1', { facts: { disk: disk(360, 1000) } })])).toEqual([]);
    expect(
      found([node('w1', { facts: { disk: disk(360, 1000) }, kubelet: { imageGcHighThresholdPercent: 80 } })]),
    ).toHaveLength(1);
    expect(found([node('w1', { facts: { disk: disk(150, 1000) }, isHeld: true })])).toEqual([
      'w1 warning IMAGE_GC_LIKELY',
    ]);
  });

  it.each([
    [PAUSE, PAUSE],
    // As k3s has it, in its own configuration.
    ['docker.io/rancher/mirrored-pause:3.6', 'rancher/mirrored-pause:3.6'],
  ])('a sandbox image that is sent along is not missing: %s', (sent, configured) => {
    const pause = source(sent, variant('c', AMD64));
    const lacking = node('w1', { facts: { sandbox: { reference: configured, isHeld: false } }, image: pause });
    expect(found([lacking], { images: [pause] })).toEqual([]);
  });

  it('a sandbox image that is not among several that are sent', () => {
    const pause = source(PAUSE, variant('c', AMD64));
    const both = [...node('w1').images, ...node('w1', { image: pause }).images];
    const facts = { sandbox: { reference: PAUSE, isHeld: false } };
    expect(found([node('w1', { facts, rest: { images: both } })], { images: [IMAGE, pause] })).toEqual([]);
  });

  it('a policy that refuses one of two images, of which the other one is there', () => {
    const [image = expect.unreachable()] = node('w1').images;
    const images = [
      { ...image, stage: undefined },
      { ...image, reference: 'docker.io/library/db:1' },
    ];
    const refusing = node('w1', { kubelet: { credentialPolicy: 'AlwaysVerify' }, rest: { images } });
    const [finding] = preflight([refusing], [IMAGE], { isSmoked: true, isPinning: false, cluster: undefined });
    expect(finding).toMatchObject({
      severity: 'error',
      message: expect.stringMatching(/does not let pods use docker.io\/library\/app:1, docker.io\/library\/db:1$/),
    });
  });

  it('a disk for the archive alone that is too small', () => {
    const work = (freeMegabytes: number, path = '/var/tmp') => ({ ...disk(freeMegabytes), path });
    expect(found([node('w1', { facts: { workDisk: work(99) } })])).toEqual(['w1 warning DISK_TIGHT']);
    expect(found([node('w1', { facts: { workDisk: work(100) } })])).toEqual([]);
    expect(found([node('w1', { facts: { workDisk: work(99, '/var') } })])).toEqual([]);
    expect(found([node('w1', { facts: { disk: disk(100, 200) } })])).not.toContain('w1 error DISK_FULL');
  });

  it('the address of one node with the name of another, and which node it is', () => {
    const [own, other] = ['a'.repeat(32), 'b'.repeat(32)];
    const objectOf = (name: string, address: string, machineID: string) =>
      object(name, { status: { addresses: [{ type: 'InternalIP', address }], nodeInfo: { machineID } } });
    const [w1, w4] = [objectOf('w1', '10.0.0.11', own), objectOf('w4', '10.0.0.14', other)];
    const machine = { machineId: own, addresses: ['10.0.0.11'] };
    const wrong = node('w4', { facts: machine, object: w4 });
    expect(found([wrong])).toEqual(['w4 error NODE_OTHER_MACHINE']);
    expect(found([wrong], { isSmoked: false })).toEqual(['w4 warning NODE_OTHER_MACHINE']);
    expect(found([node('w1', { facts: machine, object: w1 })])).toEqual([]);
    const [known] = preflight([wrong], [IMAGE], { isSmoked: true, isPinning: false, cluster: [w1, w4] });
    expect(known?.hint).toContain('is the node w1: write `');
  });

  it('two addresses of one node', () => {
    const twin = { ...node('w1'), settings: { ...node('w1').settings, label: '10.0.0.1' } };
    expect(found([node('w1'), twin])).toEqual(['10.0.0.1 error INPUT_INVALID']);
    expect(found([node('w1'), twin], { isSmoked: false })).toEqual([]);
    const unknown = { machine: undefined, facts: undefined, images: [] };
    expect(found([node('w1', { rest: unknown }), node('w2', { rest: unknown })])).toEqual([]);
  });
});

describe('everything is found at once', () => {
  const runtime = new SideloadError('RUNTIME_NOT_RUNNING', 'containerd does not answer');
  const nodes = [
    node('w1'),
    node('w2', {
      platform: { os: 'linux', architecture: 's390x' },
      object: 'absent',
      rest: { facts: undefined, images: [], error: runtime },
    }),
    node('w3', { facts: { disk: disk(1), sandbox: { reference: PAUSE, isHeld: false } } }),
    node('w4', {
      rest: { machine: undefined, facts: undefined, images: [], error: new SideloadError('SSH_UNREACHABLE', 'no') },
    }),
  ];

  it('on all nodes, with all reasons', () => {
    expect(found(nodes)).toEqual([
      'w2 error RUNTIME_NOT_RUNNING',
      'w2 error PLATFORM_MISMATCH',
      'w2 error NODE_NOT_IN_CLUSTER',
      'w3 error SANDBOX_IMAGE_MISSING',
      'w3 error DISK_FULL',
      'w4 error SSH_UNREACHABLE',
    ]);
  });

  it('and becomes one error for each node, the first reason first', () => {
    const findings = preflight(nodes, [IMAGE], { isSmoked: true, isPinning: false, cluster: undefined });
    const error = errorOf(findings.filter(finding => finding.node === 'w3'));
    expect(error).toMatchObject({ code: 'SANDBOX_IMAGE_MISSING', node: 'w3' });
    expect(error?.message).toMatch(
      /^the CRI does not have .*\nalso \[DISK_FULL\]: the layers alone are 100\.0 MB; 1\.0 MB are free on \/var\n/,
    );
    expect(errorOf(findings.filter(finding => finding.node === 'w1'))).toBeUndefined();
    expect(errorOf(findings.map(finding => ({ ...finding, severity: 'warning' as const })))).toBeUndefined();
  });
});

describe('nodes that are not in the list', () => {
  const cluster = [
    object('w1'),
    object('w2'),
    object('cordoned', { spec: { unschedulable: true } }),
    object('tainted', { spec: { taints: [{ key: 'a', effect: 'NoSchedule' }] } }),
    { metadata: { name: 'other', labels: { 'kubernetes.io/arch': 's390x' } } },
  ];

  it('are reported when they could run the image', () => {
    expect(found([node('w1')], { cluster })).toEqual(['w2 warning NODE_NOT_LISTED']);
    expect(found([node('w1'), node('w2')], { cluster })).toEqual([]);
  });

  it('are not when a node of the list could not be asked for its name, and may be one of them', () => {
    const unknown = node('w9', { rest: { machine: undefined, facts: undefined, images: [] } });
    expect(found([node('w1'), unknown], { cluster })).toEqual([]);
  });
});

describe('what sudo does not let the user do', () => {
  const commands = ['ctr images tag'];

  it('is an error that names the command when a push needs it', () => {
    const missing = [{ right: { purpose: 'move a name' }, commands }];
    expect(found([node('w1', { rest: { missing } })])).toEqual(['w1 error SUDO_RIGHT_MISSING']);
  });

  it('is a warning that says what goes on without it otherwise', () => {
    const missing = [{ right: { purpose: 'see which layers are there', without: 'all layers are sent' }, commands }];
    const options = { isSmoked: true, isPinning: false, cluster: undefined };
    const [finding] = preflight([node('w1', { rest: { missing } })], [IMAGE], options);
    expect(finding).toMatchObject({
      severity: 'warning',
      message: expect.stringMatching(/see which layers are there: `ctr images tag`; without it all layers are sent$/),
    });
  });
});

describe('a list of mixed architectures', () => {
  it('gives each node its own variant of the image', () => {
    const nodes = [node('w1'), node('w2', { platform: ARM64 })];
    expect(nodes.map(({ images }) => images[0]?.image.imageId[7])).toEqual(['a', 'b']);
    expect(found(nodes)).toEqual([]);
  });

  it('stops before a byte is sent when the image lacks one of them, and names the node', () => {
    const only = source(REFERENCE, variant('a', AMD64));
    const nodes = [node('w1', { image: only }), node('w2', { platform: ARM64, image: only })];
    const findings = preflight(nodes, [only], { isSmoked: true, isPinning: false, cluster: undefined });
    expect(findings).toMatchObject([
      {
        node: 'w2',
        severity: 'error',
        code: 'PLATFORM_MISMATCH',
        message: `${REFERENCE} is built for linux/amd64, and the node is linux/arm64/v8`,
      },
    ]);
  });
});

function disk(freeMegabytes: number, sizeMegabytes = 1000): NodeFacts['disk'] {
  return { path: '/var', sizeBytes: sizeMegabytes * MB, freeBytes: freeMegabytes * MB };
}

function allow(...credentialAllowlist: readonly string[]): Partial<KubeletFacts> {
  return { credentialPolicy: 'NeverVerifyAllowlistedImages', credentialAllowlist };
}

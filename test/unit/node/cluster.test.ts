import { describe, expect, it } from 'vitest';
import { nodesOfCluster, takesPods, unreadiness } from '../../../src/node/cluster.ts';
import type { NodeSettings } from '../../../src/settings.ts';
import type { NodeObject } from '../../../src/smoke/objects.ts';
import { nodeSettings } from './settings.ts';

const JUMP = [{ host: 'gw', port: 22, user: 'ops' }];
const DEFAULTS = { user: 'root', port: 22, jump: JUMP, sudo: 'sudo' } as const;
const AMD64 = { os: 'linux', architecture: 'amd64' };
const ARM64 = { os: 'linux', architecture: 'arm64', variant: 'v8' };

function object(name: string, changes: Omit<NodeObject, 'metadata'> = {}, labels = {}): NodeObject {
  return {
    metadata: { name, labels: { 'kubernetes.io/os': 'linux', 'kubernetes.io/arch': 'amd64', ...labels } },
    ...changes,
  };
}

function addresses(...pairs: readonly [type: string, address: string][]): Pick<NodeObject, 'status'> {
  return { status: { addresses: pairs.map(([type, address]) => ({ type, address })) } };
}

describe('the nodes of a cluster', () => {
  it.each<[what: string, addresses: Pick<NodeObject, 'status'>, host: string]>([
    [
      'the internal address',
      addresses(['Hostname', 'w1'], ['ExternalIP', '203.0.113.1'], ['InternalIP', '10.0.0.1']),
      '10.0.0.1',
    ],
    ['the first internal address', addresses(['InternalIP', '10.0.0.1'], ['InternalIP', 'fd00::1']), '10.0.0.1'],
    ['else the external one', addresses(['Hostname', 'w1.example'], ['ExternalIP', '203.0.113.1']), '203.0.113.1'],
    ['else the host name', addresses(['Hostname', 'w1.example']), 'w1.example'],
    ['else the name', {}, 'w1'],
  ])('are at %s', (_what, status, host) => {
    expect(nodesOfCluster([object('w1', status)], [], DEFAULTS).nodes).toEqual([
      { label: 'w1', host, ...DEFAULTS, kubernetesName: 'w1', criSocket: undefined },
    ]);
  });

  it('include cordoned and tainted ones, and none of another system', () => {
    const objects = [
      object('cordoned', { spec: { unschedulable: true } }),
      object('control', { spec: { taints: [{ key: 'node-role.kubernetes.io/control-plane', effect: 'NoSchedule' }] } }),
      object('windows', {}, { 'kubernetes.io/os': 'windows' }),
      { metadata: { name: 'unlabelled' }, status: { nodeInfo: { operatingSystem: 'windows' } } },
      // Its kubelet has never reported.
      { metadata: { name: 'new' }, status: { nodeInfo: { operatingSystem: '', architecture: '' } } },
    ];
    expect(nodesOfCluster(objects, [], DEFAULTS).nodes.map(({ label }) => label)).toEqual([
      'cordoned',
      'control',
      'new',
    ]);
  });

  it.each<[what: string, entry: NodeSettings]>([
    ['name', nodeSettings('w1', { host: '203.0.113.9', kubernetesName: 'w1', user: 'ci', port: 23 })],
    ['address', nodeSettings('10.0.0.1', { user: 'ci', port: 23 })],
    ['name in place of the address', nodeSettings('w1', { user: 'ci', port: 23 })],
  ])('are replaced by the entry with their %s', (_what, override) => {
    const objects = [
      object('w1', addresses(['InternalIP', '10.0.0.1'])),
      object('w2', addresses(['InternalIP', '10.0.0.2'])),
    ];
    const { nodes, unused } = nodesOfCluster(objects, [override], DEFAULTS);
    expect(nodes).toMatchObject([
      { label: 'w1', host: override.host, user: 'ci', port: 23, kubernetesName: 'w1' },
      { label: 'w2', host: '10.0.0.2', user: 'root', port: 22 },
    ]);
    expect(unused).toEqual([]);
  });

  it('leave entries over that are for none of them', () => {
    const other = nodeSettings('10.0.0.9');
    expect(nodesOfCluster([object('w1')], [other], DEFAULTS).unused).toEqual([other]);
  });

  it('are refused when there are none, and when two entries are for one', () => {
    expect(() => nodesOfCluster([], [], DEFAULTS)).toThrow(/no Linux node/);
    const twice = [nodeSettings('10.0.0.1'), nodeSettings('b', { kubernetesName: 'w1' })];
    expect(() => nodesOfCluster([object('w1', addresses(['InternalIP', '10.0.0.1']))], twice, DEFAULTS)).toThrow(
      /10\.0\.0\.1 and b are both for the node w1/,
    );
  });
});

describe('a node that could run a pod', () => {
  it.each<[what: string, object: NodeObject, answer: boolean]>([
    ['is for the image’s platform', object('w1'), true],
    ['is for one of them', object('w1', {}, { 'kubernetes.io/arch': 'arm64' }), true],
    ['is for no other', object('w1', {}, { 'kubernetes.io/arch': 's390x' }), false],
    ['is for no other system', object('w1', {}, { 'kubernetes.io/os': 'windows' }), false],
    ['is not cordoned', object('w1', { spec: { unschedulable: true } }), false],
    ['does not keep pods away', object('w1', { spec: { taints: [{ key: 'a', effect: 'NoSchedule' }] } }), false],
    ['does not evict pods', object('w1', { spec: { taints: [{ key: 'a', effect: 'NoExecute' }] } }), false],
    ['may prefer other pods', object('w1', { spec: { taints: [{ key: 'a', effect: 'PreferNoSchedule' }] } }), true],
    ['may say nothing of itself', { metadata: { name: 'w1' } }, true],
    [
      'may have empty texts',
      { metadata: { name: 'w1' }, status: { nodeInfo: { operatingSystem: '', architecture: '' } } },
      true,
    ],
  ])('%s', (_what, node, answer) => {
    expect(takesPods(node, [AMD64, ARM64])).toBe(answer);
  });
});

it.each([
  [{ type: 'Ready', status: 'True', reason: 'KubeletReady' }, undefined],
  [{ type: 'Ready', status: 'False', reason: 'KubeletNotReady', message: 'no CNI' }, 'KubeletNotReady: no CNI'],
  [{ type: 'Ready', status: 'Unknown', reason: 'NodeStatusUnknown' }, 'NodeStatusUnknown'],
  [{ type: 'MemoryPressure', status: 'True' }, undefined],
])('says why a node is not ready: %j', (condition, reason) => {
  expect(unreadiness(object('w1', { status: { conditions: [condition] } }))).toBe(reason);
});

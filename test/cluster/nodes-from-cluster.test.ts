import { afterAll, afterEach, beforeAll, describe, expect, inject, it } from 'vitest';
import { build } from '../engines.ts';
import { type Inputs, leftOnNode, nodeNamed, plan, push, reach, referencesOn } from '../shipped.ts';
import { kubectl, smokePods, withRole } from './kubernetes.ts';

const lab = inject('lab');
const [n1, n2, n3] = [nodeNamed(lab, 'n1'), nodeNamed(lab, 'n2'), nodeNamed(lab, 'n3')];
const { nodes: _list, ...ACCESS } = reach(lab);
const FROM_CLUSTER: Inputs = { ...ACCESS, images: 'clustered:1', 'nodes-from-cluster': 'true' };

beforeAll(() => {
  build(lab, 'docker', 'clustered:1', 'clustered');
  kubectl(lab, ['label', 'node', 'n1', 'n2', 'pool=ci']);
});

afterAll(() => {
  kubectl(lab, ['label', 'node', 'n1', 'n2', 'pool-']);
});

afterEach(async () => {
  expect(smokePods(lab)).toEqual([]);
  expect(await leftOnNode(lab)).toEqual([]);
});

describe('nodes from the cluster', () => {
  it('are those that the selector takes, cordoned ones too, and an entry with a node’s address replaces the user', async () => {
    kubectl(lab, ['cordon', 'n2']);
    try {
      const outcome = await push(
        { ...FROM_CLUSTER, 'node-selector': 'pool=ci', nodes: `deploy@${n1.address}` },
        { lab },
      );
      expect(outcome.nodes.map(({ node, address, images }) => [node, address, images[0]?.smoke])).toEqual([
        ['n1', `${n1.address}:22`, 'Running'],
        ['n2', `${n2.address}:22`, 'Running'],
      ]);
      expect(outcome.log).toMatch(/^n1: deploy@.*, containerd:\/\/\S+ by the cluster's word$/m);
      expect(outcome.log).toMatch(/^n2: root@.*, cordoned$/m);
      expect(outcome.log).toMatch(/^n1: containerd .* as sudo/m);
      expect(outcome.code).toBe(0);
      expect(await referencesOn(lab, 'n3')).not.toContain('docker.io/library/clustered:1');
    } finally {
      kubectl(lab, ['uncordon', 'n2']);
    }
  });

  it('stop the job, on all nodes, when one is not ready, and say everything that is known of it', async () => {
    build(lab, 'docker', 'clustered:2', 'not sent');
    kubectl(
      lab,
      ['create', '-f', '-'],
      JSON.stringify({ apiVersion: 'v1', kind: 'Node', metadata: { name: 'ghost' } }),
    );
    try {
      const status = {
        addresses: [{ type: 'InternalIP', address: n1.address.replace(/\d+$/, '99') }],
        conditions: [{ type: 'Ready', status: 'Unknown', reason: 'NodeStatusUnknown', message: 'Kubelet stopped' }],
      };
      kubectl(lab, ['patch', 'node', 'ghost', '--subresource=status', '--patch', JSON.stringify({ status })]);
      const outcome = await push({ ...FROM_CLUSTER, images: 'clustered:2', 'connect-timeout': '3s' }, { lab });
      expect(outcome.code).toBe(1);
      expect(outcome.nodes.map(({ node, findings }) => [node, findings.map(({ code }) => code)])).toEqual([
        ['ghost', ['SSH_UNREACHABLE', 'NODE_NOT_READY']],
        ['n1', []],
        ['n2', []],
        ['n3', []],
      ]);
      expect(outcome.log).toMatch(/^ghost +error +NODE_NOT_READY +NodeStatusUnknown: Kubelet stopped$/m);
      expect(outcome.outputs['bytes-sent']).toBe('0');
      expect(await referencesOn(lab, 'n1')).not.toContain('docker.io/library/clustered:2');
    } finally {
      kubectl(lab, ['delete', 'node', 'ghost']);
    }
  });

  it.for<[what: string, inputs: Inputs, said: RegExp]>([
    [
      'an entry that is for none of them',
      { nodes: '10.99.99.99' },
      /`nodes` has 10\.99\.99\.99, which .* does not find/,
    ],
    ['a selector that is none', { 'node-selector': 'a=b=c' }, /`node-selector`: /],
    ['a selector that takes nothing', { 'node-selector': 'pool=none' }, /no Linux node that `node-selector` takes/],
  ])('are refused with %s', async ([, inputs, said], { expect }) => {
    const outcome = await plan({ ...FROM_CLUSTER, ...inputs }, { lab });
    expect(outcome.log).toMatch(said);
    expect(outcome.log).toContain('[INPUT_INVALID]');
    expect(outcome.code).toBe(2);
  });

  it('need the right to list nodes, and say so', async () => {
    await withRole(lab, 'create,get,list,watch,delete', async kubeconfig => {
      const outcome = await plan({ ...FROM_CLUSTER, namespace: 'smoke', kubeconfig }, { lab });
      expect(outcome.log).toContain('cannot list resource "nodes"');
      expect(outcome.log).toMatch(/Next step: Let the credentials `list` nodes .* \[CLUSTER_REFUSED\]/);
      expect(outcome.code).toBe(1);
    });
  });
});

describe('a list of nodes', () => {
  it('is compared with the cluster: who could run the image and is missing is reported, and stops nobody', async () => {
    const inputs = { ...reach(lab, [n1.address]), images: 'clustered:1' };
    kubectl(lab, ['taint', 'node', 'n3', 'kept=free:NoSchedule']);
    try {
      const outcome = await push(inputs, { lab });
      expect(outcome.log.match(/^\S+ +warning +NODE_NOT_LISTED/gm)).toEqual([expect.stringMatching(/^n2 /)]);
      expect(outcome.log).toMatch(/^warning: n2: the cluster may start pods there/m);
      expect(outcome.code).toBe(0);
    } finally {
      kubectl(lab, ['taint', 'node', 'n3', 'kept-']);
    }
    const chosen = await plan({ ...inputs, nodes: `${n1.address},${n2.address}`, 'node-selector': 'pool=ci' }, { lab });
    expect(chosen.log).not.toContain('NODE_NOT_LISTED');
  });

  it('goes uncompared, with one line, when nodes may not be listed', async () => {
    await withRole(lab, 'create,get,list,watch,delete', async kubeconfig => {
      const inputs = { ...reach(lab, [n3.address]), images: 'clustered:1', namespace: 'smoke', kubeconfig };
      const outcome = await plan(inputs, { lab });
      expect(outcome.log.match(/^the credentials may not list nodes: .*$/gm)).toHaveLength(1);
      expect(outcome.log).not.toContain('NODE_NOT_LISTED');
      expect(outcome.code).toBe(0);
    });
  });
});

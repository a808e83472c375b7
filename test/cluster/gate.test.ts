import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, describe, expect, inject, it } from 'vitest';
import { EXIT } from '../../src/host/host.ts';
import { build } from '../engines.ts';
import { enter } from '../lab/index.ts';
import { leftOnNode, nodeNamed, push, reach, referencesOn, runAction } from '../shipped.ts';
import { kubectl, kubectlThat, smokePods } from './kubernetes.ts';

const lab = inject('lab');
const directory = mkdtempSync(join(tmpdir(), 'kube-sideload-gate-'));
afterAll(() => rmSync(directory, { recursive: true, force: true }));

afterEach(async () => {
  expect(smokePods(lab)).toEqual([]);
  expect(await leftOnNode(lab)).toEqual([]);
});

describe('the gate says no', () => {
  it('when the image is removed from one node between import and smoke, and names that node and ErrImageNeverPull', async () => {
    build(lab, 'docker', 'vanishing:1', 'vanishing');
    const [, victim] = lab.nodes;
    const inside = `nsenter --target ${victim?.pid} --all -- /usr/bin/ctr -n k8s.io images rm --sync docker.io/library/vanishing:1`;
    const inputs = {
      ...reach(lab),
      images: 'vanishing:1',
      kubectl: kubectlThat(lab, directory, 'kubectl-removes', inside),
    };
    const outcome = await runAction(inputs, { lab });
    expect(outcome.code).toBe(1);
    expect(outcome.nodes.map(node => [node.node, node.error?.code])).toEqual([
      ['n1', undefined],
      ['n2', 'SMOKE_IMAGE_NEVER_PULL'],
      ['n3', undefined],
    ]);
    expect(outcome.nodes.map(node => node.images[0]?.smoke)).toEqual([
      'Running',
      expect.stringContaining('ErrImageNeverPull'),
      'Running',
    ]);
    // The kubelet's own words: phase and events of the pod.
    expect(outcome.nodes[1]?.error?.message).toMatch(/pod phase: Pending\n {2}event: Warning ErrImageNeverPull/);
    expect(outcome.log).toMatch(/^::error title=n2%3A ErrImageNeverPull/m);
    expect(outcome.log.match(/^::error title=/gm)).toHaveLength(1);
    expect(outcome.summary).toContain('SMOKE_IMAGE_NEVER_PULL');
  });

  it.for([
    [
      'crashes',
      ['/bin/sh', '-c', 'echo cannot find my configuration; exit 3'],
      'SMOKE_CRASHED',
      'log: cannot find my configuration',
    ],
    ['cannot start', ['/bin/no-such-program'], 'SMOKE_START', 'no such file'],
    ['runs out of memory', ['/bin/sh', '-c', 'x=a; while true; do x=$x$x; done'], 'SMOKE_OOM', 'OOMKilled'],
  ] as const)('when the program %s', async ([name, command, code, words], { expect }) => {
    const image = `${name.replaceAll(' ', '-')}:1`;
    build(lab, 'docker', image, name, [...command]);
    const limit = {
      apiVersion: 'v1',
      kind: 'LimitRange',
      metadata: { name: 'small' },
      spec: { limits: [{ type: 'Container', default: { memory: '32Mi' } }] },
    };
    kubectl(lab, ['apply', '-f', '-'], JSON.stringify(limit));
    const outcome = await push({ ...reach(lab), images: image }, { lab });
    kubectl(lab, ['delete', 'limitrange', 'small']);
    expect(outcome.code).toBe(1);
    expect(outcome.nodes.map(node => node.error?.code)).toEqual(lab.nodes.map(() => code));
    expect(outcome.log).toContain(words);
  });

  it('when somebody deletes the pods', async () => {
    build(lab, 'docker', 'deleted:1', 'deleted', ['/bin/no-such-program']);
    const deleting = kubectlThat(
      lab,
      directory,
      'kubectl-deletes',
      `(for i in $(seq 100); do KUBECONFIG=${lab.kubeconfig} ${lab.bin}/kubectl delete pod -l app.kubernetes.io/managed-by=kube-sideload --grace-period=0 --force | grep -q deleted && break; done) &`,
    );
    const outcome = await push({ ...reach(lab), images: 'deleted:1', kubectl: deleting }, { lab });
    expect(outcome.code).toBe(1);
    expect(outcome.nodes.map(node => node.error?.code)).toContain('SMOKE_DELETED');
  });

  it('when nothing happens until the time is over', async () => {
    build(lab, 'docker', 'slow:1', 'slow');
    kubectl(lab, ['taint', 'node', 'n1', 'smoke=no:NoSchedule']);
    try {
      // A node object without a kubelet behind it.
      kubectl(
        lab,
        ['create', '-f', '-'],
        JSON.stringify({ apiVersion: 'v1', kind: 'Node', metadata: { name: 'ghost' } }),
      );
      const outcome = await push(
        { ...reach(lab, [`${lab.nodes[0]?.address}=ghost`]), images: 'slow:1', 'smoke-timeout': '5s' },
        { lab },
      );
      expect(outcome.code).toBe(1);
      expect(outcome.nodes[0]?.error?.code).toBe('SMOKE_NODE_NOT_READY');
    } finally {
      kubectl(lab, ['delete', 'node', 'ghost']);
      kubectl(lab, ['taint', 'node', 'n1', 'smoke-']);
    }
  });
});

it('the control plane gets no image that another node has refused', async () => {
  build(lab, 'docker', 'refused:1', 'refused');
  const [control, refusing] = [nodeNamed(lab, 'n1'), nodeNamed(lab, 'n2')];
  const file = '/usr/local/bin/ctr';
  const script = `#!/bin/sh\ncase "$*" in *import*) echo 'no, says the test' >&2; exit 1 ;; esac\nexec /usr/bin/ctr "$@"\n`;
  await enter(refusing, ['sh', '-c', `printf '%s' "$0" >${file}; chmod 755 ${file}`, script]);
  kubectl(lab, ['label', 'node', control.name, 'node-role.kubernetes.io/control-plane=']);
  try {
    const outcome = await push({ ...reach(lab), images: 'refused:1' }, { lab });
    expect(outcome.nodes.map(node => node.error?.code)).toEqual([undefined, 'IMPORT_FAILED', undefined]);
    expect(outcome.nodes.map(node => node.bytesSent > 0)).toEqual([false, expect.any(Boolean), true]);
    expect(outcome.code).toBe(1);
  } finally {
    kubectl(lab, ['label', 'node', control.name, 'node-role.kubernetes.io/control-plane-']);
    await enter(refusing, ['rm', '-f', file]);
  }
});

describe('a cluster that cannot be used stops the job before a node is touched', () => {
  it.for([
    ['a kubeconfig that is not there', { kubeconfig: '/nonexistent/kubeconfig' }, 'KUBECONFIG_INVALID', EXIT.usage],
    ['a kubeconfig that is broken', { kubeconfig: 'clusters: [\nnonsense: {' }, 'KUBECONFIG_INVALID', EXIT.usage],
    ['credentials that are refused', 'token', 'CLUSTER_REFUSED', EXIT.failed],
    ['a server that does not listen', 'server', 'CLUSTER_UNREACHABLE', EXIT.failed],
    ['a namespace that is missing', { namespace: 'no-such-namespace' }, 'NAMESPACE_NOT_FOUND', EXIT.failed],
    ['a kubectl that is missing', { kubectl: 'no-such-kubectl' }, 'KUBECTL_NOT_FOUND', EXIT.failed],
  ] as const)('%s', async ([, change, code, exitCode], { expect }) => {
    build(lab, 'docker', 'untouched:1', 'untouched');
    const inputs = typeof change === 'string' ? { kubeconfig: changedKubeconfig(change) } : change;
    const outcome = await push({ ...reach(lab), images: 'untouched:1', ...inputs }, { lab });
    expect(outcome.code).toBe(exitCode);
    expect(outcome.log).toContain(`[${code}]`);
    expect(outcome.log).toContain('Next step: ');
    expect(outcome.nodes.filter(({ bytesSent }) => bytesSent > 0)).toEqual([]);
    for (const node of lab.nodes) {
      expect(await referencesOn(lab, node.name)).not.toContain('docker.io/library/untouched:1');
    }
    expect(outcome.leftOnRunner).toEqual([]);
  });

  it('a node name that the cluster does not know', async () => {
    build(lab, 'docker', 'untouched:1', 'untouched');
    const [first, second] = lab.nodes;
    const outcome = await push(
      { ...reach(lab, [`${first?.address}`, `${second?.address}=worker-2`]), images: 'untouched:1' },
      { lab },
    );
    expect(outcome.code).toBe(1);
    expect(outcome.nodes.map(node => node.error?.code)).toEqual([undefined, 'NODE_NOT_IN_CLUSTER']);
    expect(await referencesOn(lab, 'n1')).not.toContain('docker.io/library/untouched:1');
  });
});

/** The lab's kubeconfig as JSON, with one thing wrong. */
function changedKubeconfig(wrong: 'token' | 'server'): string {
  const config = JSON.parse(kubectl(lab, ['config', 'view', '--raw', '-o', 'json'])) as {
    clusters: { cluster: { server: string } }[];
    users: { user: object }[];
  };
  if (wrong === 'token') {
    config.users.forEach(user => {
      user.user = { token: 'not-a-token-of-this-cluster' };
    });
  } else {
    config.clusters.forEach(({ cluster }) => {
      cluster.server = 'https://127.0.0.1:9';
    });
  }
  return JSON.stringify(config);
}

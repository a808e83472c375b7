import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, describe, expect, inject, it } from 'vitest';
import { build } from '../engines.ts';
import { enter, type LabNode } from '../lab/index.ts';
import { crictl, type Inputs, leftOnNode, reach, runAction, runPost } from '../shipped.ts';

const lab = inject('lab');
const directory = mkdtempSync(join(tmpdir(), 'kube-sideload-cri-'));
afterAll(() => rmSync(directory, { recursive: true, force: true }));
/** One node of each runtime, and one without crictl; each has a kubelet, which kills what it has not started. */
const kinds = ['containerd', 'containerd-1.7', 'crio', 'docker'];
const nodes = lab.nodes.filter(({ kind }) => kinds.includes(kind));
const without = lab.nodes.filter(({ kind }) => kind === 'containerd-no-crictl');

function inputs(more: Inputs = {}, on = nodes): Inputs {
  const { kubeconfig: _none, ...own } = reach(
    lab,
    on.map(({ address, name }) => `${address}=${name}`),
  );
  return { ...own, images: 'docker.io/library/by-cri:1', source: 'docker', smoke: 'cri', ...more };
}

interface Sandboxes {
  readonly items: readonly { readonly id: string; readonly labels: Readonly<Record<string, string>> }[];
}

/**
 * Sandboxes of runs that asked no kubelet, and their files, on all nodes. Sandboxes of smoke pods that a kubelet has
 * started are its own to remove, after the pod is gone from the API, and lack the label.
 */
async function left(): Promise<readonly string[]> {
  const found = await Promise.all(
    nodes.map(async node => {
      const { items }: Sandboxes = JSON.parse(await crictl(lab, node, ['pods', '-o', 'json']));
      const pods = items.filter(({ labels }) => 'kube-sideload/pod' in labels).map(({ id }) => id);
      const { stdout } = await enter(node, ['sh', '-c', 'ls -d /var/log/kube-sideload* 2>/dev/null; true']);
      return `${pods.join(' ')}${stdout}`.trim();
    }),
  );
  return found.filter(text => text !== '');
}

/** Starts a sandbox of a run, and makes the directory of its files. */
async function leave(node: LabNode, run: string): Promise<void> {
  const file = join(directory, `${node.name}.json`);
  const pod = {
    metadata: { name: 'left', namespace: 'kube-sideload', uid: `left-${run}`, attempt: 0 },
    labels: { 'kube-sideload/run': run, 'kube-sideload/pod': 'left' },
    linux: { security_context: { namespace_options: { network: 0, pid: 1, ipc: 0 } } },
  };
  writeFileSync(file, JSON.stringify(pod));
  await crictl(lab, node, ['runp', file]);
  await enter(node, ['mkdir', `/var/log/kube-sideload-${run}-9`]);
}

afterEach(async () => {
  expect(await left()).toEqual([]);
  expect(await leftOnNode(lab)).toEqual([]);
});

describe('smoke: cri', () => {
  it('has each runtime start the image, and says that no kubelet was asked', async () => {
    build(lab, 'docker', 'by-cri:1', 'sleeps');
    const outcome = await runAction(inputs(), { lab });
    expect(
      outcome.nodes.map(node => [node.node, node.error?.code]),
      outcome.log,
    ).toEqual(nodes.map(({ name }) => [name, undefined]));
    expect(outcome.nodes.map(node => node.images[0]?.smoke)).toEqual(
      nodes.map(() => 'Running, by the runtime’s word, no kubelet was asked'),
    );
    expect(outcome.log).toContain('no kubelet is asked');
    expect(outcome.code).toBe(0);
  });

  it.for([
    ['crashes', ['/bin/sh', '-c', 'echo no configuration; exit 3'], 'SMOKE_CRASHED', 'log: no configuration'],
    ['is missing', ['/bin/no-such-program'], 'SMOKE_START', 'no-such-program'],
  ] as const)('fails when the program %s', async ([, command, code, words], { expect }) => {
    build(lab, 'docker', 'by-cri:1', code, [...command]);
    const outcome = await runAction(inputs({ 'ssh-user': 'deploy' }), { lab });
    expect(outcome.nodes.map(node => node.error?.code)).toEqual(nodes.map(() => code));
    expect(outcome.log).toContain(words);
    expect(outcome.code).toBe(1);
  });

  it('is cleaned up by the post step when the job was killed', async () => {
    build(lab, 'docker', 'by-cri:1', 'killed');
    const outcome = await runAction(inputs(), {
      lab,
      onLine: (line, pid) => {
        if (line === '::group::Start smoke pods') process.kill(pid, 'SIGKILL');
      },
    });
    expect(outcome.signal).toBe('SIGKILL');
    // As if the node had lost its power: else it notices by itself that nobody listens any more.
    for (const node of nodes) await leave(node, outcome.state.run ?? '');
    expect(await left()).toHaveLength(nodes.length);
    const post = await runPost(outcome, inputs(), { lab });
    expect(post.log).not.toContain('::warning');
  });

  it('is refused before anything is sent where there is no crictl', async () => {
    build(lab, 'docker', 'by-cri:1', 'sleeps');
    const outcome = await runAction(inputs({}, without), { lab });
    expect(outcome.nodes.map(node => node.error?.code)).toEqual(['CRICTL_NOT_FOUND']);
    expect(outcome.outputs['bytes-sent']).toBe('0');
  });
});

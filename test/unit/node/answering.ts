import type { NodeFacts } from '../../../src/node/facts.ts';
import { parseKubelet } from '../../../src/node/kubelet.ts';
import { type Node, newNode } from '../../../src/node/node.ts';
import type { SshConnection } from '../../../src/ssh/connect.ts';
import { nodeSettings } from './settings.ts';

/** A node of containerd with which nothing is wrong. */
export const FACTS: NodeFacts = {
  platform: { os: 'linux', architecture: 'amd64' },
  kubernetesName: 'w1',
  identity: undefined,
  privilege: 'root',
  isNarrow: false,
  leases: [],
  imageIds: [],
  criSocket: '/run/containerd/containerd.sock',
  criSocketOrigin: 'well-known socket',
  runtime: { name: 'containerd', version: 'v2.1.9' },
  distribution: 'kubeadm',
  tools: { ctr: ['/usr/bin/ctr'], crictl: ['/usr/bin/crictl'] },
  machineId: '0123456789abcdef0123456789abcdef',
  addresses: ['10.0.0.11'],
  instance: '17 /run/containerd/containerd.sock',
  importFlags: new Set(),
  snapshotter: 'overlayfs',
  staged: [],
  politeness: [],
  imageRoot: '/var/lib/containerd',
  disk: { path: '/', sizeBytes: 2e9, freeBytes: 1e9 },
  kubelet: parseKubelet('', ''),
  workDisk: undefined,
  sandbox: undefined,
};

/** A script as it came to the node. */
export interface AskedScript {
  readonly text: string;
  /** The value of one of its variables; empty when it has none of that name. */
  variable(name: string): string;
}

/** What a script says, by section; `undefined` when it ends with an error. */
export type Answer = Readonly<Record<string, string>> | undefined;

/** A connection to a node whose scripts are answered by the test, in place of a shell. */
export function answering(answer: (script: AskedScript) => Answer): SshConnection & { readonly asked: AskedScript[] } {
  const asked: AskedScript[] = [];
  return {
    asked,
    target: { label: 'w1', host: 'w1', port: 22, user: 'root' },
    run: async (_argv, { stdin, signal } = {}) => {
      signal?.throwIfAborted();
      const text = String(stdin);
      const mark = /@@[0-9a-f]+/.exec(text)?.[0] ?? '';
      const variable = (name: string) => new RegExp(`^${name}='([^']*)'$`, 'm').exec(text)?.[1] ?? '';
      asked.push({ text, variable });
      const sections = answer({ text, variable });
      const said = Object.entries({ ...sections, end: '' }).map(([name, what]) => `\n${mark} ${name}\n${what}`);
      return sections === undefined
        ? { code: 1, stdout: '', stderr: 'no, says the node' }
        : { code: 0, stdout: said.join(''), stderr: '' };
    },
    close: async () => {},
  };
}

/** A node that is connected, and answers as the test wants. */
export function answeringNode(answer: (script: AskedScript) => Answer, facts: Partial<NodeFacts> = {}): Node {
  return Object.assign(newNode(nodeSettings('w1')), {
    connection: answering(answer),
    facts: { ...FACTS, ...facts },
  });
}

/** What containerd says to the question what it holds under names, of which it has these. */
export function holds(
  script: AskedScript,
  images: Readonly<
    Record<string, { readonly imageId: string; readonly pinned?: boolean; readonly unpacked?: boolean }>
  >,
): Answer {
  const sections: Record<string, string> = {};
  for (const [number, reference] of script.variable('REFERENCES').split('\n').entries()) {
    const image = images[reference];
    if (image === undefined) continue;
    sections[`manifest ${number}`] = `sha256:${'c'.repeat(64)}`;
    sections[`check ${number}`] = `${reference} type sha256:cc complete (1/1) 1 B/1 B ${image.unpacked ?? true}`;
    sections[`config ${number}`] = '{"os":"linux","architecture":"amd64"}';
    sections[`cri ${number}`] = JSON.stringify({ status: { id: image.imageId, pinned: image.pinned ?? false } });
  }
  return sections;
}

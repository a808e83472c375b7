import type { NodeFacts } from '../node/facts.ts';

/** The first patches of these versions whose CRI heeds the label, by containerd's release notes. */
const FIRST_PATCHES: Readonly<Record<string, number>> = { '1.6': 25, '1.7': 10 };

/** Why images on a node cannot be pinned; `undefined` where they can. Pure. */
export function pinFault({
  runtime: { name, version },
  privilege,
}: Pick<NodeFacts, 'runtime' | 'privilege'>): string | undefined {
  if (name === 'docker') {
    return 'cri-dockerd has no pinning';
  }
  if (privilege === 'user') {
    return 'the user may load images there, and pin none';
  }
  const [, line = '', patch = ''] = /^v?(\d+\.\d+)\.(\d+)/.exec(version) ?? [];
  const first = name === 'containerd' ? FIRST_PATCHES[line] : undefined;
  return first !== undefined && Number(patch) < first
    ? `containerd ${version} has no pinning, which came with ${line}.${first}`
    : undefined;
}

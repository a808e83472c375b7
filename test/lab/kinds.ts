import { type KubeletLayout, kubeadm } from './kubelet.ts';
import { layouts } from './layouts.ts';
import { bookworm, type Rootfs, sid, trixie } from './rootfs.ts';
import type { Runtime } from './runtime.ts';
import { containerd } from './runtimes/containerd.ts';
import { crio } from './runtimes/crio.ts';
import { docker } from './runtimes/docker.ts';
import type { TreeFile } from './state.ts';

/** What a node is: a root filesystem, a runtime, a kubelet, and where things are. Another kind of node is another row. */
export interface NodeKind {
  readonly rootfs: Rootfs;
  readonly runtime: Runtime;
  readonly kubelet: KubeletLayout;
  /** Where crictl is, and the configuration that names the runtime to it; undefined for a node without. */
  readonly crictl: { readonly program: string; readonly configuration: string } | undefined;
  /** Directories that must be on a disk, besides the runtime's and the kubelet's. */
  readonly data?: readonly string[];
  /** Programs of the root filesystem that this kind has elsewhere: from, to. */
  readonly moved?: Readonly<Record<string, string>>;
  /** Written over the root filesystem, besides what the runtime and the kubelet need. */
  readonly files?: Readonly<Record<string, string | TreeFile>>;
  /** Shell text that runs in the machine, as root, before anything is started. */
  readonly setup?: string;
  /** Where the node keeps a kubeconfig of the cluster's administrator, if it does. */
  readonly adminKubeconfig?: string;
}

/** A node of kubeadm, which has its runtime from a package. */
const ordinary = {
  rootfs: sid,
  kubelet: kubeadm,
  crictl: { program: '/usr/local/bin/crictl', configuration: '/etc/crictl.yaml' },
};

export const kinds = {
  containerd: { ...ordinary, runtime: containerd() },
  'containerd-1.7': { ...ordinary, rootfs: trixie, runtime: containerd({ configuration: 2 }) },
  'containerd-1.6': { ...ordinary, rootfs: bookworm, runtime: containerd({ configuration: 2 }) },
  'containerd-native': { ...ordinary, runtime: containerd({ snapshotter: 'native' }) },
  'containerd-discard': { ...ordinary, runtime: containerd({ discardUnpackedLayers: true }) },
  'containerd-moved': {
    ...ordinary,
    runtime: containerd({
      places: { socket: '/srv/containerd/cri.sock', root: '/data/containerd', disk: '/data/containerd' },
    }),
  },
  'containerd-flag': {
    ...ordinary,
    runtime: containerd(),
    kubelet: { ...kubeadm, endpoint: 'on command line' },
  },
  'containerd-no-crictl': { ...ordinary, runtime: containerd(), crictl: undefined },
  crio: { ...ordinary, runtime: crio() },
  'crio-enforcing': { ...ordinary, runtime: crio({ shortNames: 'enforcing' }) },
  docker: { ...ordinary, runtime: docker },
  ...layouts,
} as const satisfies Readonly<Record<string, NodeKind>>;

export type NodeKindName = keyof typeof kinds;

export const kindNames = Object.keys(kinds) as readonly NodeKindName[];

/** @throws for a name that no kind has, with those that there are. */
export function kindNamed(name: string): NodeKindName {
  const found = kindNames.find(kind => kind === name);
  if (found === undefined) throw new Error(`no kind of node is ${name}: they are ${kindNames.join(', ')}`);
  return found;
}

/** Where a distribution keeps its CRI socket and the runtime's client programs. */
export interface Distribution {
  readonly name: string;
  readonly runtime: 'containerd' | 'cri-o' | 'docker';
  /** Absolute path, below /run where /var/run is the same. */
  readonly socket: string;
  /** The client as one would type it; a multi-call binary has its name in front. */
  readonly client: string;
  readonly crictl: string;
  /** Where images are, for nodes whose CRI cannot be asked. */
  readonly root: string;
  /**
   * Where the kubelet's flags are written, when it is part of another process: a k3s configuration (`.yaml`), or a file
   * with a flag a line.
   */
  readonly kubelet?: string;
}

/**
 * Every distribution is a row. A node is of the first one whose socket is the kubelet's and whose client is there; the
 * sockets are also where a runtime is looked for when no kubelet tells, most common first.
 */
export const DISTRIBUTIONS: readonly Distribution[] = [
  {
    name: 'kubeadm',
    runtime: 'containerd',
    socket: '/run/containerd/containerd.sock',
    client: 'ctr',
    crictl: 'crictl',
    root: '/var/lib/containerd',
  },
  {
    name: 'k3s',
    runtime: 'containerd',
    socket: '/run/k3s/containerd/containerd.sock',
    client: 'k3s ctr',
    crictl: 'k3s crictl',
    root: '/var/lib/rancher/k3s/agent/containerd',
    kubelet: '/etc/rancher/k3s/config.yaml',
  },
  {
    name: 'RKE2',
    runtime: 'containerd',
    socket: '/run/k3s/containerd/containerd.sock',
    client: '/var/lib/rancher/rke2/bin/ctr',
    crictl: '/var/lib/rancher/rke2/bin/crictl',
    root: '/var/lib/rancher/rke2/agent/containerd',
  },
  {
    name: 'k0s',
    runtime: 'containerd',
    socket: '/run/k0s/containerd.sock',
    client: 'k0s ctr',
    crictl: 'crictl',
    root: '/var/lib/k0s/containerd',
  },
  {
    name: 'MicroK8s',
    runtime: 'containerd',
    socket: '/var/snap/microk8s/common/run/containerd.sock',
    client: 'microk8s ctr',
    crictl: 'crictl',
    root: '/var/snap/microk8s/common/var/lib/containerd',
    kubelet: '/var/snap/microk8s/current/args/kubelet',
  },
  // OpenShift, MicroShift and kubeadm with CRI-O.
  {
    name: 'CRI-O',
    runtime: 'cri-o',
    socket: '/run/crio/crio.sock',
    client: 'skopeo',
    crictl: 'crictl',
    root: '/var/lib/containers',
  },
  {
    name: 'CRI-O',
    runtime: 'cri-o',
    socket: '/run/crio/crio.sock',
    client: 'podman',
    crictl: 'crictl',
    root: '/var/lib/containers',
  },
  {
    name: 'cri-dockerd',
    runtime: 'docker',
    socket: '/run/cri-dockerd.sock',
    client: 'docker',
    crictl: 'crictl',
    root: '/var/lib/docker',
  },
];

/** The table as the probe script reads it: a row a line, columns separated by `|`. */
export function distributionRows(): string {
  return DISTRIBUTIONS.map(({ name, runtime, socket, client, crictl, root, kubelet = '' }) =>
    [name, runtime, socket, client, crictl, root, kubelet].join('|'),
  ).join('\n');
}

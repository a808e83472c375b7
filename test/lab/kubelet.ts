import { dirname } from 'node:path';
import type { Service } from './services.ts';
import type { TreeFile } from './state.ts';

/** How a kubelet finds and convinces its API server. */
export interface KubeletIdentity {
  readonly server: string;
  /** The API server's certificate, PEM. */
  readonly authority: string;
  readonly token: string;
}

/** Where a distribution keeps its kubelet, and where it says which runtime to use. */
export interface KubeletLayout {
  /** The program. Its file's name is the name of the process. */
  readonly program: string;
  readonly configuration: string;
  /** By its own path, or by its directory's. */
  readonly configuredBy: '--config' | '--config-dir';
  /** `bare`: an absolute path without `unix://`, which the kubelet takes too. */
  readonly endpoint: 'in configuration' | 'on command line' | 'on command line, bare';
  readonly kubeconfig: string;
  readonly root: string;
  /** Undefined for the kubelet's own choice, which is below /usr. */
  readonly volumePlugins?: string;
}

/** As kubeadm has it: the runtime's socket is in the configuration, and not on the command line. */
export const kubeadm: KubeletLayout = {
  program: '/usr/bin/kubelet',
  configuration: '/var/lib/kubelet/config.yaml',
  configuredBy: '--config',
  endpoint: 'in configuration',
  kubeconfig: '/etc/kubernetes/kubelet.conf',
  root: '/var/lib/kubelet',
};

/**
 * A kubelet's configuration.
 *
 * cgroupfs without QoS cgroups, and cgroup v1 allowed: a machine here has no systemd, and may be raised on a v1 host.
 * Thresholds are low so that a laptop's full disk is no reason to evict the lab.
 */
export function kubeletFiles(
  identity: KubeletIdentity,
  layout: KubeletLayout,
  criSocket: string,
): Record<string, string | TreeFile> {
  const optional = {
    containerRuntimeEndpoint: layout.endpoint === 'in configuration' ? `unix://${criSocket}` : undefined,
    volumePluginDir: layout.volumePlugins,
  };
  const lines = Object.entries(optional).flatMap(([key, value]) => (value === undefined ? [] : `${key}: ${value}\n`));
  return {
    [layout.configuration]: `apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
authentication:
  anonymous:
    enabled: true
  webhook:
    enabled: false
authorization:
  mode: AlwaysAllow
cgroupDriver: cgroupfs
cgroupsPerQOS: false
${lines.join('')}enforceNodeAllocatable: []
evictionHard:
  memory.available: 50Mi
  nodefs.available: 1%
  imagefs.available: 1%
  nodefs.inodesFree: 1%
failCgroupV1: false
failSwapOn: false
imageGCHighThresholdPercent: 100
oomScoreAdj: 0
resolvConf: /etc/resolv.conf
`,
    [layout.kubeconfig]: { text: kubeconfig(identity), mode: 0o600 },
  };
}

/** Without QoS cgroups the kubelet needs no cgroup root; without a default route it has to be told its address. */
export function kubeletService(layout: KubeletLayout, criSocket: string, address: string): Service {
  const { configuration, configuredBy, endpoint } = layout;
  return {
    name: 'kubelet',
    // It ends when a runtime that has just been started does not answer yet.
    isInsistent: true,
    listen: { address, port: 10_250 },
    argv: [
      layout.program,
      `${configuredBy}=${configuredBy === '--config' ? configuration : dirname(configuration)}`,
      `--kubeconfig=${layout.kubeconfig}`,
      `--root-dir=${layout.root}`,
      `--node-ip=${address}`,
      ...(endpoint === 'on command line' ? [`--container-runtime-endpoint=unix://${criSocket}`] : []),
      ...(endpoint === 'on command line, bare' ? [`--container-runtime-endpoint=${criSocket}`] : []),
    ],
  };
}

/** A kubeconfig that logs in by a token. */
export function kubeconfig({ server, authority, token }: KubeletIdentity): string {
  return `apiVersion: v1
kind: Config
current-context: lab
clusters:
  - name: lab
    cluster:
      server: ${server}
      certificate-authority-data: ${Buffer.from(authority).toString('base64')}
contexts:
  - name: lab
    context:
      cluster: lab
      user: lab
users:
  - name: lab
    user:
      token: ${token}
`;
}

import type { Runtime } from './runtime.ts';
import type { Service } from './services.ts';
import type { TreeFile } from './state.ts';

/** How a kubelet finds and convinces its API server. */
export interface KubeletIdentity {
  readonly server: string;
  /** The API server's certificate, PEM. */
  readonly authority: string;
  readonly token: string;
}

/**
 * A kubelet's configuration.
 *
 * Where kubeadm has it, and with the runtime's socket in the file and not on the command line, as kubeadm does. cgroupfs without
 * QoS cgroups, and cgroup v1 allowed: a machine here has no systemd, and may be raised on a v1 host. Thresholds are low
 * so that a laptop's full disk is no reason to evict the lab.
 */
export function kubeletFiles(identity: KubeletIdentity, runtime: Runtime): Record<string, string | TreeFile> {
  return {
    [configuration]: `apiVersion: kubelet.config.k8s.io/v1beta1
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
containerRuntimeEndpoint: unix://${runtime.criSocket}
enforceNodeAllocatable: []
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
    '/etc/kubernetes/kubelet.conf': { text: kubeconfig(identity), mode: 0o600 },
  };
}

const configuration = '/var/lib/kubelet/config.yaml';

/** Without QoS cgroups the kubelet needs no cgroup root; without a default route it has to be told its address. */
export function kubeletService(address: string): Service {
  return {
    name: 'kubelet',
    argv: ['kubelet', `--config=${configuration}`, '--kubeconfig=/etc/kubernetes/kubelet.conf', `--node-ip=${address}`],
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

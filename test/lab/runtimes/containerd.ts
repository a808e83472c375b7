import { hostArchitecture } from '../images.ts';
import type { Runtime } from '../runtime.ts';

/**
 * containerd 2 with its CRI plugin (configuration version 3).
 *
 * `restrict_oom_score_adj`: without CAP_SYS_RESOURCE nothing may lower its OOM score, and every sandbox would die in
 * `runc create … EOF`. The pause image is named and pinned because it is imported, never pulled.
 */
export const containerd: Runtime = {
  name: 'containerd',
  data: ['containerd'],
  criSocket: '/run/containerd/containerd.sock',
  files: {
    '/etc/containerd/config.toml': `version = 3

[plugins.'io.containerd.cri.v1.images'.pinned_images]
  sandbox = 'registry.k8s.io/pause:3.10'

[plugins.'io.containerd.cri.v1.runtime']
  restrict_oom_score_adj = true

[plugins.'io.containerd.cri.v1.runtime'.cni]
  bin_dirs = ['/usr/lib/cni']
  conf_dir = '/etc/cni/net.d'
`,
  },
  services: [{ name: 'containerd', argv: ['containerd'], socket: '/run/containerd/containerd.sock' }],
  importImage: ['ctr', '--namespace', 'k8s.io', 'images', 'import', '--platform', `linux/${hostArchitecture}`, '-'],
};

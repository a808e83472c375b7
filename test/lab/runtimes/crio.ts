import { pauseReference } from '../images.ts';
import type { Runtime } from '../runtime.ts';

export interface CrioOptions {
  /**
   * The distribution's registries.conf, which searches nowhere, or one that searches in two registries and takes a short
   * name only when it is not ambiguous (containers-registries.conf(5)), as an OpenShift cluster may have it.
   */
  readonly shortNames?: 'default' | 'enforcing';
}

const importScript = `archive=$(mktemp)
trap 'rm "$archive"' EXIT
cat >"$archive"
skopeo copy --quiet "oci-archive:$archive" "containers-storage:$1"`;

/**
 * CRI-O, with root's podman and skopeo on the same store. cgroupfs, and conmon in the pod's cgroup, for want of a
 * systemd; crun, as CRI-O has it by default.
 */
export function crio({ shortNames = 'default' }: CrioOptions = {}): Runtime {
  return {
    name: 'crio',
    tools: ['crun', 'podman'],
    data: ['/var/lib/containers'],
    criSocket: '/var/run/crio/crio.sock',
    programs: { crio: { crio: '/usr/bin/crio', pinns: '/usr/bin/pinns' } },
    files: {
      '/etc/crio/crio.conf.d/10-lab.conf': `[crio.runtime]
cgroup_manager = "cgroupfs"
conmon_cgroup = "pod"
default_runtime = "crun"

[crio.runtime.runtimes.crun]
runtime_path = "/usr/bin/crun"

[crio.image]
pause_image = "${pauseReference}"

[crio.network]
plugin_dirs = ["/usr/lib/cni"]
`,
      '/etc/containers/containers.conf': '[engine]\ncgroup_manager = "cgroupfs"\nevents_logger = "file"\n',
      ...(shortNames === 'enforcing' && {
        '/etc/containers/registries.conf':
          'unqualified-search-registries = ["registry.access.redhat.com", "docker.io"]\nshort-name-mode = "enforcing"\n',
      }),
    },
    services: [{ name: 'crio', argv: ['crio'], socket: '/run/crio/crio.sock' }],
    // skopeo reads no pipe: it wants to know where a source really is.
    importImage: reference => ['sh', '-euc', importScript, 'sh', reference],
  };
}

import { hostArchitecture, pauseReference } from '../images.ts';
import type { Runtime } from '../runtime.ts';

export interface ContainerdOptions {
  /** The version of its configuration: 2 for containerd 1, 3 for containerd 2. */
  readonly configuration?: 2 | 3;
  readonly snapshotter?: string;
  readonly discardUnpackedLayers?: boolean;
  readonly places?: Partial<Places>;
}

/** Where a containerd keeps what is its own. */
interface Places {
  readonly configurationFile: string;
  readonly root: string;
  readonly state: string;
  readonly socket: string;
  /** The directory of containerd, ctr and the shim; the PATH's when undefined. */
  readonly programs: string | undefined;
  /** What has to be on a disk: the root, or a directory above it. */
  readonly disk: string;
}

const usual: Places = {
  configurationFile: '/etc/containerd/config.toml',
  root: '/var/lib/containerd',
  state: '/run/containerd',
  socket: '/run/containerd/containerd.sock',
  programs: undefined,
  disk: '/var/lib/containerd',
};

/**
 * containerd with its CRI plugin.
 *
 * `restrict_oom_score_adj`: without CAP_SYS_RESOURCE nothing may lower its OOM score, and every sandbox would die in
 * `runc create … EOF`. The pause image is named and pinned because it is imported, never pulled.
 */
export function containerd(options: ContainerdOptions = {}): Runtime {
  const places = { ...usual, ...options.places };
  const { snapshotter, discardUnpackedLayers } = options;
  const { configuration = 3 } = options;
  // containerd 2's transfer service unpacks for its configured snapshotter alone, and keeps what it unpacked.
  const local = configuration === 3 && (snapshotter !== undefined || discardUnpackedLayers === true);
  const program = (name: string): string => (places.programs === undefined ? name : `${places.programs}/${name}`);
  return {
    name: 'containerd',
    tools: ['containerd'],
    data: [places.disk],
    criSocket: places.socket,
    files: {
      [places.configurationFile]: `version = ${configuration}
root = '${places.root}'
state = '${places.state}'

[grpc]
  address = '${places.socket}'

${configuration === 3 ? tables3(options) : tables2(options)}`,
    },
    services: [
      {
        name: 'containerd',
        argv: [
          ...(places.programs === undefined ? [] : ['env', `PATH=${places.programs}:/usr/sbin:/usr/bin:/sbin:/bin`]),
          ...[program('containerd'), '--config', places.configurationFile],
        ],
        socket: places.socket,
      },
    ],
    importImage: () => [
      ...[program('ctr'), '--address', places.socket, '--namespace', 'k8s.io'],
      ...['images', 'import', '--platform', `linux/${hostArchitecture}`],
      ...(local ? ['--local'] : []),
      ...(snapshotter === undefined ? [] : ['--snapshotter', snapshotter]),
      ...(local && discardUnpackedLayers ? ['--discard-unpacked-layers'] : []),
      '-',
    ],
  };
}

function tables3({ snapshotter, discardUnpackedLayers = false }: ContainerdOptions): string {
  return `[plugins.'io.containerd.cri.v1.images']
  discard_unpacked_layers = ${discardUnpackedLayers}
  ${snapshotter === undefined ? '' : `snapshotter = '${snapshotter}'`}

[plugins.'io.containerd.cri.v1.images'.pinned_images]
  sandbox = '${pauseReference}'

[plugins.'io.containerd.cri.v1.runtime']
  restrict_oom_score_adj = true

[plugins.'io.containerd.cri.v1.runtime'.cni]
  bin_dirs = ['/usr/lib/cni']
  conf_dir = '/etc/cni/net.d'
`;
}

function tables2({ snapshotter, discardUnpackedLayers = false }: ContainerdOptions): string {
  return `[plugins.'io.containerd.grpc.v1.cri']
  restrict_oom_score_adj = true
  sandbox_image = '${pauseReference}'

[plugins.'io.containerd.grpc.v1.cri'.containerd]
  discard_unpacked_layers = ${discardUnpackedLayers}
  ${snapshotter === undefined ? '' : `snapshotter = '${snapshotter}'`}

[plugins.'io.containerd.grpc.v1.cri'.cni]
  bin_dir = '/usr/lib/cni'
  conf_dir = '/etc/cni/net.d'
`;
}

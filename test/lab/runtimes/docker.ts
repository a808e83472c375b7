import { pauseReference } from '../images.ts';
import type { Runtime } from '../runtime.ts';

const runc = '/usr/local/sbin/runc-without-oom-score';

/**
 * cri-dockerd lowers the OOM score of every sandbox. Without CAP_SYS_RESOURCE nothing may, and runc would die in
 * `can't get final child's PID from pipe: EOF`; unlike containerd, neither has a setting for that.
 */
const runcScript = `#!/bin/sh
bundle=. previous=
for argument; do
  if [ "$previous" = --bundle ]; then bundle=$argument; fi
  previous=$argument
done
if [ -f "$bundle/config.json" ]; then sed -i 's/"oomScoreAdj":-[0-9]*/"oomScoreAdj":0/' "$bundle/config.json"; fi
exec runc "$@"
`;

/** The classic image store; no network of its own, for pods get theirs from CNI, and nothing else runs here. */
const engine = {
  'exec-opts': ['native.cgroupdriver=cgroupfs'],
  features: { 'containerd-snapshotter': false },
  'storage-driver': 'overlay2',
  runtimes: { 'runc-without-oom-score': { path: runc } },
  'default-runtime': 'runc-without-oom-score',
  bridge: 'none',
  iptables: false,
  ip6tables: false,
  'ip-forward': false,
};

const containerdSocket = '/run/containerd/containerd.sock';

/**
 * A Docker engine, and cri-dockerd between it and the kubelet. As Docker's packages do, dockerd uses a containerd that
 * has a socket at the usual place, and no CRI behind it.
 */
export const docker: Runtime = {
  name: 'docker',
  tools: ['containerd', 'docker'],
  data: ['/var/lib/docker', '/var/lib/containerd', '/var/lib/cri-dockerd'],
  criSocket: '/var/run/cri-dockerd.sock',
  programs: { 'cri-dockerd': { 'cri-dockerd': '/usr/bin/cri-dockerd' } },
  files: {
    '/etc/docker/daemon.json': `${JSON.stringify(engine, undefined, 2)}\n`,
    [runc]: { text: runcScript, mode: 0o755 },
    '/etc/containerd/config.toml': "version = 3\ndisabled_plugins = ['io.containerd.grpc.v1.cri']\n",
  },
  services: [
    { name: 'containerd', argv: ['containerd'], socket: containerdSocket },
    {
      name: 'dockerd',
      argv: ['dockerd', `--containerd=${containerdSocket}`],
      socket: '/run/docker.sock',
      readyWithinMs: 60_000,
    },
    {
      name: 'cri-dockerd',
      argv: [
        'cri-dockerd',
        '--container-runtime-endpoint=unix:///var/run/cri-dockerd.sock',
        `--pod-infra-container-image=${pauseReference}`,
        '--network-plugin=cni',
        '--cni-bin-dir=/usr/lib/cni',
        '--cni-conf-dir=/etc/cni/net.d',
      ],
      socket: '/run/cri-dockerd.sock',
    },
  ],
  importImage: () => ['docker', 'load', '--quiet'],
};

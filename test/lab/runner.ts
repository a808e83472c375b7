import { mkdir, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { joinScript } from './cgroups.ts';
import { raise, systemPath } from './machine.ts';
import { type Service, startService } from './services.ts';
import { type LabMachine, labDirectory } from './state.ts';

const checkout = join(import.meta.dirname, '..', '..');

/** The programs of the runner that its lab's `bin` directory offers to the host, by their names there. */
const offered = {
  docker: 'docker',
  podman: 'podman',
  skopeo: 'skopeo',
  umoci: 'umoci',
  zstd: 'zstd',
  // The Node that raised the lab, for what is to run where the engines have their files.
  'runner-node': 'node',
};

/**
 * The classic image store, said out loud because Docker's default changes (29 makes containerd's the default). No
 * network of its own: what a test runs here needs `--network none` at most, and the host's firewall stays as it is.
 */
const engine = {
  features: { 'containerd-snapshotter': false },
  'storage-driver': 'overlay2',
  bridge: 'none',
  iptables: false,
  ip6tables: false,
  'ip-forward': false,
};

const dockerd: Service = { name: 'dockerd', argv: ['dockerd'], socket: '/run/docker.sock', readyWithinMs: 60_000 };

/**
 * Raises the machine where CI builds images. It shares the host's network and PID namespaces: `docker push` to a
 * loopback port that a test listens on has to reach it, and a wrapper can then be the program itself (exec all the way),
 * with exact exit codes and signals. It sees the lab's directory, the checkout and the temporary directory at the
 * host's own paths.
 */
export async function raiseRunner(lab: string, rootfs: string): Promise<LabMachine> {
  const shared = [...new Set([labDirectory(lab), '/tmp', tmpdir(), checkout])];
  const runner = await raise({
    lab,
    name: 'runner',
    rootfs,
    isolated: false,
    data: ['/var/lib/docker', '/var/lib/containers'],
    binds: [
      ...shared.map(path => ({ source: path, target: path, mode: 'rw' as const })),
      { source: process.execPath, target: '/usr/local/bin/node', mode: 'ro' },
    ],
    files: {
      '/etc/docker/daemon.json': `${JSON.stringify(engine, undefined, 2)}\n`,
      '/etc/containers/storage.conf':
        '[storage]\ndriver = "overlay"\nrunroot = "/run/containers/storage"\ngraphroot = "/var/lib/containers/storage"\n',
      // No systemd here, hence no journal and no scopes; crun and runc both do.
      '/etc/containers/containers.conf':
        '[containers]\nnetns = "host"\n[engine]\ncgroup_manager = "cgroupfs"\nevents_logger = "file"\nruntime = "runc"\n',
      '/etc/containers/policy.json': '{"default":[{"type":"insecureAcceptAnything"}]}\n',
    },
  });
  await startService(runner, dockerd);
  return runner;
}

/** Writes the programs that a test puts before its PATH: they run in the runner, in the caller's directory. */
export async function writeWrappers(bin: string, runner: LabMachine): Promise<void> {
  await mkdir(bin, { recursive: true });
  const enterCgroups = await joinScript(runner.lab, runner.name, 'running');
  for (const [name, program] of Object.entries(offered)) {
    const inside = `cd "$0" 2>/dev/null || cd /; PATH=${systemPath}; export PATH; exec ${program} "$@"`;
    const script = `#!/bin/sh
# ${name} in the runner of lab ${runner.lab}
${enterCgroups} || exit 125
exec nsenter --target ${runner.pid} --mount --uts --ipc --cgroup -- /bin/sh -c '${inside}' "$PWD" "$@"
`;
    await writeFile(join(bin, name), script, { mode: 0o755 });
  }
}

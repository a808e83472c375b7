import { readFile } from 'node:fs/promises';
import { cached } from './cache.ts';
import { must, run } from './command.ts';
import { type Log, step } from './progress.ts';
import { ensureTools } from './requirements.ts';

/** A root filesystem that machines are made of. Another suite, or other packages, is another row. */
export interface Rootfs {
  readonly suite: string;
  readonly packages: readonly string[];
  /** Shell commands run in the new root after the packages are there. */
  readonly setup: readonly string[];
}

/**
 * The accounts of every machine, besides root: `deploy` may do anything by sudo, `nosudo` nothing, and `prompted` must
 * give a password. All of them log in by the lab's key. A password of `*` keeps an account open to keys, where `!`
 * makes sshd call it locked.
 */
export const accounts = {
  deploy: { uid: 1000, password: undefined },
  nosudo: { uid: 1001, password: undefined },
  prompted: { uid: 1002, password: 'swordfish' },
} as const;

const setup: readonly string[] = [
  ...Object.entries(accounts).flatMap(([name, { uid, password }]) => [
    `useradd --create-home --shell /bin/bash --uid ${uid} ${name}`,
    password === undefined ? `usermod --password '*' ${name}` : `echo ${name}:${password} | chpasswd`,
  ]),
  `echo 'deploy ALL=(ALL:ALL) NOPASSWD: ALL' >/etc/sudoers.d/deploy`,
  `echo 'prompted ALL=(ALL:ALL) ALL' >/etc/sudoers.d/prompted`,
  'chmod 440 /etc/sudoers.d/deploy /etc/sudoers.d/prompted',
  // Made when the package was installed, and the same in every copy: each machine gets keys of its own.
  'rm -f /etc/ssh/ssh_host_*',
  // Where a registry answers nobody, nothing here is to be fetched again; the lists alone are a tenth of the size.
  'rm -rf /var/lib/apt/lists/* /var/cache/apt/*.bin /usr/share/doc/* /usr/share/man/*',
];

/**
 * Debian sid: containerd 2, podman 5, Docker 28, kubectl and etcd of the day. One root for nodes, control plane and
 * runner; busybox-static is what test images are made of, and docker.io brings `docker-init` (tini), each machine's
 * first process.
 */
export const sid: Rootfs = {
  suite: 'sid',
  packages: [
    'openssh-server',
    'sudo',
    'opendoas',
    'fish',
    'tcsh',
    'iproute2',
    'iptables',
    'procps',
    'mount',
    'kmod',
    'zstd',
    'ca-certificates',
    'containerd',
    'runc',
    'crun',
    'containernetworking-plugins',
    'docker.io',
    'docker-cli',
    'podman',
    'conmon',
    'skopeo',
    'umoci',
    'kubectl',
    'etcd-server',
    'busybox-static',
  ],
  setup,
};

/** What a node with an older containerd needs, and no more: these roots are for nodes alone. */
const nodeOnly = [
  'openssh-server',
  'sudo',
  'iproute2',
  'procps',
  'mount',
  'containerd',
  'runc',
  'containernetworking-plugins',
  'tini',
];

/** Debian 13: containerd 1.7. */
export const trixie: Rootfs = { suite: 'trixie', packages: nodeOnly, setup };

/** Debian 12: containerd 1.6. */
export const bookworm: Rootfs = { suite: 'bookworm', packages: nodeOnly, setup };

/** Builds a root filesystem, once; returns its directory, which is only ever an overlay's lower layer. */
export async function ensureRootfs(rootfs: Rootfs, log: Log): Promise<string> {
  const recipe = [rootfs.suite, ...rootfs.packages, ...rootfs.setup];
  return cached(`rootfs-${rootfs.suite}`, recipe, log, async directory => {
    await ensureTools(log, { mmdebstrap: 'mmdebstrap' });
    const mirror = await debianMirror();
    await step(log, `build a root filesystem of Debian ${rootfs.suite}`, note =>
      must(
        [
          // In a PID and a mount namespace that die with us: a killed lab leaves neither a half build running nor the
          // mounts that mmdebstrap makes in it.
          'setpriv',
          '--pdeathsig',
          'KILL',
          'unshare',
          '--pid',
          '--mount',
          '--fork',
          '--kill-child',
          '--mount-proc',
          'mmdebstrap',
          '--mode=root',
          '--variant=minbase',
          '--aptopt=Acquire::Check-Valid-Until "false"',
          `--include=${rootfs.packages.join(',')}`,
          ...rootfs.setup.map(command => `--customize-hook=chroot "$1" sh -c ${quote(command)}`),
          rootfs.suite,
          directory,
          ...(mirror === undefined ? [] : [mirror]),
        ],
        { timeoutMs: 45 * 60_000, onLine: note },
      ),
    );
  });
}

/**
 * The mirror that this machine's own apt uses for Debian, or undefined on another distribution, where mmdebstrap's
 * default has to do.
 */
async function debianMirror(): Promise<string | undefined> {
  const release = await readFile('/etc/os-release', 'utf8');
  if (!/^ID=debian$/m.test(release)) return undefined;
  const codename = /^VERSION_CODENAME=(.*)$/m.exec(release)?.[1] ?? '';
  const targets = await run([
    'apt-get',
    'indextargets',
    '--format',
    '$(RELEASE) $(COMPONENT) $(REPO_URI)',
    'Created-By: Packages',
  ]);
  const row = targets.stdout
    .split('\n')
    .map(line => line.split(' '))
    .find(([suite, component]) => suite === codename && component === 'main');
  return row?.[2]?.replace(/\/$/, '');
}

function quote(text: string): string {
  return `'${text.replaceAll("'", "'\\''")}'`;
}

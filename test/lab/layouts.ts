import { podmanLoadFile } from '../../scripts/privileges.ts';
import type { NodeKind } from './kinds.ts';
import { type KubeletLayout, kubeadm } from './kubelet.ts';
import { sid } from './rootfs.ts';
import { containerd } from './runtimes/containerd.ts';
import { crio } from './runtimes/crio.ts';
import type { TreeFile } from './state.ts';

/**
 * Emulated layouts: real runtimes and a real kubelet, with everything where a distribution has it, under its names. What
 * looks for a socket, a program or a configuration finds what it would find there; what is not here is the distribution
 * itself.
 */

/**
 * Debian's containerd and what belongs to it, moved to the directory where a distribution ships its own. Not runc: it
 * makes an overlay of its own directory to execute itself from, and would find the mount point there instead of itself.
 */
function shippedIn(directory: string): Readonly<Record<string, string>> {
  return {
    '/usr/bin/containerd': `${directory}/containerd`,
    '/usr/bin/containerd-shim-runc-v2': `${directory}/containerd-shim-runc-v2`,
    '/usr/bin/ctr': `${directory}/ctr`,
  };
}

interface Multicall {
  readonly name: string;
  /** What it is when it runs `NAME COMMAND`, and the settings that COMMAND gets unless its caller has them. */
  readonly commands: Readonly<
    Record<string, { readonly program: string; readonly unless: Readonly<Record<string, string>> }>
  >;
  /** Shell text before everything else. */
  readonly first?: string;
}

/** A program that is many, by its first argument, or by the name of a link to it. */
function multicall({ name, commands, first = '' }: Multicall): TreeFile {
  const cases = Object.entries(commands).map(([command, { program, unless }]) => {
    const settings = Object.entries(unless).map(
      ([variable, value]) => `export ${variable}="\${${variable}:-${value}}"; `,
    );
    return `  ${command}) ${settings.join('')}exec ${program} "$@" ;;`;
  });
  return {
    mode: 0o755,
    text: `#!/bin/sh
# Emulates ${name} for a test.
command=\${0##*/}
if [ "$command" = ${name} ]; then command=\${1:-help}; [ $# -eq 0 ] || shift; fi
${first}case $command in
${cases.join('\n')}
  *) echo "usage: ${name} ${Object.keys(commands).join('|')} …" >&2; exit 1 ;;
esac
`,
  };
}

function ctrOf(directory: string, socket: string) {
  return {
    program: `${directory}/ctr`,
    unless: { CONTAINERD_ADDRESS: socket, CONTAINERD_NAMESPACE: 'k8s.io' },
  };
}

const rancherSocket = '/run/k3s/containerd/containerd.sock';

/** What k3s and RKE2 have in common. Both give their kubelet a directory of configurations. */
function rancher(
  name: 'k3s' | 'rke2',
  programs: string,
): Pick<NodeKind, 'runtime' | 'moved'> & { readonly agent: string } {
  const home = `/var/lib/rancher/${name}`;
  return {
    agent: `${home}/agent`,
    runtime: containerd({
      places: {
        configurationFile: `${home}/agent/etc/containerd/config.toml`,
        root: `${home}/agent/containerd`,
        state: '/run/k3s/containerd',
        socket: rancherSocket,
        programs,
        disk: '/var/lib/rancher',
      },
    }),
    moved: { ...shippedIn(programs), '/usr/bin/kubectl': `${programs}/kubectl` },
  };
}

function rancherKubelet(name: 'k3s' | 'rke2', program: string): KubeletLayout {
  return {
    ...kubeadm,
    program,
    configuration: `/var/lib/rancher/${name}/agent/etc/kubelet.conf.d/00-${name}-defaults.conf`,
    configuredBy: '--config-dir',
    kubeconfig: `/var/lib/rancher/${name}/agent/kubelet.kubeconfig`,
  };
}

/**
 * k3s: one program in /usr/local/bin, where sudo's secure_path of RHEL (and of Debian sid) does not look; its installer
 * links kubectl, crictl and ctr to it. The kubelet is part of the program: no process has its name.
 */
function k3s(): NodeKind {
  const programs = '/var/lib/rancher/k3s/data/current/bin';
  const { agent, ...rest } = rancher('k3s', programs);
  const kubeconfig = '/etc/rancher/k3s/k3s.yaml';
  const crictl = { program: `${programs}/crictl`, configuration: `${agent}/etc/crictl.yaml` };
  return {
    ...rest,
    rootfs: sid,
    kubelet: rancherKubelet('k3s', `${programs}/k3s-agent`),
    crictl,
    adminKubeconfig: kubeconfig,
    files: {
      // As its documentation has it: settings of the kubelet are part of its own.
      '/etc/rancher/k3s/config.yaml': 'kubelet-arg:\n  - "image-gc-high-threshold=86"\n',
      '/usr/local/bin/k3s': multicall({
        name: 'k3s',
        commands: {
          ctr: ctrOf(programs, rancherSocket),
          crictl: { program: crictl.program, unless: { CRI_CONFIG_FILE: crictl.configuration } },
          kubectl: { program: `${programs}/kubectl`, unless: { KUBECONFIG: kubeconfig } },
        },
      }),
    },
    setup: 'for name in ctr crictl kubectl; do ln -s k3s /usr/local/bin/$name; done',
  };
}

/** RKE2: its programs are in one directory that no PATH has, and its kubelet is a process of its own. */
function rke2(): NodeKind {
  const programs = '/var/lib/rancher/rke2/bin';
  const { agent, ...rest } = rancher('rke2', programs);
  return {
    ...rest,
    rootfs: sid,
    kubelet: rancherKubelet('rke2', `${programs}/kubelet`),
    crictl: { program: `${programs}/crictl`, configuration: `${agent}/etc/crictl.yaml` },
    adminKubeconfig: '/etc/rancher/rke2/rke2.yaml',
  };
}

/** k0s: one program in /usr/local/bin, without crictl, and a kubelet process. */
function k0s(): NodeKind {
  const home = '/var/lib/k0s';
  const programs = `${home}/bin`;
  const socket = '/run/k0s/containerd.sock';
  const kubeconfig = `${home}/pki/admin.conf`;
  return {
    rootfs: sid,
    runtime: containerd({
      places: {
        configurationFile: '/etc/k0s/containerd.toml',
        root: `${home}/containerd`,
        state: '/run/k0s/containerd',
        socket,
        programs,
        disk: home,
      },
    }),
    moved: { ...shippedIn(programs), '/usr/bin/kubectl': `${programs}/kubectl` },
    kubelet: {
      ...kubeadm,
      program: `${programs}/kubelet`,
      configuration: `${home}/kubelet-config.yaml`,
      kubeconfig: `${home}/kubelet.conf`,
      root: `${home}/kubelet`,
    },
    crictl: undefined,
    adminKubeconfig: kubeconfig,
    files: {
      '/usr/local/bin/k0s': multicall({
        name: 'k0s',
        commands: {
          ctr: ctrOf(programs, socket),
          kubectl: { program: `${programs}/kubectl`, unless: { KUBECONFIG: kubeconfig } },
        },
      }),
    },
  };
}

/**
 * MicroK8s: a snap, whose wrappers are in /snap/bin and take nobody but root and its own group; everything in one
 * process, kubelite; the kubelet's endpoint is a bare path.
 */
function microk8s(): NodeKind {
  const snap = '/snap/microk8s/current';
  const common = '/var/snap/microk8s/common';
  const data = '/var/snap/microk8s/current';
  const socket = `${common}/run/containerd.sock`;
  const kubeconfig = `${data}/credentials/client.config`;
  const ubuntu = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/snap/bin';
  return {
    rootfs: sid,
    runtime: containerd({
      places: {
        configurationFile: `${data}/args/containerd.toml`,
        root: `${common}/var/lib/containerd`,
        state: `${common}/run/containerd`,
        socket,
        programs: `${snap}/bin`,
        disk: common,
      },
    }),
    moved: { ...shippedIn(`${snap}/bin`), '/usr/bin/kubectl': `${snap}/kubectl` },
    kubelet: {
      ...kubeadm,
      program: `${snap}/kubelite`,
      configuration: `${data}/args/kubelet-config.yaml`,
      endpoint: 'on command line, bare',
      kubeconfig: `${data}/credentials/kubelet.config`,
      root: `${common}/var/lib/kubelet`,
    },
    crictl: undefined,
    adminKubeconfig: kubeconfig,
    files: {
      [`${data}/args/kubelet`]:
        '--container-runtime-endpoint=$' + '{SNAP_COMMON}/run/containerd.sock\n--image-gc-high-threshold=87\n',
      '/snap/bin/microk8s': multicall({
        name: 'microk8s',
        first: `[ "$(id -u)" = 0 ] || { echo 'Insufficient permissions to access MicroK8s.' >&2; exit 1; }\n`,
        commands: {
          ctr: {
            program: `${snap}/bin/ctr --address=${socket} --namespace k8s.io`,
            unless: { CONTAINERD_SNAPSHOTTER: 'overlayfs' },
          },
          kubectl: { program: `${snap}/kubectl`, unless: { KUBECONFIG: kubeconfig } },
        },
      }),
      // As Ubuntu has them.
      '/etc/environment': `PATH="${ubuntu}"\n`,
      '/etc/sudoers.d/secure-path': { text: `Defaults secure_path="${ubuntu}"\n`, mode: 0o440 },
    },
  };
}

/**
 * Red Hat CoreOS, as OpenShift has it: CRI-O, root's podman and skopeo, a read-only /usr, no package manager, and `core`,
 * who may do anything by sudo; besides, `loader`, who may do by sudo what a push needs and nothing else. SELinux it has not: this kernel may have none.
 */
function rhcos(): NodeKind {
  return {
    rootfs: sid,
    runtime: crio({ shortNames: 'enforcing' }),
    // podman's store of a user is an overlay too.
    data: ['/var/home'],
    kubelet: {
      ...kubeadm,
      configuration: '/etc/kubernetes/kubelet.conf',
      endpoint: 'on command line, bare',
      kubeconfig: '/var/lib/kubelet/kubeconfig',
      volumePlugins: '/etc/kubernetes/kubelet-plugins/volume/exec',
    },
    crictl: { program: '/usr/bin/crictl', configuration: '/etc/crictl.yaml' },
    files: {
      '/etc/os-release':
        'NAME="Red Hat Enterprise Linux CoreOS"\nID="rhcos"\nID_LIKE="rhel fedora"\nVARIANT="CoreOS"\nVARIANT_ID=coreos\nPRETTY_NAME="emulated layout of RHCOS"\n',
      '/etc/sudoers.d/coreos-sudo-group': { text: '%sudo ALL=(ALL) NOPASSWD: ALL\n', mode: 0o440 },
      '/etc/sudoers.d/loader': { text: podmanLoadFile('loader'), mode: 0o440 },
    },
    setup: `rm -f /usr/bin/apt* /usr/bin/dpkg*
for user in core loader; do
  useradd --create-home --home-dir /var/home/$user --base-dir /var/home --shell /bin/bash $user
  usermod --password '*' $user
  sed -i /^$user:/d /etc/subuid /etc/subgid
  mkdir -m 700 /var/home/$user/.ssh
  cp /home/deploy/.ssh/authorized_keys /var/home/$user/.ssh/
  chown -R $user:$user /var/home/$user/.ssh
done
usermod --append --groups sudo core
mount --rbind /usr /usr
mount -o remount,bind,ro /usr`,
  };
}

export const layouts = {
  'k3s-layout': k3s(),
  'rke2-layout': rke2(),
  'k0s-layout': k0s(),
  'microk8s-layout': microk8s(),
  'rhcos-layout': rhcos(),
} as const satisfies Readonly<Record<string, NodeKind>>;

/**
 * Every way in which a job can fail, by code: what it means in a few words, and the next step when the place that
 * throws knows none that is better. `docs/troubleshooting.md` explains each one; a test fails when one is missing there.
 */
export const ERRORS = {
  INPUT_INVALID: { title: 'An input is wrong', hint: 'Correct the inputs named above; nothing was changed anywhere.' },
  INVENTORY_INVALID: {
    title: 'The inventory or configuration file is wrong',
    hint: 'Correct the lines named above; nothing was changed anywhere.',
  },
  SOURCE_UNAVAILABLE: {
    title: 'The container engine cannot be asked for the image',
    hint: 'Run the step on the machine that built the image, as a user who may talk to its docker or podman, or write it there with `docker save -o app.tar` and pass that file as `archive`.',
  },
  IMAGE_NOT_FOUND: {
    title: 'No such image',
    hint: 'Compare the name with `docker images` or `podman images` on the runner.',
  },
  IMAGE_AMBIGUOUS: {
    title: 'More than one image answers to this name',
    hint: 'Say which one with `source` or with a fully qualified name.',
  },
  ARCHIVE_INVALID: {
    title: 'The image archive cannot be read',
    hint: 'Write it again with `docker save` or `podman save`; a copy that broke off looks like this.',
  },
  ARCHIVE_INCOMPLETE: {
    title: 'The image archive lacks content that its manifest names',
    hint: 'Save the image again; with Docker’s containerd image store, pull or build all of it for this platform first.',
  },
  ARCHIVE_CORRUPT: {
    title: 'Content of the image archive does not have the digest that its manifest names',
    hint: 'Save the image again and compare checksums after copying it.',
  },
  CACHE_CORRUPT: {
    title: 'A layer in the cache of the runner is damaged',
    hint: 'Run the job again: the damaged file has been removed from the cache.',
  },
  PLATFORM_MISMATCH: {
    title: 'The image is not built for the architecture of the node',
    hint: 'Build the image for the node’s architecture, or take the node off the list (by `node-selector` with nodes from the cluster).',
  },
  SSH_KEY_INVALID: {
    title: 'The SSH private key cannot be used',
    hint: 'Store the key file whole, with its line breaks, in the secret.',
  },
  SSH_HOST_KEY_UNKNOWN: {
    title: 'The host key of the node is not known',
    hint: 'Add the node’s line to `ssh-known-hosts` after checking the fingerprint on the node itself.',
  },
  SSH_HOST_KEY_CHANGED: {
    title: 'The node shows another host key than the known one',
    hint: 'Find out why before anything else: a reinstalled node or somebody in between. Then correct `ssh-known-hosts`.',
  },
  SSH_AUTH_FAILED: {
    title: 'The node refused the login',
    hint: 'Check the user, and that the public half of the key is in its `~/.ssh/authorized_keys` on the node.',
  },
  SSH_UNREACHABLE: {
    title: 'The node cannot be reached over SSH',
    hint: 'Check address, port, firewall and that sshd runs; raise `connect-timeout` for slow links.',
  },
  SSH_LOST: {
    title: 'The SSH connection broke off',
    hint: 'Check the link and the node, and run the job again: layers that have arrived are not sent twice.',
  },
  NODE_SILENT: {
    title: 'The node does not answer in time',
    hint: 'See on the node what hangs: its runtime (`crictl info`), its disks (`df`: a file system on a server that is away), its load.',
  },
  LOGIN_SHELL_ENDED: {
    title: 'The login shell of the user ends before it runs a command',
    hint: 'Try `ssh USER@NODE true`: look for `exit` or `exec` in `~/.bashrc` and `~/.ssh/rc`, for `command=` in `~/.ssh/authorized_keys`, for `ForceCommand` in sshd_config, and for the shell in `getent passwd USER` (`nologin` runs nothing).',
  },
  REMOTE_COMMAND_FAILED: {
    title: 'A command on the node failed',
    hint: 'Correct on the node what its own output above names, and run the job again.',
  },
  SUDO_REFUSED: {
    title: 'The user may not become root on the node',
    hint: 'Log in as root, give the user `NOPASSWD` rights in sudoers, or pass `sudo-password`; with CRI-O `NOPASSWD` rights to `podman load` and `podman image inspect` are enough.',
  },
  SUDO_RIGHT_MISSING: {
    title: 'The user may not run by sudo what a push makes use of',
    hint: 'Install the file of docs/privileges for the node’s runtime again, for `pin` and `keep` with the marks taken away from their lines; where paths differ, give the user the command above.',
  },
  PROBE_FAILED: {
    title: 'The node did not answer what it was asked',
    hint: 'See that the address is that of a Linux node of the cluster: log in as the same user, and compare `uname -m` and `df -Pk /`.',
  },
  RUNTIME_NOT_FOUND: {
    title: 'No container runtime was found on the node',
    hint: 'Check that this is a Kubernetes node, or name its socket with `cri-socket`.',
  },
  RUNTIME_AMBIGUOUS: {
    title: 'The node has several container runtimes that could be the kubelet’s',
    hint: 'Name the one that its kubelet uses with `cri-socket`, for all nodes or for this one in the inventory.',
  },
  RUNTIME_NOT_RUNNING: {
    title: 'The container runtime of the node does not answer',
    hint: 'Look on the node whether it runs, and at its log: `systemctl status` and `journalctl -u` of `containerd`, `crio`, `docker` and `cri-docker`, `k3s` or `rke2-server`.',
  },
  RUNTIME_REFUSED: {
    title: 'The container runtime of the node does not let the user in',
    hint: 'Log in as root, or let the user become it (`sudo: auto`, with a file of docs/privileges on the node); where a group has the socket, add the user to it (`usermod -aG docker USER`).',
  },
  RUNTIME_ERROR: {
    title: 'The container runtime of the node answers with an error',
    hint: 'Correct what its words name; until then it answers every job like this, and the kubelet.',
  },
  RUNTIME_LOST: {
    title: 'The container runtime of the node went away during an import',
    hint: 'Find out on the node why it ends or restarts (`journalctl -u containerd`, `crio` or `docker`), and run the job again: layers that have arrived are not sent twice.',
  },
  RUNTIME_UNSUPPORTED: {
    title: 'The container runtime of the node is not supported',
    hint: 'If the kubelet uses another one, name its socket with `cri-socket`: containerd, CRI-O and Docker behind cri-dockerd are supported.',
  },
  DISK_FULL: {
    title: 'There is not enough disk space',
    hint: 'Make room on the disk that the message names.',
  },
  DISK_TIGHT: {
    title: 'Disk space may not be enough',
    hint: 'Make room on the disk that the message names, or run the job: it stops when the compressed size is known and too much.',
  },
  IMAGE_GC_LIKELY: {
    title: 'The kubelet may soon remove the image again',
    hint: 'Make room on the disk, or raise `imageGCHighThresholdPercent` in the kubelet’s configuration: without a registry a removed image is gone.',
  },
  SANDBOX_IMAGE_MISSING: {
    title: 'The node lacks the image that every pod’s sandbox is made of',
    hint: 'Send it along: pull it on the runner under this name, and set `sandbox-image: send`.',
  },
  SHORT_NAME_REFUSED: {
    title: 'No pod can start the image by this short name on the node',
    hint: 'Write the full name in the pods and in `images`.',
  },
  SHORT_NAME_DOUBTFUL: {
    title: 'It is not certain which image a short name is on the node',
    hint: 'Write the full name in the pods and in `images`, or let the user read these files.',
  },
  IMAGE_CREDENTIALS_POLICY: {
    title: 'The kubelet refuses images that it has not pulled itself',
    hint: 'Set `imagePullCredentialsVerificationPolicy: NeverVerifyPreloadedImages` in the kubelet’s configuration, or put the image on its `preloadedImagesVerificationAllowlist`.',
  },
  IMPORT_FAILED: {
    title: 'The node’s runtime refused the image',
    hint: 'The runtime gives its reason above, and its log on the node more (`journalctl -u containerd`, `crio` or `docker`): correct that first, as the same job would be refused again.',
  },
  VERIFY_FAILED: {
    title: 'The node does not hold the image that CI built',
    hint: 'Look for other jobs or people that change this image on the node, and run the job again.',
  },
  CHANGED_SINCE: {
    title: 'The node no longer holds what this job had proven there',
    hint: 'Find out who moves or removes images on the node (another tool, a person, the kubelet’s own collection), and run the job again.',
  },
  NODE_LOCKED: {
    title: 'Another job moves the same references on the node',
    hint: 'Run this job again when the other one has ended, or raise `lock-timeout`; what is on the nodes is the other job’s to prove.',
  },
  PIN_FAILED: {
    title: 'The image cannot be pinned on the node',
    hint: 'Correct what the message names, or set `pin: false`; with CRI-O look for a later file with `pinned_images` in `/etc/crio/crio.conf.d`.',
  },
  PIN_UNSUPPORTED: {
    title: 'The node cannot pin images',
    hint: 'Keep its disk below the kubelet’s threshold, or set `pin: false`: without a registry a collected image is gone until the next push.',
  },
  RESTORE_FAILED: {
    title: 'A node could not be put back to what it was',
    hint: 'The message says which reference names what; push the release that is to be there.',
  },
  KUBECTL_NOT_FOUND: {
    title: 'kubectl was not found',
    hint: 'Install kubectl on the runner, or name it with `kubectl`; with `kubectl: ssh://root@CONTROL-PLANE` that of a control-plane node is used; without any access to the cluster set `smoke: cri`.',
  },
  KUBECONFIG_INVALID: {
    title: 'The kubeconfig cannot be used',
    hint: 'Pass a path or the content in `kubeconfig`; try it with `kubectl --kubeconfig … get nodes`.',
  },
  CLUSTER_UNREACHABLE: {
    title: 'The Kubernetes API does not answer',
    hint: 'Check the server in the kubeconfig and the way to it from where kubectl runs: `kubectl get --raw /readyz`.',
  },
  CLUSTER_REFUSED: {
    title: 'The Kubernetes API refused',
    hint: 'Check the credentials in the kubeconfig, and that they may create, get, list, watch and delete pods.',
  },
  POD_SECURITY: {
    title: 'The namespace does not admit the pod for security reasons',
    hint: 'Set `smoke-security: restricted`, give the image a `USER` by number, or use a namespace whose Pod Security level or SCC fits the image.',
  },
  QUOTA_EXCEEDED: {
    title: 'A quota or a limit of the namespace does not admit the pod',
    hint: 'Ask for what the message names with `smoke-resources`, start fewer pods at a time with `smoke-parallel`, or use another namespace.',
  },
  ADMISSION_DENIED: {
    title: 'An admission rule of the cluster does not admit the pod',
    hint: 'The message names the webhook or policy: let it admit smoke pods, or give it the pod that it wants with `smoke-manifest`.',
  },
  PULL_FORCED: {
    title: 'The cluster makes the kubelet pull the image',
    hint: 'Exempt the namespace from what sets `imagePullPolicy: Always` (the AlwaysPullImages admission plugin, a mutating webhook or policy): no image without a registry can run there.',
  },
  NAMESPACE_NOT_FOUND: {
    title: 'The namespace does not exist',
    hint: 'Create it with `kubectl create namespace`, or name another one with `namespace`.',
  },
  NODE_NOT_IN_CLUSTER: {
    title: 'The cluster has no node of this name',
    hint: 'Give the Kubernetes node name after the address, as in `10.0.0.11=worker-1`.',
  },
  NODE_OTHER_MACHINE: {
    title: 'The address is that of another machine than the Kubernetes node',
    hint: 'Write the address of the node before its name, as in `10.0.0.11=worker-1`: `kubectl get nodes -o wide` shows both.',
  },
  NODE_NOT_READY: {
    title: 'The cluster says that the node is not ready',
    hint: 'Repair the node, or leave it out with `node-selector` or in `nodes`.',
  },
  NODE_NOT_LISTED: {
    title: 'A node that could run the image is not in the list',
    hint: 'Add it to `nodes`, or say with `node-selector` which nodes the pods may run on.',
  },
  SMOKE_IMAGE_NEVER_PULL: {
    title: 'ErrImageNeverPull: the kubelet does not find the image on the node',
    hint: 'Compare the name in the pod with `crictl images` on the node.',
  },
  SMOKE_OTHER_IMAGE: {
    title: 'The kubelet started another image than the one that CI built',
    hint: 'Another job may have moved the reference meanwhile; run the job again.',
  },
  SMOKE_IMAGE_INSPECT: {
    title: 'The runtime cannot resolve the image name of the pod',
    hint: 'Write the name fully qualified, as in `docker.io/library/app:1`.',
  },
  SMOKE_IMAGE_NAME: { title: 'The image name of the pod is not valid', hint: 'Correct the reference in `images`.' },
  SMOKE_RUN_AS_NON_ROOT: {
    title: 'The image would run as root, or as a user without a number, and the pod forbids it',
    hint: 'Give the image a `USER` by number other than 0, or leave `smoke-security` at `auto`.',
  },
  SMOKE_CONFIG: {
    title: 'The container cannot be configured',
    hint: 'Create what the message names in the namespace of the smoke pods, or leave it out of `smoke-manifest`.',
  },
  SMOKE_START: {
    title: 'The container cannot be started',
    hint: 'Check the entrypoint of the image and its architecture, or name a command with `smoke-command`.',
  },
  SMOKE_EXEC_FORMAT: {
    title: 'The program in the image is not for this machine',
    hint: 'Build the program for the node’s architecture; a script needs a first line such as `#!/bin/sh`.',
  },
  SMOKE_ENDED: {
    title: 'The program ended, and was to go on',
    hint: 'Set `smoke-expect: started` or `completed` for programs that end by themselves, or give the pods another command.',
  },
  SMOKE_CRASHED: {
    title: 'The container ended with an error',
    hint: 'Read its last log lines above; a program that needs configuration to run can be given another command with `smoke-command`.',
  },
  SMOKE_OOM: {
    title: 'The container ran out of memory',
    hint: 'The program needs more than the limit that applies: raise it with `smoke-resources`, or in the namespace (LimitRange).',
  },
  SMOKE_SANDBOX: {
    title: 'The pod’s sandbox cannot be made',
    hint: 'Correct what the runtime names above; its log on the node has more (`journalctl -u containerd`, `crio` or `docker`).',
  },
  SMOKE_SANDBOX_IMAGE: {
    title: 'The node lacks the image of the pod’s sandbox',
    hint: 'Pull it on the runner under the name in the message, and run the job again with `sandbox-image: send`.',
  },
  SMOKE_NETWORK: {
    title: 'The network plugin of the node does not give the pod a network',
    hint: 'Look at the network plugin’s pod on the node and at `/etc/cni/net.d`.',
  },
  SMOKE_VOLUME: {
    title: 'A volume of the pod cannot be mounted',
    hint: 'Create what the message names in the namespace of the smoke pods, or leave the volume out of `smoke-manifest`.',
  },
  SMOKE_PROBE: {
    title: 'The container does not pass its probe',
    hint: 'Compare the probe in `smoke-manifest` with what the program answers; raise `smoke-timeout` for programs that start slowly.',
  },
  SMOKE_REJECTED: {
    title: 'The pod was refused',
    hint: 'The message names the rule: room on the node, taints, pod security or a quota of the namespace.',
  },
  SMOKE_EVICTED: {
    title: 'The pod was evicted',
    hint: 'See what the node is short of with `kubectl describe node`, and run the job again when it has room.',
  },
  SMOKE_DELETED: {
    title: 'Somebody deleted the smoke pod',
    hint: 'Look for jobs that clean up the namespace, and run the job again.',
  },
  SMOKE_NODE_NOT_READY: {
    title: 'The kubelet of the node does not answer',
    hint: 'Look at the kubelet on the node (`systemctl status kubelet`).',
  },
  CRICTL_NOT_FOUND: {
    title: 'The node has no crictl, and `smoke: cri` needs it',
    hint: 'Install crictl (cri-tools) on the node, or use `smoke: pod` or `smoke: none`.',
  },
  SMOKE_TIMEOUT: {
    title: 'The pod did not run in time',
    hint: 'The last state is above; raise `smoke-timeout` for images that start slowly.',
  },
  BUNDLE_FAILED: {
    title: 'The bundle cannot be written',
    hint: 'Correct what the message names, or give `bundle` another place; no part of the file is left.',
  },
  DRIFT: {
    title: 'The node does not have what it should',
    hint: 'Run the push again: it sends what is missing, and to the nodes that lack it only.',
  },
  REPORT_FAILED: {
    title: 'A report file cannot be written',
    hint: 'Make room, or name another place in the `report-…` inputs; the nodes are as the table says.',
  },
  CANCELLED: { title: 'The job was cancelled', hint: 'Nothing is left behind; run the job again.' },
  INTERNAL: { title: 'This is a fault of kube-sideload', hint: 'Please report it with the lines above.' },
} as const satisfies Record<string, { readonly title: string; readonly hint: string }>;

export type ErrorCode = keyof typeof ERRORS;

interface SideloadErrorOptions {
  /** The node that the error is about, as the user named it. */
  readonly node?: string | undefined;
  /** The next step, when it is better than the one in {@link ERRORS}. */
  readonly hint?: string | undefined;
  readonly cause?: unknown;
}

/** An error that a user can act on: what happened (`message`), where (`node`), and what to do next (`hint`). */
export class SideloadError extends Error {
  readonly code: ErrorCode;
  readonly node: string | undefined;
  readonly hint: string;

  constructor(code: ErrorCode, message: string, options: SideloadErrorOptions = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.name = 'SideloadError';
    this.code = code;
    this.node = options.node;
    this.hint = options.hint ?? ERRORS[code].hint;
  }
}

/** Any thrown value as a {@link SideloadError}; what is not one already is a fault of ours, except a cancellation. */
export function toSideloadError(thrown: unknown, node?: string): SideloadError {
  if (thrown instanceof SideloadError) {
    return thrown.node === undefined && node !== undefined
      ? new SideloadError(thrown.code, thrown.message, { node, hint: thrown.hint, cause: thrown.cause })
      : thrown;
  }
  if (thrown instanceof Error && thrown.name === 'AbortError') {
    return new SideloadError('CANCELLED', 'cancelled', { node, cause: thrown });
  }
  return new SideloadError('INTERNAL', messageOf(thrown), { node, cause: thrown });
}

/** The text of anything that was thrown. */
export function messageOf(thrown: unknown): string {
  return thrown instanceof Error ? thrown.message : String(thrown);
}

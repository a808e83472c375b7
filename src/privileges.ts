import type { NodeFacts, RuntimeName } from './node/facts.ts';
import { contentOf, unpackFlags } from './runtime/containerd.ts';
import { layerListOf } from './runtime/crio.ts';
import { formatOf, PINS_HEAD } from './runtime/crio-pins.ts';
import { pinFault } from './runtime/pin.ts';
import { PODMAN_FORMAT } from './runtime/podman-load.ts';
import { OF_THE_NODE, OURS_BY_SUDO } from './runtime/processes.ts';
import { STAGE_PREFIX, UNPACKED } from './runtime/staging.ts';

/**
 * What a user who is not root needs: the commands that run by sudo on a node, and the requests to the cluster. The files
 * in `docs/privileges/` are written from these tables, a run compares what sudo allows with them, and
 * `test/runtimes/privileges.test.ts` compares them with what sudo has really been asked.
 */

/** A program as it is typed, and its arguments, with a word in braces for what differs; `scripts/privileges.ts` has a pattern for each. */
export type Command = readonly [program: string, args: string];

/** Commands that serve one purpose, and go together. */
export interface Right {
  readonly purpose: string;
  readonly commands: readonly Command[];
  /** What a run does without it; a right without this is one that no push can do without. */
  readonly without?: string;
  /** What it is needed for alone; a push without that asks for nothing of it. */
  readonly isFor?: Extra;
  /** Which clients of CRI-O a node must have, and no others, for it to matter. */
  readonly clients?: readonly Clients[];
}

/** `keep` is `mode: prune` as well. */
export type Extra = 'keep' | 'pin';

/** Which of them a run has. */
export type Extras = Readonly<Record<Extra, boolean>>;

export type Clients = 'skopeo and podman' | 'skopeo' | 'podman';

const CRI = '--runtime-endpoint unix://{socket} --image-endpoint unix://{socket}';
const CTR = '--address {socket} --namespace k8s.io';

const INSPECT_BY_PODMAN: Command = ['podman', `image inspect --format ${PODMAN_FORMAT} {reference}`];

const FIRST: readonly Right[] = [
  { purpose: 'see that sudo lets the user pass', commands: [['true', '']] },
  {
    purpose: 'find the runtime',
    commands: [
      ['test', '-S {any-socket}'],
      ['test', '-f {kubelet-settings}'],
      ['cat', '{kubelet-settings}'],
      ['test', '-f {kubelet-config}'],
      ['cat', '{kubelet-config}'],
      ['ls', '{kubelet-drop-ins}'],
      ['test', '-f {kubelet-drop-in}'],
      ['cat', '{kubelet-drop-in}'],
    ],
  },
  {
    purpose: 'ask the CRI what it is, and what it holds',
    commands: [
      ['crictl', `--timeout 5s ${CRI} version`],
      ['crictl', `--timeout 5s ${CRI} imagefsinfo`],
      ['crictl', `${CRI} inspecti -o json {reference}`],
    ],
  },
];

const LAST: readonly Right[] = [
  {
    purpose: 'ask about the image of sandboxes',
    commands: [
      ['crictl', `--timeout 5s ${CRI} info`],
      ['crictl', `--timeout 5s ${CRI} inspecti -q {reference}`],
      ['test', '-f {containerd-config}'],
      ['cat', '{containerd-config}'],
    ],
    without: 'a missing pause image is not noticed before pods fail',
  },
  {
    purpose: 'see how much room there is for images',
    commands: [['df', '-Pk {image-root}']],
    without: 'the room is that of the nearest directory that the user may see',
  },
  {
    purpose: 'lock references while they move',
    commands: [
      ['mkdir', '-p -m 755 /run/kube-sideload'],
      ['ln', '-sT {lock-text} {lock}'],
      ['ln', '-sT {lock-text} {next-lock}'],
      ['mv', '-f {next-lock} {lock}'],
      ['rm', '-f {next-lock}'],
      ['rm', '-f {lock} {next-lock}'],
    ],
    without: 'another job may move the same references meanwhile, or pin images',
  },
  {
    purpose: 'write down which images are ours',
    commands: [
      ['mkdir', '-p /var/lib/kube-sideload'],
      ['tee', '/var/lib/kube-sideload/images.new'],
      ['mv', '-f /var/lib/kube-sideload/images.new /var/lib/kube-sideload/images'],
    ],
    without: 'nothing that the run brings will ever be removed by `keep` or `mode: prune`',
  },
  {
    purpose: 'see which images containers were made from',
    commands: [['crictl', '--timeout 20s --runtime-endpoint unix://{socket} ps -a -o json']],
    isFor: 'keep',
  },
];

export const RIGHTS: Readonly<Record<RuntimeName, readonly Right[]>> = {
  containerd: [
    ...FIRST,
    {
      purpose: 'ask containerd about names, manifests and configs',
      commands: [
        ['ctr', '--connect-timeout 5s --timeout 5s --address {socket} version'],
        ['ctr', `${CTR} images ls -q`],
        ['ctr', `${CTR} images ls name=={reference}`],
        ['ctr', `${CTR} images check --snapshotter {snapshotter} name=={reference}`],
        ['ctr', `${CTR} content get {digest}`],
      ],
    },
    {
      purpose: 'bring an image under a name of the run',
      commands: [['ctr', `${CTR} images import --base-name {stage-name} --platform {platform} {unpack-flags}-`]],
    },
    { purpose: 'move a name', commands: [['ctr', `${CTR} images tag --force {reference} {reference}`]] },
    { purpose: 'take a name away', commands: [['ctr', `${CTR} images rm {reference}`]] },
    {
      purpose: 'take an image away with its last name',
      commands: [
        ['ctr', `${CTR} images ls {targets}`],
        ['crictl', '--timeout 10s --runtime-endpoint unix://{socket} ps -a -o json'],
      ],
      without:
        'the image of a failed job, and the old one after a push, stays without a name until the kubelet removes it',
    },
    {
      purpose: 'see which layers are there',
      commands: [
        ['ctr', `${CTR} content ls`],
        ['ctr', `${CTR} snapshots --snapshotter {snapshotter} ls`],
      ],
      without: 'all layers are sent, also those that the node has',
    },
    {
      purpose: 'look into layers that others have brought',
      commands: [
        ['test', '-f {blob}'],
        ['cat', '{blob}'],
      ],
      without: 'containerd reads them out, which takes longer',
    },
    {
      purpose: 'find the lease of an import, and delete it when the import could not',
      commands: [
        ['ctr', `${CTR} leases ls`],
        ['ctr', `${CTR} leases delete {lease}`],
        ['ln', '-sT {run}.{process} /var/lib/kube-sideload/lease-{lease}'],
        ['rm', '-f /var/lib/kube-sideload/lease-{lease}'],
      ],
      without: 'what has arrived of an image stays for a day when the runtime or the node dies meanwhile',
    },
    {
      purpose: 'end an import that does not end with its input',
      commands: [['pkill', `-{signal} ${OF_THE_NODE} -f ${OURS_BY_SUDO}[k]ube-sideload.invalid/{run}`]],
      without: 'one that hangs may leave its stage name on the node, until a run five days later',
    },
    ...LAST,
    {
      purpose: 'see which images containers of containerd were made from, and whether a name was the last one',
      commands: [
        ['ctr', `${CTR} containers ls`],
        ['ctr', `${CTR} images ls -q target.digest=={digest}`],
      ],
      isFor: 'keep',
    },
    {
      purpose: 'pin images, and let go of them',
      commands: [
        ['ctr', `${CTR} images ls -q name=={reference},labels."{pin-label}"`],
        ['ctr', `${CTR} images ls -q labels."kube-sideload.pinned-by"=={run}`],
        ['ctr', `${CTR} images label {reference} {pin-labels}`],
      ],
      isFor: 'pin',
    },
  ],
  'cri-o': [
    ...FIRST,
    { purpose: 'list the names that there are', commands: [['crictl', `--timeout 5s ${CRI} images -o json`]] },
    {
      purpose: 'read the config of an image',
      commands: [['skopeo', 'inspect --config containers-storage:{reference}']],
      clients: ['skopeo and podman', 'skopeo'],
    },
    {
      purpose: 'bring an image under a name of the run',
      commands: [['skopeo', '--tmpdir {unpacked} copy --quiet oci:{unpacked}/oci containers-storage:{stage}']],
      clients: ['skopeo and podman', 'skopeo'],
    },
    {
      purpose: 'read the config of an image',
      commands: [INSPECT_BY_PODMAN],
      clients: ['podman'],
    },
    {
      purpose: 'bring an image, which gets a name of the run next',
      commands: [['env', 'TMPDIR={unpacked} {podman} pull --quiet oci:{unpacked}/oci']],
      clients: ['podman'],
    },
    {
      purpose: 'move a name, and take it away',
      commands: [
        ['podman', 'image exists {reference}'],
        ['podman', 'tag {reference} {reference}'],
        ['podman', 'image rm {reference}'],
      ],
      clients: ['skopeo and podman', 'podman'],
    },
    {
      purpose: 'move a name, and take it away',
      commands: [
        ['crictl', '--image-endpoint unix://{socket} inspecti {reference}'],
        ['skopeo', 'copy --quiet containers-storage:{reference} containers-storage:{reference}'],
        ['crictl', '--image-endpoint unix://{socket} rmi {reference}'],
      ],
      clients: ['skopeo'],
    },
    {
      purpose: 'take away the last name of an image that a container was made from',
      commands: [['podman', 'untag {reference} {reference}']],
      without: 'after a failed job such a name stays',
      clients: ['skopeo and podman', 'podman'],
    },
    {
      purpose: 'read what root’s own files, and what people have answered, make of short names',
      commands: [
        ['cat', '/root/.config/containers/registries.conf'],
        ['ls', '/root/.config/containers/registries.conf.d'],
        ['cat', '/var/cache/containers/short-name-aliases.conf'],
      ],
      without: 'what a short name is on the node is not certain before CRI-O has been asked for the image by it',
    },
    {
      purpose: 'see which layers are there',
      commands: [['cat', '{layers}']],
      without: 'all layers are sent, also those that the node has',
    },
    {
      purpose: 'remove what a killed skopeo or podman has left below /var/tmp',
      commands: [['rm', '-rf {unpacked}']],
      without: 'it stays there',
    },
    ...LAST,
    {
      purpose: 'see which images containers of podman were made from',
      commands: [['podman', 'ps --all --external --no-trunc --format {{.ImageID}} {{.Image}}']],
      isFor: 'keep',
      clients: ['skopeo and podman', 'podman'],
    },
    {
      purpose: 'see which images others have pinned',
      commands: [
        ['ls', '/etc/crio/crio.conf.d'],
        ['cat', '/etc/crio/{crio-config}'],
      ],
      isFor: 'pin',
    },
    {
      purpose: 'pin images, and let go of them',
      commands: [
        ['mkdir', '-p /etc/crio/crio.conf.d'],
        ['find', '/ -maxdepth 0 -fprintf /etc/crio/.kube-sideload {pin-file}'],
        ['mv', '-f /etc/crio/.kube-sideload /etc/crio/crio.conf.d/99-kube-sideload.conf'],
        ['rm', '-f /etc/crio/crio.conf.d/99-kube-sideload.conf'],
        ['pkill', `-HUP ${OF_THE_NODE} -x crio`],
      ],
      isFor: 'pin',
    },
  ],
  docker: [
    ...FIRST,
    {
      purpose: 'ask Docker about itself, images and names',
      commands: [
        ['docker', 'version'],
        ['docker', 'info --format {{.DockerRootDir}}'],
        ['docker', 'image ls --format {{.Repository}}:{{.Tag}}'],
        ['docker', 'image inspect {reference}'],
      ],
    },
    { purpose: 'bring an image', commands: [['docker', 'load --quiet']] },
    { purpose: 'move a name', commands: [['docker', 'image tag {reference} {reference}']] },
    { purpose: 'take a name away', commands: [['docker', 'image rm {reference}']] },
    {
      purpose: 'take away the last name of an image that a container was made from',
      commands: [['docker', 'image rm --force {reference}']],
      without: 'after a failed job such a name stays',
    },
    {
      purpose: 'see which layers are there',
      commands: [
        ['docker', 'info --format {{json .DriverStatus}}'],
        ['docker', 'image ls --all --quiet --no-trunc'],
        ['docker', 'image inspect --format {{json .RootFS.Layers}} {digests}'],
      ],
      without: 'all layers are sent, also those that the node has',
    },
    ...LAST,
    {
      purpose: 'see which images containers of Docker were made from',
      commands: [['docker', 'ps --all --no-trunc --format {{.Image}}']],
      isFor: 'keep',
    },
  ],
};

/** Requests to the cluster that are of one kind. */
export interface ClusterRight {
  readonly resource: 'pods' | 'pods/log' | 'events' | 'nodes';
  readonly verbs: readonly string[];
  /** What a run does without it; a right without this is one that no smoke pod can do without. */
  readonly without?: string;
}

/** In the namespace of the smoke pods. */
export const SMOKE_RIGHTS: readonly ClusterRight[] = [
  { resource: 'pods', verbs: ['create', 'list', 'watch', 'delete'] },
  { resource: 'pods/log', verbs: ['get'], without: 'an error of a pod comes without its log' },
  { resource: 'events', verbs: ['list'], without: 'an error of a pod comes without its events' },
];

/** Of the whole cluster. */
export const NODE_RIGHTS: readonly ClusterRight[] = [
  {
    resource: 'nodes',
    verbs: ['list'],
    without:
      'whether the list has every node that could run it is not checked, and `nodes-from-cluster` is not possible',
  },
  { resource: 'nodes', verbs: ['get'], without: 'an error of a pod comes without the state of its node' },
];

/** What a user needs at least on nodes with CRI-O: see ADR 20. */
export const PODMAN_LOAD: readonly Command[] = [['podman', 'load --quiet --input {loaded}'], INSPECT_BY_PODMAN];

/** A right that a node's user may lack, as sudo is asked for it. */
export interface AskedRight {
  readonly right: Right;
  /** The command with something in place of all that differs: what sudo says of it, it says of all of its kind. */
  readonly command: string;
}

/**
 * What to ask sudo on a node. What has to do with files of the kubelet and of containerd is not among it: a node that
 * lets them be read has answered already.
 */
export function askedRights(facts: NodeFacts, extras: Extras): readonly AskedRight[] {
  const { runtime, tools, criSocket, imageRoot, platform, snapshotter = 'overlayfs' } = facts;
  const clients = [tools.skopeo && 'skopeo', tools.podman && 'podman'].filter(one => one !== undefined).join(' and ');
  const zeros = '0'.repeat(64);
  const wanted: Extras = { ...extras, pin: extras.pin && pinFault(facts) === undefined };
  const lock = `/run/kube-sideload/${zeros}`;
  const samples: Readonly<Record<string, string>> = {
    '{socket}': criSocket,
    '{any-socket}': criSocket,
    '{image-root}': imageRoot,
    '{blob}': `${contentOf(facts)}/blobs/sha256/${zeros}`,
    '{layers}': layerListOf(facts),
    '{reference}': `${STAGE_PREFIX}0:0`,
    '{digest}': `sha256:${zeros}`,
    '{digests}': `sha256:${zeros}`,
    '{targets}': `target.digest==sha256:${zeros}`,
    '{stage}': `${STAGE_PREFIX}0:0`,
    '{stage-name}': `${STAGE_PREFIX}0`,
    '{run}': '0',
    '{platform}': `${platform.os}/${platform.architecture}`,
    '{snapshotter}': snapshotter,
    '{unpack-flags}': unpackFlags(facts)
      .map(flag => `${flag} `)
      .join(''),
    '{signal}': 'TERM',
    '{lease}': '0-0000',
    '{process}': '0',
    '{unpacked}': `${UNPACKED}0.0`,
    '{lock}': lock,
    '{next-lock}': `${lock}.0.0`,
    '{lock-text}': `0:0:0:${STAGE_PREFIX}0:0`,
    '{pin-label}': 'kube-sideload.pinned-by',
    '{pin-labels}': 'kube-sideload.pinned-by=',
    '{crio-config}': 'crio.conf',
    '{pin-file}': formatOf([...PINS_HEAD, ']']),
    '{podman}': (tools.podman ?? ['podman']).join(' '),
  };
  return RIGHTS[runtime.name]
    .filter(right => right.clients === undefined || right.clients.some(one => one === clients))
    .filter(({ isFor }) => isFor === undefined || wanted[isFor])
    .flatMap(right =>
      right.commands
        .filter(([program]) => program !== 'crictl' || tools.crictl !== undefined)
        .map(([program, args]) => [...(tools[program as keyof typeof tools] ?? [program]), args].join(' ').trim())
        .map(command => command.replaceAll(/\{[a-z-]+\}/g, word => samples[word] ?? word))
        .filter(command => !/\{[a-z-]+\}/.test(command))
        .map(command => ({ right, command })),
    );
}

import { stringify } from 'yaml';
import { DISTRIBUTIONS, type Distribution } from '../src/node/distributions.ts';
import {
  type Clients,
  type ClusterRight,
  type Command,
  type Extra,
  NODE_RIGHTS,
  PODMAN_LOAD,
  RIGHTS,
  type Right,
  SMOKE_RIGHTS,
} from '../src/privileges.ts';
import { formatOf, PINS_HEAD } from '../src/runtime/crio-pins.ts';
import { STAGE_PREFIX, UNPACKED } from '../src/runtime/staging.ts';

/** Who logs in to nodes, and the namespace, service account and roles in the cluster. */
const USER = 'kube-sideload';
const FILE_HEAD = '# Generated from src/privileges.ts by `npm run generate`; do not edit.';

/** Where a node has what the commands are about. */
export interface Layout {
  /** As in `sudoers.NAME`. */
  readonly name: string;
  readonly about: string;
  readonly distribution: Pick<Distribution, 'runtime' | 'socket' | 'client' | 'crictl' | 'root' | 'kubelet'>;
  readonly clients?: Clients;
  /** Where the kubelet's configuration is, and a directory with parts of it. */
  readonly kubeletConfig?: string;
  readonly kubeletDropIns?: string;
  /** containerd's own configuration, where not everybody may read it. */
  readonly containerdConfig?: string;
}

const KUBEADM = { kubeletConfig: '/var/lib/kubelet/config.yaml' };

/** A file each. A node that keeps these things at other places needs them in its own copy. */
export const LAYOUTS: readonly Layout[] = [
  {
    name: 'containerd',
    about: 'nodes of kubeadm and its like with containerd',
    distribution: distribution('kubeadm'),
    ...KUBEADM,
  },
  {
    name: 'cri-o',
    about: 'nodes with CRI-O, skopeo and podman',
    distribution: distribution('CRI-O'),
    clients: 'skopeo and podman',
    ...KUBEADM,
  },
  {
    name: 'cri-o-skopeo',
    about: 'nodes with CRI-O and skopeo, without podman',
    distribution: distribution('CRI-O'),
    clients: 'skopeo',
    ...KUBEADM,
  },
  {
    name: 'cri-o-podman',
    about: 'nodes with CRI-O and podman, without skopeo',
    distribution: distribution('CRI-O'),
    clients: 'podman',
    ...KUBEADM,
  },
  {
    name: 'docker',
    about: 'nodes with Docker and cri-dockerd',
    distribution: distribution('cri-dockerd'),
    ...KUBEADM,
  },
  {
    name: 'k3s',
    about: 'nodes of k3s',
    distribution: distribution('k3s'),
    containerdConfig: '/var/lib/rancher/k3s/agent/etc/containerd/config.toml',
  },
  {
    name: 'rke2',
    about: 'nodes of RKE2',
    distribution: distribution('RKE2'),
    kubeletDropIns: '/var/lib/rancher/rke2/agent/etc/kubelet.conf.d',
    containerdConfig: '/var/lib/rancher/rke2/agent/etc/containerd/config.toml',
  },
  {
    name: 'k0s',
    about: 'nodes of k0s',
    distribution: distribution('k0s'),
    kubeletConfig: '/var/lib/k0s/kubelet-config.yaml',
    containerdConfig: '/etc/k0s/containerd.toml',
  },
  {
    name: 'microk8s',
    about: 'nodes of MicroK8s',
    distribution: distribution('MicroK8s'),
    containerdConfig: '/var/snap/microk8s/current/args/containerd.toml',
  },
];

function distribution(name: string): Distribution {
  const found = DISTRIBUTIONS.find(row => row.name === name);
  if (found === undefined) {
    throw new Error(`no distribution ${name}`);
  }
  return found;
}

/** The rights that matter on nodes of a layout, each with the commands that do. */
export function rightsFor(layout: Layout): readonly Right[] {
  return RIGHTS[layout.distribution.runtime]
    .filter(
      ({ clients }) => clients === undefined || (layout.clients !== undefined && clients.includes(layout.clients)),
    )
    .map(right => ({
      ...right,
      commands: right.commands.filter(([, args]) =>
        Object.entries(patternsOf(layout)).every(([word, pattern]) => pattern !== undefined || !args.includes(word)),
      ),
    }))
    .filter(({ commands }) => commands.length > 0);
}

/** No component begins with a dot: nothing climbs. */
const NAME = '[0-9A-Za-z]([0-9A-Za-z._:@-]|/[0-9A-Za-z])*';
const DIGEST = 'sha256:[0-9a-f]{64}';
const LOCK = '/run/kube-sideload/([0-9a-f]{64}|pins)';
const PIN_LABEL = String.raw`(io\.cri-containerd\.pinned=(pinned)?|kube-sideload\.pinned-by=[0-9a-z]*)`;
/** A string of TOML of either kind with a name, or with somebody else's pattern for names; and the run, for ours. */
const PIN = String.raw`\\040\\040("[0-9A-Za-z._:/@*-]+"|'[0-9A-Za-z._:/@*-]+'),(\\040\\043\\040[0-9a-z]+)?\\n`;
const STAGE = `${literal(STAGE_PREFIX)}[0-9a-z]+`;

/** What the words in braces stand for, as POSIX extended regular expressions; `undefined` for what a layout lacks. */
function patternsOf(layout: Layout): Readonly<Record<string, string | undefined>> {
  const { distribution: row, kubeletConfig, kubeletDropIns, containerdConfig } = layout;
  const [podman] = programOf('podman', layout);
  const settings = row.kubelet;
  return {
    '{socket}': socketPattern(row.socket),
    '{any-socket}': `(${[...new Set(DISTRIBUTIONS.map(one => one.socket))].map(socketPattern).join('|')})`,
    '{kubelet-settings}': settings && literal(settings),
    '{kubelet-config}': kubeletConfig && literal(kubeletConfig),
    '{kubelet-drop-ins}': kubeletDropIns && literal(kubeletDropIns),
    '{kubelet-drop-in}': kubeletDropIns && String.raw`${literal(kubeletDropIns)}/[0-9A-Za-z_.-]+\.conf`,
    '{containerd-config}': containerdConfig && literal(containerdConfig),
    '{image-root}': `${literal(row.root)}(/[0-9A-Za-z_-][0-9A-Za-z_.-]*)*`,
    '{blob}': `${literal(row.root)}/io\\.containerd\\.content\\.v1\\.content/blobs/sha256/[0-9a-f]{64}`,
    '{layers}': `${literal(row.root)}/storage/[a-z]+-layers/layers\\.json`,
    '{reference}': NAME,
    '{digest}': DIGEST,
    '{digests}': `${DIGEST}( ${DIGEST})*`,
    '{targets}': `target\\.digest==${DIGEST}( target\\.digest==${DIGEST})*`,
    '{stage}': `${STAGE}:[0-9]+(-[0-9]+)?`,
    '{stage-name}': STAGE,
    '{run}': '[0-9a-z]+',
    '{platform}': '[a-z0-9]+/[a-z0-9]+',
    '{snapshotter}': '[0-9a-z._-]+',
    '{unpack-flags}': '(--local )?(--snapshotter [0-9a-z._-]+ )?',
    '{signal}': '(TERM|KILL)',
    '{lease}': '[0-9]{1,9}-[0-9A-Za-z_-]{4}',
    '{process}': '[0-9]+',
    '{unpacked}': String.raw`${literal(UNPACKED)}[0-9a-z]+\.[0-9A-Za-z]+`,
    // Of podman-load.ts: what mktemp has made, and an archive of a few files beside it.
    '{loaded}': String.raw`${literal(UNPACKED)}[0-9a-z]+\.[0-9]+-[0-9A-Za-z]+/(oci|named\.tar)`,
    '{lock}': LOCK,
    '{next-lock}': String.raw`${LOCK}\.[0-9a-z]+\.[0-9]+`,
    '{lock-text}': `[0-9a-z]+:[0-9]+:[0-9]+:${NAME}`,
    '{pin-label}': String.raw`(io\.cri-containerd\.pinned|kube-sideload\.pinned-by)`,
    '{pin-labels}': `${PIN_LABEL}( ${PIN_LABEL})?`,
    '{crio-config}': String.raw`crio\.conf(\.d/[0-9A-Za-z_][0-9A-Za-z_.-]*)?`,
    '{pin-file}': `${literal(formatOf(PINS_HEAD))}(${PIN})*${literal(formatOf([']']))}`,
    '{podman}': podman.slice(1, -1),
  };
}

/** A command in sudoers' own words, of version 1.9.10 and later: a regular expression for each, program and arguments. */
export function sudoersCommand(command: Command, layout: Layout): string {
  const [program, ...first] = programOf(command[0], layout);
  const args = fill([...first, command[1]].join(' '), patternsOf(layout));
  return args === '' ? `${program} ""` : `${program} ^${args}$`;
}

/** The program as sudo finds it, and the words that a multi-call binary wants first. */
function programOf(name: string, { distribution: row }: Layout): readonly [program: string, ...words: string[]] {
  const [program = '', ...words] = (
    { ctr: row.runtime === 'containerd' ? row.client : name, crictl: row.crictl }[name] ?? name
  ).split(' ');
  if (program.startsWith('/')) {
    return [`^${literal(program)}$`, ...words];
  }
  const directories = program === 'microk8s' ? '/snap/bin' : '(/usr(/local)?)?/s?bin';
  return [`^${directories}/${literal(program)}$`, ...words];
}

/** Everything outside of the braces stands for itself. */
function fill(args: string, patterns: Readonly<Record<string, string | undefined>>): string {
  return args
    .split(/(\{[a-z-]+\})/)
    .map(part => (Object.hasOwn(patterns, part) ? (patterns[part] ?? '') : literal(part)))
    .join('');
}

function socketPattern(socket: string): string {
  return socket.startsWith('/run/') ? `(/var)?${literal(socket)}` : literal(socket);
}

function literal(text: string): string {
  return text.replaceAll(/[.*+?^${}()|[\]\\]/g, String.raw`\$&`);
}

const EXTRAS: Readonly<Record<Extra, string>> = { keep: '`keep` and `mode: prune`', pin: '`pin`' };

/** A file for `/etc/sudoers.d`; what is for `keep` or `pin` alone is a comment in it. */
export function sudoersFile(layout: Layout, user = USER): string {
  const parts = rightsFor(layout).map(right => {
    const { purpose, without, isFor } = right;
    const commands = right.commands.map(command => sudoersCommand(command, layout));
    const rule = `${user} ALL=(root) NOPASSWD: ${commands.join(', \\\n    ')}`;
    const need =
      isFor !== undefined
        ? `Only for ${EXTRAS[isFor]}; take the marks away for that.`
        : without === undefined
          ? 'Needed.'
          : `Optional; without it ${without}.`;
    return `# To ${purpose}. ${need}\n${isFor !== undefined ? rule.replaceAll(/^/gm, '#') : rule}`;
  });
  const head = `${FILE_HEAD}
# For ${layout.about}: what kube-sideload runs by sudo there, and nothing else. sudo 1.9.10 or later.
# See docs/privileges/README.md.
${environmentOf(user)}`;
  return `${[head, ...parts].join('\n\n')}\n`;
}

/** The two commands of ADR 20. */
export function podmanLoadFile(user = USER): string {
  const layout = LAYOUTS.find(({ clients }) => clients === 'podman');
  const commands = layout === undefined ? [] : PODMAN_LOAD.map(command => sudoersCommand(command, layout));
  return `${FILE_HEAD}
# For nodes with CRI-O and podman: images come, and nothing can be moved or taken away. sudo 1.9.10 or later.
# See docs/privileges/README.md.
${environmentOf(user)}

${user} ALL=(root) NOPASSWD: ${commands.join(', \\\n    ')}
`;
}

/** Programs that root runs find neither settings nor a home directory of the user. */
function environmentOf(user: string): string {
  return `Defaults:${user} env_reset, always_set_home, !setenv`;
}

/** The rules of a role: what is needed first, each optional one apart, so that it can be taken out. */
export function rulesFor(rights: readonly ClusterRight[]): readonly object[] {
  return rights.map(({ resource, verbs }) => ({ apiGroups: [''], resources: [resource], verbs }));
}

/** A namespace for smoke pods, a service account, and what it may do. */
function rbacFile(): string {
  const metadata = { name: USER, namespace: USER };
  const issuer = { name: `${USER}-issuer`, namespace: USER };
  const group = 'rbac.authorization.k8s.io';
  const subjects = [{ kind: 'ServiceAccount', ...metadata }];
  const labels = { 'pod-security.kubernetes.io/enforce': 'baseline' };
  const documents: readonly (readonly [comment: string, object: object])[] = [
    [
      'Where smoke pods run, and nothing else.',
      { apiVersion: 'v1', kind: 'Namespace', metadata: { name: USER, labels } },
    ],
    ['Whose token CI has.', { apiVersion: 'v1', kind: 'ServiceAccount', metadata }],
    [
      about('Needed are `create`, `list`, `watch` and `delete` on pods.', SMOKE_RIGHTS),
      { apiVersion: `${group}/v1`, kind: 'Role', metadata, rules: rulesFor(SMOKE_RIGHTS) },
    ],
    [
      '',
      {
        apiVersion: `${group}/v1`,
        kind: 'RoleBinding',
        metadata,
        roleRef: { apiGroup: group, kind: 'Role', name: USER },
        subjects,
      },
    ],
    [
      'Makes the tokens that jobs get, and may do nothing else: its own token stays where no job can read it.',
      { apiVersion: 'v1', kind: 'ServiceAccount', metadata: issuer },
    ],
    [
      '',
      {
        apiVersion: `${group}/v1`,
        kind: 'Role',
        metadata: issuer,
        rules: [{ apiGroups: [''], resources: ['serviceaccounts/token'], resourceNames: [USER], verbs: ['create'] }],
      },
    ],
    [
      '',
      {
        apiVersion: `${group}/v1`,
        kind: 'RoleBinding',
        metadata: issuer,
        roleRef: { apiGroup: group, kind: 'Role', name: issuer.name },
        subjects: [{ kind: 'ServiceAccount', ...issuer }],
      },
    ],
    [
      about('All of it is optional.', NODE_RIGHTS),
      { apiVersion: `${group}/v1`, kind: 'ClusterRole', metadata: { name: USER }, rules: rulesFor(NODE_RIGHTS) },
    ],
    [
      '',
      {
        apiVersion: `${group}/v1`,
        kind: 'ClusterRoleBinding',
        metadata: { name: USER },
        roleRef: { apiGroup: group, kind: 'ClusterRole', name: USER },
        subjects,
      },
    ],
  ];
  const texts = documents.map(
    ([comment, object]) => `${comment.replaceAll(/^(?=.)/gm, '# ')}${comment && '\n'}${stringify(object)}`,
  );
  return `${FILE_HEAD}\n${texts.join('---\n')}`;
}

function about(first: string, rights: readonly ClusterRight[]): string {
  const optional = rights.filter(({ without }) => without !== undefined);
  return [
    first,
    ...optional.map(({ resource, verbs, without }) => `Without \`${verbs.join(', ')}\` on ${resource}: ${without}.`),
  ].join('\n');
}

/** By path. */
export const PRIVILEGE_FILES: Readonly<Record<string, string>> = {
  'docs/privileges/rbac.yaml': rbacFile(),
  'docs/privileges/sudoers.podman-load': podmanLoadFile(),
  ...Object.fromEntries(LAYOUTS.map(layout => [`docs/privileges/sudoers.${layout.name}`, sudoersFile(layout)])),
};

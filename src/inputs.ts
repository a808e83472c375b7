import { type InputProblem, problem, shown } from './problems.ts';

/** How the text of an input becomes a value. A `list` may use commas, `lines` may contain them; `seconds` takes `90`, `90s`, `2m` or `1h`; `bytes` takes `0`, `500MB` or `10GiB`; a `rate` is in bytes per second. */
type InputType =
  | 'text'
  | 'list'
  | 'lines'
  | 'path'
  | 'port'
  | 'count'
  | 'rate'
  | 'number'
  | 'seconds'
  | 'bytes'
  | 'secret'
  | { readonly oneOf: readonly string[] };

interface InputSpec {
  readonly type: InputType;
  /** What applies when nobody says otherwise, in the form in which a user would write it. */
  readonly default?: string;
  /** One or two sentences, as shown by `--help`, the README and the form of a manual run. */
  readonly help: string;
  /** Whether the form of a manual run on GitHub has it; there is room for few (`scripts/workflow.ts`). */
  readonly manual?: true;
  /** Whether CI may keep it among the secrets, although it may be given in the open. Type `secret` may not. */
  readonly sensitive?: true;
}

/**
 * Everything that a user can set, once: `action.yml`, the flags of the command line, the README's table and the
 * `settings` of an inventory file are made from this table (`npm run generate`).
 */
export const INPUTS = {
  mode: {
    type: { oneOf: ['push', 'plan', 'check', 'prune', 'bundle'] },
    default: 'push',
    help: '`push` does the job. `plan` says what it would send to which node and which nodes would fail, and changes nothing; it fails when the job would not start. `check` compares the nodes with what should be there, and fails when one differs. `prune` removes old images that were put there by this tool (see `keep`). `bundle` writes the images into one file, to be carried to where the nodes are, and needs no nodes, key or cluster.',
    manual: true,
  },
  images: {
    type: 'list',
    help: 'Image references, exactly as the pods will write them, one per line or separated by commas. The smoke pods write them so, and each node gets the image under the name that its runtime makes of it: on CRI-O a short one may be another than elsewhere, or none, which is told before a byte moves. May be left out with an `archive` whose images have names.',
    manual: true,
  },
  aliases: {
    type: 'list',
    help: 'Further names for the images on the nodes: `ALIAS=IMAGE`, or `ALIAS` alone when there is one image.',
  },
  expected: {
    type: 'list',
    help: 'For `mode: check`: what should be there, as files that `report-json` of a push has written. No image source is then needed; `images` limits it to those. Default: `images` and `archive`, as for a push.',
  },
  keep: {
    type: 'number',
    help: 'How many releases of a repository stay on the nodes: after a push those of the repositories that it was for, with `mode: prune` all. Older ones go, if this tool has put them there and no container was made from them. Default: nothing is ever removed.',
  },
  'dry-run': {
    type: { oneOf: ['true', 'false'] },
    default: 'false',
    help: 'With `mode: prune`: say what would be removed, and remove nothing.',
  },
  source: {
    type: { oneOf: ['auto', 'docker', 'podman', 'buildah', 'nerdctl', 'containerd', 'archive'] },
    default: 'auto',
    help: 'Where the image is. `auto` takes `archive` when it is set, else whichever of docker, podman (which has buildah’s images too), buildah, nerdctl and containerd’s `ctr` has the image, in this order; docker and podman must not both have the name with different images.',
  },
  archive: {
    type: 'path',
    help: 'A tar file with the image, as `docker save`, `podman save` or an OCI exporter writes it (plain, gzip or zstd), or a directory with an OCI layout.',
    manual: true,
  },
  bundle: {
    type: 'path',
    help: 'The file that `mode: bundle` writes: an OCI archive with the images under all of their names, for every platform that the source has, compressed as they would be sent. On the other side it is the `archive`.',
  },
  'containerd-namespace': {
    type: 'text',
    help: 'The namespace that `nerdctl` and `containerd` sources look into, such as `k8s.io`. Default: `$CONTAINERD_NAMESPACE`, else `default`.',
  },
  compression: {
    type: { oneOf: ['auto', 'zstd', 'gzip', 'none'] },
    default: 'auto',
    help: 'How layers travel that are not compressed in the source. `auto` takes zstd, which every runtime reads, and gzip where the runner has no zstd.',
  },
  'cache-dir': {
    type: 'path',
    help: 'Where the runner keeps compressed layers for the next job. Default: `kube-sideload/layers` in `$XDG_CACHE_HOME`, else in `~/.cache`.',
  },
  'cache-size': {
    type: 'bytes',
    default: '10GB',
    help: 'How much may stay in `cache-dir` after a job; what was not used for longest goes first. `0` keeps nothing.',
  },
  nodes: {
    type: 'list',
    help: 'Nodes as `[user@]host[:port][=kubernetes-name]`, one per line or separated by commas. The Kubernetes name is read from the node’s kubelet unless given.',
    manual: true,
  },
  'nodes-from-cluster': {
    type: { oneOf: ['true', 'false'] },
    default: 'false',
    help: 'Take the nodes from the cluster: all that `node-selector` takes, at the addresses that Kubernetes has for them; needs the right to `list` nodes. Entries of `nodes` or of the inventory then replace address, user and port of the node with this name or address.',
    manual: true,
  },
  'node-selector': {
    type: 'text',
    help: 'The nodes that the pods may run on, as a label selector, such as `pool=ci,!node-role.kubernetes.io/control-plane`. Default: all nodes of the cluster. With a list of `nodes`, those that it takes and the list lacks are reported.',
    manual: true,
  },
  shard: {
    type: 'text',
    help: 'The part of the nodes that this job does, as `i/N`: with `2/4` it takes every fourth node, beginning with the second. For fleets that several runners share; nodes that are not listed are then not looked for.',
  },
  inventory: {
    type: 'path',
    help: 'The runner’s own node list and settings (YAML). Default: `$KUBE_SIDELOAD_INVENTORY`, else `/etc/kube-sideload/inventory.yaml`, else `kube-sideload/inventory.yaml` in the user’s configuration directory. Inputs override it.',
  },
  config: {
    type: 'path',
    help: 'The project’s own nodes and settings (YAML), in the form of an inventory, with `images` and `archive` besides. Default on the command line: `kube-sideload.yaml` in the working directory. It overrides the inventory; inputs override both.',
  },
  'ssh-user': {
    type: 'text',
    default: 'root',
    help: 'The user to log in as: root, or one who may become root (see `sudo`).',
  },
  'ssh-port': { type: 'port', default: '22', help: 'The port of sshd on the nodes.' },
  'ssh-jump': {
    type: 'list',
    help: 'Jump hosts on the way to the nodes, in their order, as `[user@]host[:port]`; the user is `ssh-user` and the port 22 unless given. Each host’s own key is checked, and the same key or agent is offered to it. A node’s `jump` in the inventory goes before it; `none` there means no jump host.',
  },
  'ssh-private-key': {
    type: 'secret',
    help: 'The private key, whole, with its line breaks. Default: the key in `ssh-private-key-file`, else the runner’s ssh-agent (see `ssh-agent`) and `~/.ssh/id_ed25519`, `id_ecdsa` or `id_rsa` of the runner.',
  },
  'ssh-private-key-file': { type: 'path', help: 'A file on the runner with the private key.' },
  'ssh-key-passphrase': { type: 'secret', help: 'The passphrase of the private key, if it has one.' },
  'ssh-transport': {
    type: { oneOf: ['node-ssh', 'openssh'] },
    default: 'node-ssh',
    help: '`openssh` has the runner’s own `ssh` make the connections, with its `~/.ssh/config`, certificates and security keys (FIDO); user and port are what that says, unless set here. Host keys are checked strictly either way.',
  },
  'ssh-agent': {
    type: 'text',
    default: 'auto',
    help: 'The ssh-agent to ask when no private key is given: `auto` is the one in `$SSH_AUTH_SOCK`, if there is one; else the path of its socket, or `off`.',
  },
  'ssh-password': {
    type: 'secret',
    help: 'The password of the user, for nodes that take no key. A key is better: it never reaches the node, and can be revoked by itself.',
  },
  sudo: {
    type: { oneOf: ['auto', 'sudo', 'doas', 'none'] },
    default: 'auto',
    help: 'How a user who is not root becomes it on the nodes: `auto` takes sudo, or doas where there is no sudo. `none` does without, for a user who may talk to the runtime. The inventory can say it per node.',
  },
  'sudo-password': {
    type: 'secret',
    help: 'The password that sudo asks for. It travels inside the SSH connection alone, to sudo’s standard input. Better: `NOPASSWD` for this user.',
  },
  'ssh-known-hosts': {
    type: 'text',
    help: 'Lines of a known_hosts file for the nodes. Default: `ssh-known-hosts-file`, else the runner’s `~/.ssh/known_hosts` and `/etc/ssh/ssh_known_hosts`.',
    sensitive: true,
  },
  'ssh-known-hosts-file': { type: 'path', help: 'A known_hosts file on the runner.' },
  'ssh-host-key-fingerprints': {
    type: 'list',
    help: 'Host key fingerprints to accept besides, as `ssh-keygen -lf` prints them: `SHA256:…`, or `host SHA256:…` for one node.',
  },
  'connect-timeout': {
    type: 'seconds',
    default: '20s',
    help: 'How long a node may take until the login is through.',
  },
  'cri-socket': {
    type: 'path',
    help: 'The CRI socket on the nodes. Default: the one that the kubelet uses.',
  },
  delta: {
    type: { oneOf: ['true', 'false'] },
    default: 'true',
    help: 'Send only the layers that a node lacks. `false` sends whole images.',
  },
  parallel: {
    type: 'count',
    default: '10',
    help: 'How many nodes receive at a time, at most; `0` is all of them. Control-plane nodes come when all others have the images.',
  },
  bandwidth: {
    type: 'rate',
    help: 'The rate at which this runner sends, to all nodes together, such as `20MB/s` or `200Mbit/s`. Default: no limit.',
  },
  retries: {
    type: 'count',
    default: '3',
    help: 'How often a node is tried again, after a growing pause, when its connection breaks off or its runtime goes away while images are sent, or while it is put in order after a failure. What it has received whole is not sent again.',
  },
  atomic: {
    type: { oneOf: ['true', 'false'] },
    default: 'true',
    help: 'All nodes or none: when a node fails after references have moved, its smoke pod included, every node gets back what its references named before; what fails after that, while old releases (`keep`) or old pins go, puts nothing back. `false` leaves the new image on the nodes that are fine, and the job still fails.',
  },
  pin: {
    type: { oneOf: ['true', 'false'] },
    default: 'false',
    help: 'Pin the images on the nodes, so that the kubelet does not remove them when the disk fills up: by a label with containerd (1.6.25, 1.7.10 or later), by a file in `/etc/crio/crio.conf.d` with CRI-O. Docker has no pins; such nodes are reported. `false` takes away pins that an earlier push of the same names has set.',
  },
  'lock-timeout': {
    type: 'seconds',
    default: '10m',
    help: 'How long to wait for another job that moves the same references on the same nodes. From the moment at which references move until the verdict is in, a job has them locked on each node; a job that was killed does so for two minutes at most.',
  },
  'sandbox-image': {
    type: { oneOf: ['report', 'send'] },
    default: 'report',
    help: 'What to do about nodes that lack the image of every pod’s sandbox (pause): `report` names it and stops; `send` sends it to them along with the others, from `archive`, else from an engine of the runner, without a smoke pod of its own.',
  },
  smoke: {
    type: { oneOf: ['pod', 'cri', 'none'] },
    default: 'pod',
    help: 'The gate: `pod` starts one pod per node and image with `imagePullPolicy: Never` and waits for the kubelet’s verdict; `cri` starts a sandbox and a container through the node’s own `crictl`, without Kubernetes, and has the runtime’s verdict only; `none` ends after the check of the runtime’s image store.',
    manual: true,
  },
  kubeconfig: {
    type: 'text',
    help: 'A kubeconfig for the smoke pods: its path on the runner, or its content. Default: what kubectl itself would use.',
    sensitive: true,
  },
  kubectl: {
    type: 'text',
    default: 'kubectl',
    help: 'The program to use as kubectl: a name or a path (`oc` works too); or a control-plane node, `ssh://[user@]host[:port]`, whose own kubectl and administrator’s kubeconfig are used, so that the runner needs neither. `kubeconfig` is then a path on that node.',
  },
  namespace: {
    type: 'text',
    default: 'default',
    help: 'The namespace of the smoke pods.',
  },
  'smoke-timeout': {
    type: 'seconds',
    default: '2m',
    help: 'How long a smoke pod may take until it runs.',
  },
  'smoke-expect': {
    type: { oneOf: ['started', 'running', 'ready', 'completed'] },
    default: 'started',
    help: 'What counts: `started` is `Running` for two seconds or an end with exit code 0; `running` does not take an end; `ready` also waits for the readiness probes of a `smoke-manifest`; `completed` waits for the end.',
  },
  'smoke-command': {
    type: 'lines',
    help: 'A command for the smoke pods in place of the image’s own: program and arguments, one per line.',
  },
  'smoke-security': {
    type: { oneOf: ['auto', 'restricted', 'image'] },
    default: 'auto',
    help: 'The security context of the smoke pods: `restricted` is all that Pod Security `restricted` wants (as user 65534 when the image’s own user is root or has no number); `image` is none at all; `auto` is `restricted` for images whose user is a number other than 0, and for others where the namespace wants it, else `image`.',
  },
  'smoke-resources': {
    type: 'list',
    help: 'What the smoke pods ask for: `cpu=10m`, `memory=16Mi`, `limits.cpu=1`, `limits.memory=256Mi`. Default: `cpu=10m,memory=16Mi` and no limits; where a quota wants limits, 500m and 128Mi.',
  },
  'smoke-manifest': {
    type: 'text',
    help: 'A Pod, or an object that makes pods (such as a Deployment), as a path on the runner or as its content in YAML or JSON. The smoke pods of the images that it uses are made from it; name, node, `imagePullPolicy: Never` and `restartPolicy: Never` are set here.',
  },
  'smoke-parallel': {
    type: 'number',
    default: '50',
    help: 'How many smoke pods there are at most at a time.',
  },
  'report-json': {
    type: 'path',
    help: 'A file for the record of the run as JSON (`schemas/report.schema.json` explains it), also of a run that failed; directories are made.',
  },
  'report-junit': {
    type: 'path',
    help: 'A file for the record as JUnit XML: a test case for each image on each node.',
  },
  'report-dotenv': {
    type: 'path',
    help: 'A file for the record as `KEY=value` lines, such as `KUBE_SIDELOAD_CHANGED=true`, in the form of GitLab’s dotenv reports.',
  },
} as const satisfies Record<string, InputSpec>;

export type InputName = keyof typeof INPUTS;

type Value<T extends InputType> = T extends { readonly oneOf: readonly (infer O)[] }
  ? O
  : T extends 'list' | 'lines'
    ? readonly string[]
    : T extends 'port' | 'count' | 'rate' | 'number' | 'seconds' | 'bytes'
      ? number
      : string;

/** The parsed inputs by name; seconds as a number of seconds. What was not set and has no default is `undefined`, lists are empty. */
export type Inputs = {
  readonly [K in InputName]: (typeof INPUTS)[K] extends
    | { readonly default: string }
    | { readonly type: 'list' | 'lines' }
    ? Value<(typeof INPUTS)[K]['type']>
    : Value<(typeof INPUTS)[K]['type']> | undefined;
};

export const INPUT_NAMES = Object.keys(INPUTS) as readonly InputName[];

export function inputSpec(name: InputName): InputSpec {
  return INPUTS[name];
}

export function isInputName(name: string): name is InputName {
  return Object.hasOwn(INPUTS, name);
}

/**
 * Turns the texts of a front end into values. An empty text counts as not set, as everywhere in CI.
 * Nothing is coerced: what is not of the input's form becomes a problem, and all problems are returned together.
 */
export function parseInputs(textOf: (name: InputName) => string | undefined): {
  readonly inputs: Inputs;
  readonly problems: readonly InputProblem[];
} {
  const problems: InputProblem[] = [];
  const values: Partial<Record<InputName, unknown>> = {};
  for (const name of INPUT_NAMES) {
    const spec = inputSpec(name);
    const given = textOf(name);
    const text = given === undefined || given.trim() === '' ? spec.default : given;
    if (text === undefined) {
      values[name] = spec.type === 'list' || spec.type === 'lines' ? [] : undefined;
      continue;
    }
    const value = parseValue(spec.type, text);
    if (value === undefined) {
      const lines = parseLines(text);
      const count = lines.length > 1 ? `, which takes one value, has ${lines.length} lines and` : '';
      problems.push(problem(`\`${name}\`${count} must be ${formOf(spec.type)}, not ${shown(text.trim())}`));
    }
    values[name] = value;
  }
  return { inputs: values as Inputs, problems };
}

function parseValue(type: InputType, text: string): string | number | readonly string[] | undefined {
  if (typeof type === 'object') {
    return type.oneOf.find(option => option === text.trim());
  }
  switch (type) {
    case 'list':
      return parseLines(text).flatMap(splitCommas);
    case 'lines':
      return parseLines(text);
    case 'port': {
      const port = /^\d{1,5}$/.test(text.trim()) ? Number(text) : 0;
      return port >= 1 && port <= 65535 ? port : undefined;
    }
    case 'rate':
      return parseRate(text.trim());
    case 'count':
      return /^\d{1,3}$/.test(text.trim()) ? Number(text) : undefined;
    case 'number':
      return /^[1-9]\d{0,3}$/.test(text.trim()) ? Number(text) : undefined;
    case 'seconds':
      return parseSeconds(text.trim());
    case 'bytes':
      return parseBytes(text.trim());
    case 'secret':
      return text;
    case 'path':
      return /[\0\n\r]/.test(text.trim()) ? undefined : text.trim();
    case 'text':
      return text.trim();
  }
}

/** Whether an input is a list, of which each item may be given by itself. */
export function takesSeveral(name: InputName): boolean {
  const { type } = inputSpec(name);
  return type === 'list' || type === 'lines';
}

/** Empty lines and comments (`#`) are left out. */
function parseLines(text: string): readonly string[] {
  return text
    .split('\n')
    .map(line => line.trim())
    .filter(line => line !== '' && !line.startsWith('#'));
}

/** An item with spaces inside stays whole, so that whoever reads it can say what is wrong with it. */
function splitCommas(line: string): readonly string[] {
  const items = line.split(',').map(item => item.trim());
  return items.some(item => /\s/.test(item)) ? [line] : items.filter(item => item !== '');
}

function parseSeconds(text: string): number | undefined {
  const match = /^(\d{1,6})(s|m|h)?$/.exec(text);
  if (match === null) {
    return undefined;
  }
  const seconds = Number(match[1]) * { s: 1, m: 60, h: 3600 }[(match[2] ?? 's') as 's' | 'm' | 'h'];
  return seconds >= 1 && seconds <= 86_400 ? seconds : undefined;
}

/** Decimal units, as network rates have them. */
function parseRate(text: string): number | undefined {
  const match = /^(\d{1,6}(?:\.\d{1,3})?) ?([kMG]?)(B|bit)\/s$/.exec(text);
  if (match === null) {
    return undefined;
  }
  const factor = { '': 1, k: 1e3, M: 1e6, G: 1e9 }[(match[2] ?? '') as '' | 'k' | 'M' | 'G'];
  const bytes = (Number(match[1]) * factor) / (match[3] === 'bit' ? 8 : 1);
  return bytes >= 1 ? bytes : undefined;
}

const BYTE_UNITS: Readonly<Record<string, number>> = {
  B: 1,
  kB: 1e3,
  MB: 1e6,
  GB: 1e9,
  TB: 1e12,
  KiB: 2 ** 10,
  MiB: 2 ** 20,
  GiB: 2 ** 30,
  TiB: 2 ** 40,
};

function parseBytes(text: string): number | undefined {
  if (text === '0') return 0;
  const [, digits = '', unit = ''] = /^(\d{1,6})([kKMGT]?i?B)$/.exec(text) ?? [];
  const factor = BYTE_UNITS[unit];
  return factor === undefined ? undefined : Number(digits) * factor;
}

function formOf(type: InputType): string {
  if (typeof type === 'object') {
    return type.oneOf.map(option => `\`${option}\``).join(' or ');
  }
  return {
    text: 'a text',
    list: 'a list',
    lines: 'one item per line',
    path: 'a path on one line',
    port: 'a port from 1 to 65535',
    count: 'a whole number from 0 to 999',
    rate: 'a rate such as `20MB/s` or `200Mbit/s`',
    number: 'a number from 1 to 9999',
    seconds: 'a time such as `90s`, `2m` or `1h` (one day at most)',
    bytes: 'a size such as `500MB` or `10GiB`, or `0`',
    secret: 'a text',
  }[type];
}

import { existsSync, readFileSync } from 'node:fs';
import { homedir } from 'node:os';
import { dirname, isAbsolute, join, resolve } from 'node:path';
import type { Expectation } from './check.ts';
import { directoryFault } from './directory.ts';
import { messageOf, SideloadError } from './errors.ts';
import { mergeExpected, parseExpected } from './expected.ts';
import type { Host } from './host/host.ts';
import type { SecretOrigin } from './host/secrets.ts';
import { type Alias, parseAlias } from './image/aliases.ts';
import type { CacheOptions } from './image/cache.ts';
import { normalise } from './image/reference.ts';
import { INPUT_NAMES, type InputName, type Inputs, inputSpec, parseInputs } from './inputs.ts';
import {
  type Inventory,
  type JumpEntry,
  labelOf,
  type NodeEntry,
  parseCriSocket,
  parseInventory,
  parseJump,
  parseNode,
  type SettingsFile,
} from './node/inventory.ts';
import { parseShard, type Shard, takeShard } from './node/shard.ts';
import { judgePath } from './private-path.ts';
import { collect, type InputProblem, problem, shown, throwProblems } from './problems.ts';
import { REPORT_KINDS, type ReportFiles, reportProblems, faultOf as writeFault } from './report/files.ts';
import { credentialsOf } from './smoke/credentials.ts';
import { type PodTemplate, parsePodManifest } from './smoke/manifest.ts';
import type { Quantities } from './smoke/pod.ts';
import { parseResources } from './smoke/resources.ts';
import type { SmokeExpect } from './smoke/verdict.ts';
import type { SshAuthentication } from './ssh/authentication.ts';
import type { SshHost, SshTarget } from './ssh/connect.ts';
import { type HostKeyPolicy, hostKeyPolicy } from './ssh/host-keys.ts';
import { opensshKey, parsePrivateKey } from './ssh/key.ts';
import { parseKnownHosts } from './ssh/known-hosts.ts';
import type { OpensshSettings } from './ssh/openssh.ts';
import type { SshSettings } from './ssh/transport.ts';

/** A node to push to. */
export interface NodeSettings extends SshTarget {
  /** `metadata.name` of the Kubernetes node, when the user gave it. */
  readonly kubernetesName: string | undefined;
  /** The CRI socket of this node, when the inventory has one for it. */
  readonly criSocket: string | undefined;
  readonly jump: readonly SshHost[];
  /** How a user who is not root becomes it. */
  readonly sudo: Inputs['sudo'];
}

/** What a run does, complete and checked: nothing in here can turn out to be malformed later. */
export interface Settings {
  readonly mode: Inputs['mode'];
  /** References as the user wrote them; empty means all images of the archive. */
  readonly images: readonly string[];
  readonly source: Inputs['source'];
  readonly archive: string | undefined;
  /** The file to write, with the mode `bundle` alone; nodes, cluster and smoke are absent then. */
  readonly bundle: string | undefined;
  /** As `ALIAS=IMAGE` or `ALIAS`; checked, except against the names in an archive. */
  readonly aliases: readonly string[];
  readonly compression: Inputs['compression'];
  /** Where layers stay on the runner. */
  readonly cache: CacheOptions;
  /** Where nerdctl and ctr on the runner look; `undefined` leaves it to them. */
  readonly containerdNamespace: string | undefined;
  /** The nodes of the list; with `nodesFromCluster` what is to be replaced of those that the cluster names. */
  readonly nodes: readonly NodeSettings[];
  readonly nodesOrigin: 'input' | 'inventory';
  readonly nodesFromCluster: boolean;
  /** A label selector; empty takes all. */
  readonly nodeSelector: string;
  /** The part of the nodes that this run is for; `nodes` is cut already, unless the cluster names them. */
  readonly shard: Shard | undefined;
  readonly ssh: SshSettings & {
    /** For nodes that say nothing else. */
    readonly user: string;
    readonly port: number;
    readonly given: SshHost['given'];
    readonly jump: readonly SshHost[];
    readonly sudo: Inputs['sudo'];
    /** What sudo may ask for; one line. */
    readonly sudoPassword: string | undefined;
  };
  readonly criSocket: string | undefined;
  /** Whether layers that a node has are left out. */
  readonly delta: boolean;
  /** Whether a failure on one node puts all nodes back to what they were. */
  readonly atomic: boolean;
  /** Whether the images are kept from the kubelet’s collection. */
  readonly pin: boolean;
  /** How long another job is waited for that has the same references locked. */
  readonly lockTimeoutMs: number;
  /** How many nodes receive at a time. */
  readonly parallel: number;
  /** Of all transfers together, in bytes per second. */
  readonly bandwidth: number | undefined;
  /** How often a node is tried again when its connection breaks off while images are sent. */
  readonly retries: number;
  /** `undefined` when the cluster is not asked for anything. */
  readonly cluster: ClusterSettings | undefined;
  readonly smoke: SmokeSettings | undefined;
  readonly sandboxImage: Inputs['sandbox-image'];
  /** What should be there, for `mode: check` without an image source. */
  readonly expected: readonly Expectation[] | undefined;
  /** How many releases stay; `undefined` removes nothing. */
  readonly keep: number | undefined;
  readonly isDryRun: boolean;
  readonly reports: ReportFiles;
}

export interface ClusterSettings {
  /** A program on the runner, or the node on whose own it is. */
  readonly kubectl: string | SshTarget;
  /** A path where the program is, the content, or `undefined` for what kubectl itself would use. */
  readonly kubeconfig: { readonly path: string } | { readonly content: string } | undefined;
  /** Of the smoke pods. */
  readonly namespace: string;
}

export interface SmokeSettings {
  /** Whose verdict counts: the kubelet's on pods, or the runtime's on what it starts itself. */
  readonly by: 'pod' | 'cri';
  readonly timeoutMs: number;
  /** In place of the image's entrypoint and command, when not empty. */
  readonly command: readonly string[];
  readonly expect: SmokeExpect;
  readonly parallel: number;
  readonly security: Inputs['smoke-security'];
  readonly resources: { readonly requests: Quantities; readonly limits: Quantities };
  readonly template: PodTemplate | undefined;
}

/** Where texts of inputs and nodes come from, the nearest first: the job, the file of the project, that of the machine. */
interface Layers {
  textOf(name: InputName): string | undefined;
  /** Of the first file that lists any. */
  readonly nodes: readonly NodeEntry[];
  /** Whether every file could be read: what one that cannot be may have set is not missing. */
  readonly isComplete: boolean;
}

function readLayers(host: Host, env: NodeJS.ProcessEnv, problems: InputProblem[]): Layers {
  const config = collect(problems, () => readConfig(host));
  const inventory = collect(problems, () => readInventory(host, config, env));
  const files = [config, inventory];
  return {
    textOf: name => [host.input(name), ...files.map(file => file?.settings[name])].find(text => text?.trim()),
    nodes: files.map(file => file?.nodes ?? []).find(nodes => nodes.length > 0) ?? [],
    isComplete: files.every(file => file !== undefined),
  };
}

/** Where the record of a run goes whose settings cannot be read: as far as they can, and what can be written. */
export function readReportFiles(host: Host, env: NodeJS.ProcessEnv = process.env): ReportFiles {
  const files = reportFiles(parseInputs(readLayers(host, env, []).textOf).inputs);
  return reportProblems(files).length === 0 ? files : {};
}

function reportFiles(inputs: Inputs): ReportFiles {
  const entries = REPORT_KINDS.map(kind => [kind, inputs[`report-${kind}`]] as const);
  return Object.fromEntries(entries.filter(([, file]) => file !== undefined));
}

/**
 * Reads all inputs, the inventory of the runner, the configuration of the project, and the files that they name.
 * @throws SideloadError with every problem that can be seen without touching a node, an engine or the cluster.
 */
export function readSettings(host: Host, env: NodeJS.ProcessEnv = process.env): Settings {
  const problems: InputProblem[] = [];
  const found = foundConfig(host);
  if (found !== undefined && !host.input('config')?.trim()) {
    host.info(`settings of ${found} in the working directory apply`);
  }
  const layers = readLayers(host, env, problems);
  const parsed = parseInputs(layers.textOf);
  problems.push(...parsed.problems);
  const { inputs } = parsed;
  for (const name of INPUT_NAMES) {
    const secret = inputs[name];
    if (inputSpec(name).type === 'secret' && typeof secret === 'string') {
      host.mask(secret, 'job');
    }
  }

  // OpenSSH: ssh.c, valid_ruser; what is no name there is none for us.
  if (!/^(?!-)[^\s\p{C}'`";&<>|(){}]{1,255}$/u.test(inputs['ssh-user'])) {
    problems.push(problem(`\`ssh-user\` ${shown(inputs['ssh-user'])} is not a name of a user`));
  }

  const isSet = (name: InputName) => layers.textOf(name) !== undefined;
  const references = inputs.images.flatMap(reference => collect(problems, () => normalise(reference)) ?? []);
  problems.push(...duplicates('images', references));
  const isSending = inputs.mode === 'push' || inputs.mode === 'plan';
  const expected = inputs.mode === 'check' ? readExpected(inputs, references, problems) : undefined;
  problems.push(...modeProblems(inputs, isSet));
  const needsImages = inputs.mode !== 'prune' && inputs.expected.length === 0;
  if (needsImages && inputs.images.length === 0 && inputs.archive === undefined) {
    problems.push(problem('`images` is empty', 'name at least one image, or an `archive`'));
  }
  if (inputs.source === 'archive' && inputs.archive === undefined) {
    problems.push(problem('`source: archive` needs `archive`', 'name the tar file or the directory'));
  }
  const aliases = inputs.aliases.flatMap(alias => collect(problems, () => parseAlias(alias)) ?? []);
  problems.push(
    ...duplicates(
      'aliases',
      aliases.map(({ alias }) => alias),
    ),
  );
  if (references.length > 0 && references.length === inputs.images.length) {
    problems.push(...aliases.flatMap(alias => aliasProblems(alias, references)));
  }
  const namespace = inputs['containerd-namespace'];
  // containerd: pkg/identifiers
  if (namespace !== undefined && !/^(?=.{1,76}$)[A-Za-z0-9]+(?:[._-][A-Za-z0-9]+)*$/.test(namespace)) {
    problems.push(problem(`\`containerd-namespace\` ${JSON.stringify(namespace)} is not a name of a namespace`));
  }
  if (inputs.archive !== undefined && inputs.source !== 'auto' && inputs.source !== 'archive') {
    problems.push(problem(`\`archive\` and \`source: ${inputs.source}\` exclude each other`, 'set one of them'));
  }

  problems.push(...bundleProblems(inputs), ...directoryProblems(inputs, host, env));
  const isBundle = inputs.mode === 'bundle';

  const jump = collect(problems, () => parseJump(inputs['ssh-jump'])) ?? [];
  const isOpenssh = inputs['ssh-transport'] === 'openssh';
  /** With user and port as they apply, and what of them somebody has said: OpenSSH's client has other defaults. */
  const complete = ({ host: name, user, port }: JumpEntry, of: { readonly isJump: boolean }) => ({
    host: name,
    user: user ?? inputs['ssh-user'],
    port: port ?? (of.isJump ? 22 : inputs['ssh-port']),
    given: {
      user: user ?? (isSet('ssh-user') ? inputs['ssh-user'] : undefined),
      port: port ?? (!of.isJump && isSet('ssh-port') ? inputs['ssh-port'] : undefined),
    },
  });
  const hop = (entry: JumpEntry) => complete(entry, { isJump: true });
  const defaults = { jump: jump.map(hop), sudo: inputs.sudo };
  const listed = isBundle
    ? []
    : readNodes(inputs, layers, problems, entry => ({
        label: labelOf(entry),
        ...complete(entry, { isJump: false }),
        jump: entry.jump?.map(hop) ?? defaults.jump,
        sudo: entry.sudo ?? defaults.sudo,
        kubernetesName: entry.kubernetesName,
        criSocket: entry.criSocket,
      }));
  const shard = inputs.shard === undefined ? undefined : collect(problems, () => parseShard(inputs.shard ?? ''));
  const nodesFromCluster = !isBundle && inputs['nodes-from-cluster'] === 'true';
  // Entries for nodes of the cluster are no list: the shard is taken of what the cluster names.
  const nodes = nodesFromCluster ? listed : (collect(problems, () => takeShard(listed, shard)) ?? []);
  const mayLack = (...names: readonly InputName[]) =>
    !layers.isComplete && names.every(name => inputs[name] === undefined);
  const authentication = mayLack('ssh-private-key', 'ssh-private-key-file', 'ssh-password')
    ? undefined
    : collect(problems, () => (isOpenssh || isBundle ? {} : readAuthentication(inputs, host, env)));
  const sudoPassword = collect(problems, () => readPassword('sudo-password', inputs['sudo-password']));
  const hostKeys = mayLack('ssh-known-hosts', 'ssh-known-hosts-file')
    ? undefined
    : collect(problems, () => (isBundle ? hostKeyPolicy({}) : readHostKeys(inputs, isOpenssh, host)));
  const openssh = isOpenssh && !isBundle ? readOpenssh(inputs, host, problems) : undefined;
  const given = inputs['cri-socket'];
  const criSocket = given === undefined ? undefined : collect(problems, () => parseCriSocket(given));
  const cluster =
    isBundle || ((inputs.smoke !== 'pod' || !isSending) && !nodesFromCluster)
      ? undefined
      : collect(problems, () => readCluster(inputs, host));
  const smoke = inputs.smoke === 'none' || !isSending ? undefined : readSmoke(inputs, problems);
  const reports = reportFiles(inputs);
  problems.push(...reportProblems(reports), ...cacheProblems(inputs));

  throwProblems(problems);
  if (authentication === undefined || hostKeys === undefined) {
    throw new SideloadError('INTERNAL', 'settings without a problem lack a part');
  }
  if (authentication.password !== undefined) {
    host.warning(
      '`ssh-password` is set: a key (`ssh-private-key`) is better, as nodes and jump hosts never get to see it',
    );
  }
  return {
    mode: inputs.mode,
    images: inputs.images,
    source: inputs.source,
    archive: inputs.archive,
    bundle: inputs.bundle,
    aliases: inputs.aliases,
    compression: inputs.compression,
    cache: { directory: inputs['cache-dir'] ?? cacheDirectory(env), maxBytes: inputs['cache-size'] },
    containerdNamespace: namespace,
    nodes,
    nodesOrigin: inputs.nodes.length > 0 ? 'input' : 'inventory',
    nodesFromCluster,
    nodeSelector: inputs['node-selector'] ?? '',
    shard,
    ssh: {
      user: inputs['ssh-user'],
      port: inputs['ssh-port'],
      given: complete({ host: '', user: undefined, port: undefined }, { isJump: false }).given,
      ...defaults,
      sudoPassword,
      openssh,
      authentication,
      hostKeys,
      connectTimeoutMs: inputs['connect-timeout'] * 1000,
    },
    criSocket,
    delta: inputs.delta === 'true',
    atomic: inputs.atomic === 'true',
    pin: inputs.pin === 'true',
    lockTimeoutMs: inputs['lock-timeout'] * 1000,
    parallel: inputs.parallel === 0 ? Number.POSITIVE_INFINITY : inputs.parallel,
    bandwidth: inputs.bandwidth,
    retries: inputs.retries,
    cluster,
    sandboxImage: inputs['sandbox-image'],
    smoke,
    expected,
    keep: inputs.keep,
    isDryRun: inputs['dry-run'] === 'true',
    reports,
  };
}

/** What is wrong with the place of the bundle, as far as it can be seen without writing it. */
function bundleProblems(inputs: Inputs): readonly InputProblem[] {
  const { mode, bundle, archive } = inputs;
  if (mode !== 'bundle') {
    return bundle === undefined ? [] : [problem(`\`bundle\` is for \`mode: bundle\`, and the mode is \`${mode}\``)];
  }
  if (bundle === undefined) {
    return [problem('`mode: bundle` needs `bundle`', 'name the file to write')];
  }
  const path = resolve(bundle);
  const others = {
    archive,
    ...Object.fromEntries(REPORT_KINDS.map(kind => [`report-${kind}`, inputs[`report-${kind}`]])),
  };
  const twice = Object.entries(others).filter(([, file]) => file !== undefined && resolve(file) === path);
  const fault = writeFault(path);
  return [
    ...twice.map(([name]) => problem(`\`${name}\` and \`bundle\` name the same file`, 'give each a file of its own')),
    ...(fault === undefined ? [] : [problem(`\`bundle\`: ${shown(bundle)} ${fault}`)]),
  ];
}

/** Directories that files are to be written to, and can't be. */
function directoryProblems(inputs: Inputs, host: Host, env: NodeJS.ProcessEnv): readonly InputProblem[] {
  const cache = inputs['cache-size'] === 0 ? undefined : inputs['cache-dir'];
  const cacheFault = cache === undefined ? undefined : directoryFault(cache);
  const temporary = host.temporaryDirectory;
  const isThere = existsSync(temporary);
  const temporaryFault = isThere ? directoryFault(temporary) : 'is not there';
  const variable = env.RUNNER_TEMP === temporary ? 'RUNNER_TEMP' : 'TMPDIR';
  return [
    ...(cacheFault === undefined ? [] : [problem(`\`cache-dir\`: ${shown(cache ?? '')} ${cacheFault}`)]),
    ...(temporaryFault === undefined
      ? []
      : [problem(`the directory for temporary files, ${shown(temporary)}, ${temporaryFault}`, `set ${variable}`)]),
  ];
}

/** What a mode wants, and what it would not heed. */
function modeProblems(inputs: Inputs, isSet: (name: InputName) => boolean): readonly InputProblem[] {
  const { mode } = inputs;
  return [
    ...(mode === 'prune' && !isSet('keep')
      ? [problem('`mode: prune` needs `keep`', 'say how many releases of each repository stay')]
      : []),
    ...(mode !== 'prune' && inputs['dry-run'] === 'true'
      ? [problem(`\`dry-run\` is for \`mode: prune\`, not for \`${mode}\``, 'the dry run of a push is `mode: plan`')]
      : []),
    ...(mode !== 'check' && inputs.expected.length > 0
      ? [problem(`\`expected\` is for \`mode: check\`, not for \`${mode}\``, 'leave it out')]
      : []),
  ];
}

/** What the files of `expected` say, of all images or of those in `images`. */
function readExpected(
  inputs: Inputs,
  references: readonly string[],
  problems: InputProblem[],
): readonly Expectation[] | undefined {
  if (inputs.expected.length === 0) {
    return undefined;
  }
  return collect(problems, () => {
    const all = mergeExpected(inputs.expected.map(file => parseExpected(readText('expected', file), shown(file))));
    const unknown = references.filter(reference => all.every(one => one.reference !== reference));
    if (unknown.length > 0) {
      throw new SideloadError('INPUT_INVALID', `\`expected\` does not have ${unknown.join(', ')} of \`images\``, {
        hint: `it has ${all.map(({ reference }) => reference).join(', ')}`,
      });
    }
    return references.length === 0 ? all : all.filter(one => one.isSandbox || references.includes(one.reference));
  });
}

/** What is wrong with an alias, as far as `images` can show it. */
function aliasProblems({ alias, image }: Alias, references: readonly string[]): readonly InputProblem[] {
  const how = 'write `ALIAS=IMAGE`, with the image as it is in `images`';
  if (references.includes(alias)) return [problem(`\`aliases\` names ${JSON.stringify(alias)}, as \`images\` does`)];
  if (image !== undefined && !references.includes(image)) {
    return [problem(`\`aliases\`: ${JSON.stringify(image)} is not in \`images\``, how)];
  }
  if (image === undefined && references.length > 1) {
    return [problem(`\`aliases\` does not say which image ${JSON.stringify(alias)} is for`, how)];
  }
  return [];
}

/** A path in the home directory; none for a user whom neither HOME nor the machine knows, as in many containers. */
function inHome(...names: readonly string[]): readonly string[] {
  try {
    return [join(homedir(), ...names)];
  } catch {
    return [];
  }
}

/** A directory that the user names and others can write to; one that is not named is left out instead. */
function cacheProblems(inputs: Inputs): readonly InputProblem[] {
  const { 'cache-dir': directory, 'cache-size': maxBytes } = inputs;
  const exposure = directory === undefined || maxBytes === 0 ? undefined : judgePath(directory).exposure;
  if (exposure === undefined) return [];
  const hint =
    'name a directory of this user alone (`chmod go-w`), below such directories or root’s; each user has a cache';
  return [problem(`\`cache-dir\`: others could put layers into it: ${exposure}`, hint)];
}

/** As the XDG Base Directory Specification has it; undefined for a user without a home. */
function cacheDirectory(env: NodeJS.ProcessEnv): string | undefined {
  const given = env.XDG_CACHE_HOME;
  // A relative path is to be ignored, says the specification.
  // A home that is not there (`/nonexistent`) is none to be made.
  const homes = inHome('.cache').filter(path => existsSync(dirname(path)));
  const [base] = given !== undefined && isAbsolute(given) ? [given] : homes;
  return base === undefined ? undefined : join(base, 'kube-sideload', 'layers');
}

/** The file that the user names must exist; the places of the runner may be empty. */
function readInventory(host: Host, config: Inventory | undefined, env: NodeJS.ProcessEnv): Inventory {
  const named =
    host.input('inventory')?.trim() || config?.settings.inventory?.trim() || env.KUBE_SIDELOAD_INVENTORY?.trim();
  const configuration = env.XDG_CONFIG_HOME ? [env.XDG_CONFIG_HOME] : inHome('.config');
  const places = [
    '/etc/kube-sideload/inventory.yaml',
    ...configuration.map(directory => join(directory, 'kube-sideload', 'inventory.yaml')),
  ];
  const file = named || places.find(place => existsSync(place));
  return readSettingsFile('inventory', file);
}

/** The file that the user names, else the one of the working directory, if the host looks there. */
function readConfig(host: Host): Inventory {
  return readSettingsFile('config', host.input('config')?.trim() || foundConfig(host));
}

function foundConfig({ defaultConfig }: Host): string | undefined {
  return defaultConfig !== undefined && existsSync(defaultConfig) ? defaultConfig : undefined;
}

function readSettingsFile(owner: SettingsFile, file: string | undefined): Inventory {
  return file === undefined ? { nodes: [], settings: {} } : parseInventory(readText(owner, file), file, owner);
}

function readNodes(
  inputs: Inputs,
  layers: Layers,
  problems: InputProblem[],
  nodeOf: (entry: NodeEntry) => NodeSettings,
): readonly NodeSettings[] {
  const listed = inputs.nodes.map(text => collect(problems, () => parseNode(text)));
  const entries: readonly (NodeEntry | undefined)[] = listed.length > 0 ? listed : layers.nodes;
  if (entries.length === 0 && layers.isComplete && inputs['nodes-from-cluster'] !== 'true') {
    problems.push(
      problem(
        '`nodes` is empty',
        'list the nodes in `nodes`, or in an inventory file on the runner (see `inventory` and `config`), or set `nodes-from-cluster`',
      ),
    );
  }
  const nodes = entries.filter(entry => entry !== undefined).map(nodeOf);
  // Networks behind different jump hosts may have the same addresses.
  const addresses = nodes.map(({ host, port, jump }) =>
    [...jump.map(one => `${one.host}:${one.port}`), `${host}:${port}`].join(' → ').toLowerCase(),
  );
  const labels = nodes
    .filter((_, index) => addresses.indexOf(addresses[index] ?? '') === index)
    .map(node => node.label);
  problems.push(...duplicates('nodes', addresses), ...duplicates('nodes', labels));
  return nodes;
}

/** A key that is given is all that is offered, with the password; without one the agent and the runner's own key are. */
function readAuthentication(inputs: Inputs, host: Host, env: NodeJS.ProcessEnv): SshAuthentication {
  const passphrase = inputs['ssh-key-passphrase'];
  const password = readPassword('ssh-password', inputs['ssh-password']);
  const given = inputs['ssh-private-key'];
  if (given !== undefined) {
    return { key: parsePrivateKey(given, passphrase), password };
  }
  const read = (file: string) => {
    const text = readText('ssh-private-key-file', file);
    host.mask(text, 'runner');
    return parsePrivateKey(text, passphrase);
  };
  const named = inputs['ssh-private-key-file'];
  if (named !== undefined) {
    return { key: read(named), password };
  }
  const setting = agentSetting(inputs);
  const agent = setting === 'auto' ? env.SSH_AUTH_SOCK || undefined : setting === 'off' ? undefined : setting;
  if (password !== undefined) {
    return { agent: setting === 'auto' ? undefined : agent, password };
  }
  const file = ['id_ed25519', 'id_ecdsa', 'id_rsa']
    .flatMap(name => inHome('.ssh', name))
    .find(place => existsSync(place));
  if (agent === undefined && file === undefined) {
    throw new SideloadError(
      'INPUT_INVALID',
      'no SSH key: neither `ssh-private-key` nor `ssh-private-key-file` is set, there is none in `~/.ssh`, and no ssh-agent',
      {
        hint: 'pass the key that the nodes know in `ssh-private-key`',
      },
    );
  }
  if (agent === undefined || file === undefined) {
    return { agent, key: file === undefined ? undefined : read(file) };
  }
  // The agent may well be there because the key in the file cannot be read without its passphrase.
  const faults: InputProblem[] = [];
  return { agent, key: collect(faults, () => read(file)) };
}

/** A secret often comes with the line break of the file that it was in; no password has one inside. */
function readPassword(name: InputName, given: string | undefined): string | undefined {
  const password = given?.replace(/\r?\n$/, '');
  if (password !== undefined && /[\0\r\n]/.test(password)) {
    throw new SideloadError('INPUT_INVALID', `\`${name}\` has more than one line`, {
      hint: 'store the password alone in the secret',
    });
  }
  return password;
}

/** What OpenSSH's client is given; what is not given it finds itself, and nothing is asked that it cannot do. */
function readOpenssh(inputs: Inputs, host: Host, problems: InputProblem[]): OpensshSettings {
  const foreign = ['ssh-password', 'ssh-key-passphrase', 'ssh-host-key-fingerprints'] as const;
  for (const name of foreign.filter(one => inputs[one] !== undefined && inputs[one].length > 0)) {
    const hint = {
      'ssh-password': 'give the user a key; the client is never let to ask for anything',
      'ssh-key-passphrase': 'load the key into an ssh-agent, or store it without a passphrase in the secret',
      'ssh-host-key-fingerprints': 'use `ssh-known-hosts`',
    }[name];
    problems.push(problem(`\`${name}\` cannot be used with \`ssh-transport: openssh\``, hint));
  }
  const text = inputs['ssh-private-key'];
  const file = inputs['ssh-private-key-file'];
  const key = collect(problems, () => {
    if (text !== undefined) {
      return { text: opensshKey(text) };
    }
    if (file !== undefined) {
      host.mask(readText('ssh-private-key-file', file), 'runner');
      return { file: resolve(file) };
    }
    return undefined;
  });
  const knownHosts = inputs['ssh-known-hosts'];
  const knownHostsFile = inputs['ssh-known-hosts-file'];
  const setting = collect(problems, () => agentSetting(inputs));
  return {
    key,
    agent: setting === 'off' ? 'none' : setting === 'auto' ? undefined : setting,
    knownHosts:
      knownHosts !== undefined
        ? { text: `${knownHosts}\n` }
        : knownHostsFile === undefined
          ? undefined
          : { file: resolve(knownHostsFile) },
    connectTimeoutMs: inputs['connect-timeout'] * 1000,
  };
}

/** `auto`, `off` or an absolute path. */
function agentSetting({ 'ssh-agent': setting }: Inputs): string {
  if (setting !== 'auto' && setting !== 'off' && !setting.startsWith('/')) {
    throw new SideloadError(
      'INPUT_INVALID',
      `\`ssh-agent\` must be \`auto\`, \`off\` or an absolute path, not ${shown(setting)}`,
    );
  }
  return setting;
}

/** What the user names is read strictly; the runner's own files may have lines that nobody here is to blame for. */
function readHostKeys(inputs: Inputs, isOpenssh: boolean, host: Host): HostKeyPolicy {
  const given = inputs['ssh-known-hosts'];
  const fingerprints = inputs['ssh-host-key-fingerprints'];
  if (given !== undefined) {
    return hostKeyPolicy({ knownHosts: parseKnownHosts(given, '`ssh-known-hosts`'), fingerprints });
  }
  const named = inputs['ssh-known-hosts-file'];
  const files = [...inHome('.ssh', 'known_hosts'), '/etc/ssh/ssh_known_hosts'].filter(file => existsSync(file));
  const knownHosts =
    named !== undefined
      ? parseKnownHosts(readText('ssh-known-hosts-file', named), named)
      : files.flatMap(file => {
          const leftOut = (fault: string) => host.warning(`${file}, ${fault}; it is left out`);
          try {
            return parseKnownHosts(readFileSync(file, 'utf8'), file, leftOut);
          } catch (error) {
            leftOut(messageOf(error));
            return [];
          }
        });
  if (knownHosts.length === 0 && fingerprints.length === 0 && !isOpenssh) {
    throw new SideloadError('INPUT_INVALID', 'no host keys: `ssh-known-hosts` is empty', {
      hint: 'pass the output of `ssh-keyscan NODE…` in `ssh-known-hosts`, after comparing the fingerprints on the nodes',
    });
  }
  return hostKeyPolicy({ knownHosts, fingerprints });
}

function readCluster(inputs: Inputs, host: Host): ClusterSettings {
  if (!/^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$/.test(inputs.namespace)) {
    throw new SideloadError(
      'INPUT_INVALID',
      `\`namespace\` ${JSON.stringify(inputs.namespace)} is not a name of a namespace`,
      {
        hint: 'lower case letters, digits and `-`, 63 at most (RFC 1123)',
      },
    );
  }
  const { kubectl, kubeconfig, namespace } = inputs;
  if (!kubectl.startsWith('ssh://')) {
    return { kubectl, kubeconfig: readKubeconfig(kubeconfig, host), namespace };
  }
  const { host: address, port, user, kubernetesName } = parseNode(kubectl.slice('ssh://'.length).replace(/\/$/, ''));
  if (kubernetesName !== undefined) {
    throw new SideloadError('INPUT_INVALID', `\`kubectl\` ${shown(kubectl)} has more than an address`, {
      hint: 'write `ssh://user@host:port`',
    });
  }
  if (kubeconfig !== undefined && !/^\/\S*$/.test(kubeconfig)) {
    throw new SideloadError('INPUT_INVALID', '`kubeconfig` must be an absolute path on the node that `kubectl` names', {
      hint: 'leave it out, and the administrator’s kubeconfig of the node is used',
    });
  }
  return {
    kubectl: {
      label: `the control plane ${address}`,
      host: address,
      port: port ?? inputs['ssh-port'],
      user: user ?? inputs['ssh-user'],
    },
    kubeconfig: kubeconfig === undefined ? undefined : { path: kubeconfig },
    namespace,
  };
}

function readSmoke(inputs: Inputs, problems: InputProblem[]): SmokeSettings | undefined {
  const given = inputs['smoke-manifest'];
  const manifest = given === undefined ? undefined : collect(problems, () => readManifest(given, inputs.namespace));
  const resources = collect(problems, () => parseResources(inputs['smoke-resources']));
  const clash = (a: string, b: string) => problem(`\`${a}\` and \`${b}\` exclude each other`, 'set one of them');
  if (given !== undefined) {
    problems.push(
      ...(inputs.smoke === 'cri' ? [clash('smoke-manifest', 'smoke: cri')] : []),
      ...(inputs['smoke-command'].length > 0 ? [clash('smoke-manifest', 'smoke-command')] : []),
    );
  }
  if (inputs['smoke-expect'] === 'ready' && given === undefined) {
    problems.push(
      problem('`smoke-expect: ready` needs a `smoke-manifest`', 'without readiness probes `running` says as much'),
    );
  }
  if (resources === undefined || inputs.smoke === 'none') {
    return undefined;
  }
  return {
    by: inputs.smoke,
    timeoutMs: inputs['smoke-timeout'] * 1000,
    command: inputs['smoke-command'],
    expect: inputs['smoke-expect'],
    parallel: inputs['smoke-parallel'],
    security: inputs['smoke-security'],
    resources,
    template: manifest,
  };
}

function readManifest(given: string, namespace: string): PodTemplate {
  const isContent = given.includes('\n') || given.startsWith('{');
  return parsePodManifest(isContent ? given : readText('smoke-manifest', given), namespace);
}

function readKubeconfig(given: string | undefined, host: Host): ClusterSettings['kubeconfig'] {
  if (given === undefined) {
    return undefined;
  }
  if (given.includes('\n') || given.trimStart().startsWith('{')) {
    maskCredentials(given, 'job', host);
    return { content: given };
  }
  if (!existsSync(given)) {
    // The content of a secret must not get into the log.
    if (/\bapiVersion\b/.test(given) || /^[A-Za-z0-9+/]{100,}=*$/.test(given)) {
      throw new SideloadError(
        'KUBECONFIG_INVALID',
        '`kubeconfig` is neither a path nor the content of a kubeconfig: its line breaks are lost, or it is encoded',
        { hint: 'Store the file whole and unchanged, with its line breaks, in the secret.' },
      );
    }
    throw new SideloadError('KUBECONFIG_INVALID', `\`kubeconfig\`: there is no file ${shown(given)}`, {
      hint: `Give the path from ${process.cwd()} or an absolute one, or the content of the file.`,
    });
  }
  // What kubectl itself makes of a file that cannot be read is its own to tell.
  maskCredentials(collect([], () => readText('kubeconfig', given)) ?? '', 'runner', host);
  return { path: given };
}

function maskCredentials(kubeconfig: string, origin: SecretOrigin, host: Host): void {
  for (const secret of credentialsOf(kubeconfig)) {
    host.mask(secret, origin);
  }
}

function readText(input: InputName, file: string): string {
  try {
    return readFileSync(file, 'utf8');
  } catch (cause) {
    // Node's own message has the whole text in it, which may be a key where a path is wanted.
    const reason = (cause as NodeJS.ErrnoException).code;
    throw new SideloadError('INPUT_INVALID', `\`${input}\`: cannot read ${shown(file)} (${reason})`, {
      hint: fileHint(file, reason),
      cause,
    });
  }
}

/** What to do about a file that cannot be read; a path is taken from the working directory, which nobody sees in CI. */
function fileHint(file: string, reason: string | undefined): string {
  const place = isAbsolute(file) ? 'on this machine' : `from ${process.cwd()}`;
  switch (reason) {
    case 'ENOENT':
    case 'ENOTDIR':
      return file.startsWith('~')
        ? 'write the whole path: only a shell knows `~`'
        : `correct the path, which is looked for ${place}, or have an earlier step write the file`;
    case 'EISDIR':
      return 'name a file in that directory';
    case 'EACCES':
    case 'EPERM':
      return `let the job’s user (${process.getuid?.() ?? 'as the system names it'}) read it, or run the job as one who may`;
    default:
      return 'look at it on this machine, as the user of the job';
  }
}

function duplicates(input: InputName, items: readonly string[]): InputProblem[] {
  const twice = new Set(items.filter((item, index) => items.indexOf(item) !== index));
  return [...twice].map(item =>
    problem(`\`${input}\` names ${JSON.stringify(item)} more than once`, 'remove the second one'),
  );
}

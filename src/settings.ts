import { existsSync, readFileSync } from 'node:fs';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { SideloadError } from './errors.ts';
import type { Host } from './host/host.ts';
import { type Alias, parseAlias } from './image/aliases.ts';
import { normalise } from './image/reference.ts';
import { type InputName, type Inputs, inputSpec, parseInputs } from './inputs.ts';
import {
  type Inventory,
  labelOf,
  type NodeEntry,
  parseCriSocket,
  parseInventory,
  parseNode,
} from './node/inventory.ts';
import { parseShard, type Shard, takeShard } from './node/shard.ts';
import { collect, type InputProblem, problem, shown, throwProblems } from './problems.ts';
import type { SshTarget } from './ssh/connect.ts';
import { type HostKeyPolicy, hostKeyPolicy } from './ssh/host-keys.ts';
import { parsePrivateKey, type SshCredentials } from './ssh/key.ts';

/** A node to push to. */
export interface NodeSettings extends SshTarget {
  /** `metadata.name` of the Kubernetes node, when the user gave it. */
  readonly kubernetesName: string | undefined;
  /** The CRI socket of this node, when the inventory has one for it. */
  readonly criSocket: string | undefined;
}

/** What a run does, complete and checked: nothing in here can turn out to be malformed later. */
export interface Settings {
  readonly mode: Inputs['mode'];
  /** References as the user wrote them; empty means all images of the archive. */
  readonly images: readonly string[];
  readonly source: Inputs['source'];
  readonly archive: string | undefined;
  /** As `ALIAS=IMAGE` or `ALIAS`; checked, except against the names in an archive. */
  readonly aliases: readonly string[];
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
  readonly ssh: {
    /** For nodes that say nothing else. */
    readonly user: string;
    readonly port: number;
    readonly credentials: SshCredentials;
    readonly hostKeys: HostKeyPolicy;
    readonly connectTimeoutMs: number;
  };
  readonly criSocket: string | undefined;
  /** `undefined` when the cluster is not asked for anything. */
  readonly cluster: ClusterSettings | undefined;
  readonly smoke: SmokeSettings | undefined;
}

export interface ClusterSettings {
  readonly kubectl: string;
  /** A path, the content, or `undefined` for what kubectl itself would use. */
  readonly kubeconfig: { readonly path: string } | { readonly content: string } | undefined;
  /** Of the smoke pods. */
  readonly namespace: string;
}

export interface SmokeSettings {
  readonly timeoutMs: number;
  /** In place of the image's entrypoint and command, when not empty. */
  readonly command: readonly string[];
}

/**
 * Reads all inputs, the inventory of the runner, and the files that they name.
 * @throws SideloadError with every problem that can be seen without touching a node, an engine or the cluster.
 */
export function readSettings(host: Host, env: NodeJS.ProcessEnv = process.env): Settings {
  const problems: InputProblem[] = [];
  const inventory = collect(problems, () => readInventory(host, env));
  const parsed = parseInputs(name => {
    const given = host.input(name);
    return given === undefined || given.trim() === '' ? inventory?.settings[name] : given;
  });
  problems.push(...parsed.problems);
  const { inputs } = parsed;
  for (const secret of [inputs['ssh-private-key'], inputs['ssh-key-passphrase']]) {
    if (secret !== undefined) {
      host.mask(secret);
    }
  }

  const references = inputs.images.flatMap(reference => collect(problems, () => normalise(reference)) ?? []);
  problems.push(...duplicates('images', references));
  if (inputs.images.length === 0 && inputs.archive === undefined) {
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

  const shard = inputs.shard === undefined ? undefined : collect(problems, () => parseShard(inputs.shard ?? ''));
  const listed = readNodes(inputs, inventory, problems);
  const nodesFromCluster = inputs['nodes-from-cluster'] === 'true';
  // Entries for nodes of the cluster are no list: the shard is taken of what the cluster names.
  const nodes = nodesFromCluster ? listed : (collect(problems, () => takeShard(listed, shard)) ?? []);
  // What an inventory that cannot be read may have set is not missing.
  const mayLack = (...names: readonly InputName[]) =>
    inventory === undefined && names.every(name => inputs[name] === undefined);
  const credentials = mayLack('ssh-private-key', 'ssh-private-key-file')
    ? undefined
    : collect(problems, () => readCredentials(inputs, host));
  const hostKeys = mayLack('ssh-known-hosts', 'ssh-known-hosts-file')
    ? undefined
    : collect(problems, () => readHostKeys(inputs));
  const given = inputs['cri-socket'];
  const criSocket = given === undefined ? undefined : collect(problems, () => parseCriSocket(given));
  const cluster =
    inputs.smoke === 'none' && !nodesFromCluster ? undefined : collect(problems, () => readCluster(inputs, host));

  throwProblems(problems);
  if (credentials === undefined || hostKeys === undefined) {
    throw new SideloadError('INTERNAL', 'settings without a problem lack a part');
  }
  return {
    mode: inputs.mode,
    images: inputs.images,
    source: inputs.source,
    archive: inputs.archive,
    aliases: inputs.aliases,
    containerdNamespace: namespace,
    nodes,
    nodesOrigin: inputs.nodes.length > 0 ? 'input' : 'inventory',
    nodesFromCluster,
    nodeSelector: inputs['node-selector'] ?? '',
    shard,
    ssh: {
      user: inputs['ssh-user'],
      port: inputs['ssh-port'],
      credentials,
      hostKeys,
      connectTimeoutMs: inputs['connect-timeout'] * 1000,
    },
    criSocket,
    cluster,
    smoke:
      inputs.smoke === 'none'
        ? undefined
        : { timeoutMs: inputs['smoke-timeout'] * 1000, command: inputs['smoke-command'] },
  };
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

/** The file that the user names must exist; the places of the runner may be empty. */
function readInventory(host: Host, env: NodeJS.ProcessEnv): Inventory {
  const named = host.input('inventory')?.trim() || env.KUBE_SIDELOAD_INVENTORY;
  const configuration = env.XDG_CONFIG_HOME ? [env.XDG_CONFIG_HOME] : inHome('.config');
  const places = [
    '/etc/kube-sideload/inventory.yaml',
    ...configuration.map(directory => join(directory, 'kube-sideload', 'inventory.yaml')),
  ];
  const file = named || places.find(place => existsSync(place));
  return file === undefined ? { nodes: [], settings: {} } : parseInventory(readText('inventory', file), file);
}

function readNodes(
  inputs: Inputs,
  inventory: Inventory | undefined,
  problems: InputProblem[],
): readonly NodeSettings[] {
  const listed = inputs.nodes.map(text => collect(problems, () => parseNode(text)));
  const entries: readonly (NodeEntry | undefined)[] = listed.length > 0 ? listed : (inventory?.nodes ?? []);
  if (entries.length === 0 && inventory !== undefined && inputs['nodes-from-cluster'] !== 'true') {
    problems.push(
      problem(
        '`nodes` is empty',
        'list the nodes in `nodes`, or in an inventory file on the runner (see `inventory`), or set `nodes-from-cluster`',
      ),
    );
  }
  const nodes = entries
    .filter(entry => entry !== undefined)
    .map(entry => ({
      label: labelOf(entry),
      host: entry.host,
      port: entry.port ?? inputs['ssh-port'],
      user: entry.user ?? inputs['ssh-user'],
      kubernetesName: entry.kubernetesName,
      criSocket: entry.criSocket,
    }));
  const addresses = nodes.map(node => `${node.host.toLowerCase()}:${node.port}`);
  const labels = nodes
    .filter((_, index) => addresses.indexOf(addresses[index] ?? '') === index)
    .map(node => node.label);
  problems.push(...duplicates('nodes', addresses), ...duplicates('nodes', labels));
  return nodes;
}

function readCredentials(inputs: Inputs, host: Host): SshCredentials {
  const given = inputs['ssh-private-key'];
  if (given !== undefined) {
    return parsePrivateKey(given, inputs['ssh-key-passphrase']);
  }
  const places = ['id_ed25519', 'id_ecdsa', 'id_rsa'].flatMap(name => inHome('.ssh', name));
  const file = inputs['ssh-private-key-file'] ?? places.find(place => existsSync(place));
  if (file === undefined) {
    throw new SideloadError(
      'INPUT_INVALID',
      'no SSH key: neither `ssh-private-key` nor `ssh-private-key-file` is set, and there is none in `~/.ssh`',
      {
        hint: 'pass the key that the nodes know in `ssh-private-key`',
      },
    );
  }
  const text = readText('ssh-private-key-file', file);
  host.mask(text);
  return parsePrivateKey(text, inputs['ssh-key-passphrase']);
}

function readHostKeys(inputs: Inputs): HostKeyPolicy {
  const given = inputs['ssh-known-hosts'];
  const fingerprints = inputs['ssh-host-key-fingerprints'];
  if (given !== undefined) {
    return hostKeyPolicy({ knownHosts: given, fingerprints });
  }
  const named = inputs['ssh-known-hosts-file'];
  const files =
    named === undefined
      ? [...inHome('.ssh', 'known_hosts'), '/etc/ssh/ssh_known_hosts'].filter(file => existsSync(file))
      : [named];
  const knownHosts = files.map(file => readText('ssh-known-hosts-file', file)).join('\n');
  if (knownHosts.trim() === '' && fingerprints.length === 0) {
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
  return {
    kubectl: inputs.kubectl,
    kubeconfig: readKubeconfig(inputs.kubeconfig, host),
    namespace: inputs.namespace,
  };
}

function readKubeconfig(given: string | undefined, host: Host): ClusterSettings['kubeconfig'] {
  if (given === undefined) {
    return undefined;
  }
  if (given.includes('\n') || given.trimStart().startsWith('{')) {
    maskSecrets(given, host);
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
    throw new SideloadError('KUBECONFIG_INVALID', `\`kubeconfig\`: there is no file ${shown(given)}`);
  }
  return { path: given };
}

/** Masks the credentials in a kubeconfig, and not its other lines: nobody wants `***: v1` all over the log. */
function maskSecrets(kubeconfig: string, host: Host): void {
  for (const [, secret] of kubeconfig.matchAll(
    /["']?\b(?:token|password|client-key-data|client-secret|id-token|refresh-token)["']?\s*:\s*("[^"\n]+|'[^'\n]+|[^\s"',}]+)/g,
  )) {
    if (secret !== undefined) {
      host.mask(secret.replace(/^["']/, ''));
    }
  }
}

function readText(input: InputName, file: string): string {
  try {
    return readFileSync(file, 'utf8');
  } catch (cause) {
    // Node's own message has the whole text in it, which may be a key where a path is wanted.
    const reason = (cause as NodeJS.ErrnoException).code;
    throw new SideloadError('INPUT_INVALID', `\`${input}\`: cannot read ${shown(file)} (${reason})`, {
      hint: inputSpec(input).help,
      cause,
    });
  }
}

function duplicates(input: InputName, items: readonly string[]): InputProblem[] {
  const twice = new Set(items.filter((item, index) => items.indexOf(item) !== index));
  return [...twice].map(item =>
    problem(`\`${input}\` names ${JSON.stringify(item)} more than once`, 'remove the second one'),
  );
}

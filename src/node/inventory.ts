import * as v from 'valibot';
import { messageOf, SideloadError } from '../errors.ts';
import { isMapping } from '../image/json.ts';
import { INPUTS, type InputName, type Inputs, inputSpec, isInputName, parseInputs } from '../inputs.ts';
import { readYaml } from '../yaml.ts';

/** A node as the user names it; what is missing comes from the settings or from the node itself. */
export interface NodeEntry {
  /** Host name or IP address; IPv6 without brackets. */
  readonly host: string;
  readonly user?: string | undefined;
  readonly port?: number | undefined;
  /** `metadata.name` of the Kubernetes node, when it is not what the node's kubelet says of itself. */
  readonly kubernetesName?: string | undefined;
  /** Absolute path. */
  readonly criSocket?: string | undefined;
  /** The jump hosts in front of it, the first one first; none with an empty list. */
  readonly jump?: readonly JumpEntry[] | undefined;
  readonly sudo?: Inputs['sudo'] | undefined;
}

/** A jump host as the user names it. */
export type JumpEntry = Pick<NodeEntry, 'host' | 'user' | 'port'>;

export interface Inventory {
  readonly nodes: readonly NodeEntry[];
  /** Texts of inputs that apply unless the job sets them. */
  readonly settings: Partial<Record<InputName, string>>;
}

const NODE =
  /^(?:(?<user>[a-z_][a-z0-9_.-]*\$?)@)?(?:\[(?<ipv6>[0-9a-f:.]+(?:%[\w.-]+)?)\]|(?<host>[\w](?:[\w.-]*[\w])?))(?::(?<port>\d{1,5}))?(?:=(?<name>[a-z0-9](?:[a-z0-9.-]*[a-z0-9])?))?$/i;

/** Parses `[user@]host[:port][=kubernetes-name]`, IPv6 addresses in brackets. */
export function parseNode(text: string): NodeEntry {
  const groups = NODE.exec(text)?.groups;
  const host = groups?.ipv6 ?? groups?.host;
  const port = groups?.port === undefined ? undefined : Number(groups.port);
  if (groups === undefined || host === undefined || (port !== undefined && (port < 1 || port > 65535))) {
    throw new SideloadError('INPUT_INVALID', `${JSON.stringify(text)} is not a node`, {
      hint: 'write nodes as `[user@]host[:port][=kubernetes-name]`, IPv6 addresses in brackets',
    });
  }
  return { host, user: groups.user, port, kubernetesName: groups.name?.toLowerCase() };
}

/** Parses a chain of jump hosts, each `[user@]host[:port]`; `none` alone is a chain of none. */
export function parseJump(texts: readonly string[]): readonly JumpEntry[] {
  if (texts.length === 1 && texts[0] === 'none') {
    return [];
  }
  return texts.map(text => {
    const groups = NODE.exec(text)?.groups;
    if (groups === undefined || groups.name !== undefined || text === 'none') {
      throw new SideloadError('INPUT_INVALID', `${JSON.stringify(text)} is not a jump host`, {
        hint: 'write jump hosts as `[user@]host[:port]`, separated by commas, IPv6 addresses in brackets; `none` stands alone',
      });
    }
    const { host, user, port } = parseNode(text);
    return { host, user, port };
  });
}

/** Parses the path of a CRI socket, which may be written as in a kubelet's configuration. */
export function parseCriSocket(text: string): string {
  if (!/^(unix:\/\/)?\/[\w./-]+$/.test(text)) {
    throw new SideloadError('INPUT_INVALID', `\`cri-socket\` must be an absolute path, not ${JSON.stringify(text)}`);
  }
  return text.replace(/^unix:\/\//, '');
}

/** What the user reads in every message about this node. */
export function labelOf(node: NodeEntry): string {
  return node.kubernetesName ?? (node.port === undefined ? node.host : `${node.host}:${node.port}`);
}

const Port = v.pipe(v.number(), v.integer(), v.minValue(1), v.maxValue(65535));
const Text = v.pipe(v.string(), v.nonEmpty());
const Setting = v.union([v.string(), v.number(), v.boolean(), v.array(v.string())]);
type SettingValue = v.InferOutput<typeof Setting>;

/** A mapping with these keys and no others, and no list, which valibot would take for one. */
function mapping<const T extends v.ObjectEntries>(entries: T) {
  return v.pipe(
    v.unknown(),
    v.check(isMapping, 'write `key: value` here'),
    v.strictObject(entries, issue => (issue.expected === 'never' ? 'there is no such key' : issue.message)),
  );
}

export const NodeText = v.string('write a text as in the `nodes` input, or `host: ADDRESS` and other keys');
export const NodeMapping = mapping({
  host: Text,
  name: v.optional(Text),
  user: v.optional(Text),
  port: v.optional(Port),
  'cri-socket': v.optional(Text),
  jump: v.optional(v.union([Text, v.array(Text)], 'write jump hosts as in the `ssh-jump` input, or `none`')),
  sudo: v.optional(v.picklist(INPUTS.sudo.type.oneOf)),
});

/** The keys of an inventory file (`schemas/inventory.schema.json` is made from them): `nodes`, each a text as in the `nodes` input or a mapping, and `settings`, inputs by name. */
export const InventoryFile = mapping({
  nodes: v.optional(
    v.array(v.lazy((node): v.GenericSchema<unknown, NodeValue> => (typeof node === 'object' ? NodeMapping : NodeText))),
    [],
  ),
  settings: v.optional(
    v.pipe(v.unknown(), v.check(isMapping, 'write inputs here, each as `name: value`'), v.record(v.string(), Setting)),
    {},
  ),
});

type NodeValue = string | v.InferOutput<typeof NodeMapping>;

/** The same form for two owners: an `inventory` belongs to the machine, a `config` to the project that it builds. */
export type SettingsFile = 'inventory' | 'config';

/** A file with more is of another kind altogether. */
const PROBLEMS_TOLD = 50;

/** Inputs that make no sense in a file of this owner; nodes have a place of their own. */
const NOT_A_SETTING: Readonly<Record<SettingsFile, ReadonlySet<string>>> = {
  inventory: new Set<InputName>(['mode', 'images', 'archive', 'bundle', 'nodes', 'shard', 'inventory', 'config']),
  config: new Set<InputName>(['mode', 'bundle', 'nodes', 'shard', 'config']),
};

/**
 * Parses an inventory or configuration file (YAML 1.2).
 * @throws SideloadError INVENTORY_INVALID with every problem and its line.
 */
export function parseInventory(text: string, file: string, owner: SettingsFile = 'inventory'): Inventory {
  const documents = readYaml(text);
  const problems = documents.flatMap(document =>
    document.faults.map(({ line, message }) => `${file}:${line}: ${message}`),
  );
  if (documents.length > 1) problems.push(`${file}: it has ${documents.length} documents, and only one is read`);
  const [document] = documents;
  const atPath = (path: readonly unknown[]) => (document === undefined ? file : `${file}:${document.lineAt(path)}`);
  const inventory: { nodes: NodeEntry[]; settings: Partial<Record<InputName, string>> } = { nodes: [], settings: {} };
  if (problems.length === 0) {
    const parsed = v.safeParse(InventoryFile, document?.value ?? {});
    if (!parsed.success) {
      for (const issue of parsed.issues) {
        const path = issue.path?.map(item => item.key) ?? [];
        problems.push(`${atPath(path)}: ${path.join('.') || 'the file'}: ${issue.message}`);
      }
    }
    const { nodes, settings } = parsed.success ? parsed.output : soundParts(parsed.output, parsed.issues);
    nodes.forEach((node, index) => {
      try {
        inventory.nodes.push(...(node === undefined ? [] : [nodeOf(node)]));
      } catch (error) {
        problems.push(`${atPath(['nodes', index])}: ${messageOf(error)}`);
      }
    });
    for (const [name, value] of Object.entries(settings)) {
      const fault = faultOfSetting(name, value, owner);
      if (fault !== undefined) {
        problems.push(`${atPath(['settings', name])}: ${fault}`);
      } else if (isInputName(name)) {
        inventory.settings[name] = textOf(value);
      }
    }
  }
  if (problems.length > 0) {
    const more = problems.length - PROBLEMS_TOLD;
    const told = [...problems.slice(0, PROBLEMS_TOLD), ...(more > 0 ? [`${file}: ${more} more`] : [])];
    throw new SideloadError('INVENTORY_INVALID', told.join('\n'));
  }
  return inventory;
}

/** What of a file with faults has none by its form, at its place: its own faults are to be told in the same pass. */
function soundParts(
  file: unknown,
  issues: readonly { readonly path?: readonly { readonly key: unknown }[] | undefined }[],
): { readonly nodes: readonly (NodeValue | undefined)[]; readonly settings: Readonly<Record<string, SettingValue>> } {
  const { nodes, settings } = (isMapping(file) ? file : {}) as { nodes?: unknown; settings?: unknown };
  const faulty = new Set(issues.map(({ path = [] }) => placeOf(...path.map(({ key }) => key))));
  const isFaulty = (...place: readonly unknown[]) => faulty.has(placeOf(...place));
  const entries = isMapping(settings) ? Object.entries(settings as Record<string, SettingValue>) : [];
  return {
    nodes: Array.isArray(nodes) ? nodes.map((node, index) => (isFaulty('nodes', index) ? undefined : node)) : [],
    settings: Object.fromEntries(entries.filter(([name]) => !isFaulty('settings', name))),
  };
}

/** A node or a setting as a whole, whatever of it is meant. */
function placeOf(kind?: unknown, name?: unknown): string {
  return JSON.stringify([kind, name]);
}

function textOf(value: SettingValue): string {
  return Array.isArray(value) ? value.join('\n') : String(value);
}

function nodeOf(node: NodeValue): NodeEntry {
  if (typeof node === 'string') {
    return parseNode(node);
  }
  const host = node.host.includes(':') ? `[${node.host}]` : node.host;
  const { user, port, 'cri-socket': criSocket, jump, sudo } = node;
  const entry = parseNode(
    `${user === undefined ? '' : `${user}@`}${host}${port === undefined ? '' : `:${port}`}${node.name === undefined ? '' : `=${node.name}`}`,
  );
  const hops = typeof jump === 'string' ? jump.split(',').map(hop => hop.trim()) : jump;
  return {
    ...entry,
    ...(criSocket !== undefined && { criSocket: parseCriSocket(criSocket) }),
    ...(hops !== undefined && { jump: parseJump(hops) }),
    ...(sudo !== undefined && { sudo }),
  };
}

/** Whether a file of this owner may set an input. */
export function isSetting(name: InputName, owner: SettingsFile): boolean {
  return inputSpec(name).type !== 'secret' && !NOT_A_SETTING[owner].has(name);
}

function faultOfSetting(name: string, value: SettingValue, owner: SettingsFile): string | undefined {
  if (!isInputName(name)) {
    return `there is no setting \`${name}\``;
  }
  const { type } = inputSpec(name);
  if (typeof value === 'boolean' && !(typeof type === 'object' && type.oneOf.includes(String(value)))) {
    return `settings.${name}: \`${value}\` is no value of it`;
  }
  if (type === 'secret') {
    return `\`${name}\` is a secret and does not belong in this file; name a file that only the runner’s user can read (\`ssh-private-key-file\`)`;
  }
  if (isSetting(name, owner)) {
    return parseInputs(one => (one === name ? textOf(value) : undefined)).problems[0]?.message;
  }
  return name === 'nodes' && owner === 'config'
    ? '`nodes` stands beside `settings`, not in it'
    : `\`${name}\` is given by the job, not by ${owner === 'config' ? 'this file' : 'the inventory'}`;
}

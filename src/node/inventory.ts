import * as v from 'valibot';
import { type Document, LineCounter, parseDocument } from 'yaml';
import { messageOf, SideloadError } from '../errors.ts';
import { type InputName, inputSpec, isInputName } from '../inputs.ts';

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
}

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

/** A mapping with these keys and no others, and no list, which valibot would take for one. */
function mapping<const T extends v.ObjectEntries>(entries: T) {
  return v.pipe(
    v.unknown(),
    v.check(isMapping, 'expected is a mapping (`key: value`)'),
    v.strictObject(entries, issue => (issue.expected === 'never' ? 'there is no such key' : issue.message)),
  );
}

function isMapping(value: unknown): boolean {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

export const NodeText = v.string('expected is a text as in the `nodes` input, or a mapping');
export const NodeMapping = mapping({
  host: Text,
  name: v.optional(Text),
  user: v.optional(Text),
  port: v.optional(Port),
  'cri-socket': v.optional(Text),
});

/** The keys of an inventory file (`schemas/inventory.schema.json` is made from them): `nodes`, each a text as in the `nodes` input or a mapping, and `settings`, inputs by name. */
export const InventoryFile = mapping({
  nodes: v.optional(
    v.array(v.lazy((node): v.GenericSchema<unknown, NodeValue> => (typeof node === 'object' ? NodeMapping : NodeText))),
    [],
  ),
  settings: v.optional(
    v.pipe(
      v.unknown(),
      v.check(isMapping, 'expected is a mapping of inputs (`name: value`)'),
      v.record(v.string(), Setting),
    ),
    {},
  ),
});

type NodeValue = string | v.InferOutput<typeof NodeMapping>;

/** Inputs that make no sense in a file of the machine, or that must not lie there in the open. */
const NOT_A_SETTING: ReadonlySet<string> = new Set<InputName>([
  'mode',
  'images',
  'archive',
  'nodes',
  'shard',
  'inventory',
]);

/**
 * Parses an inventory file (YAML 1.2).
 * @throws SideloadError INVENTORY_INVALID with every problem and its line.
 */
export function parseInventory(text: string, file: string): Inventory {
  const lines = new LineCounter();
  const document = parseDocument(text, { lineCounter: lines, prettyErrors: false });
  const at = (offset: number | undefined) => (offset === undefined ? file : `${file}:${lines.linePos(offset).line}`);
  const problems: string[] = document.errors.map(error => `${at(error.pos[0])}: ${error.message}`);
  const atPath = (path: readonly unknown[]): string => {
    for (let depth = path.length; depth > 0; depth--) {
      const node: unknown = document.getIn(path.slice(0, depth), true);
      if (typeof node === 'object' && node !== null && 'range' in node && Array.isArray(node.range)) {
        return at(Number(node.range[0]));
      }
    }
    return at(0);
  };
  const inventory: { nodes: NodeEntry[]; settings: Partial<Record<InputName, string>> } = { nodes: [], settings: {} };
  if (problems.length === 0) {
    const parsed = v.safeParse(InventoryFile, resolve(document, error => problems.push(`${at(0)}: ${error}`)) ?? {});
    if (!parsed.success) {
      for (const issue of parsed.issues) {
        const path = issue.path?.map(item => item.key) ?? [];
        problems.push(`${atPath(path)}: ${path.join('.') || 'the file'}: ${issue.message}`);
      }
    } else {
      parsed.output.nodes.forEach((node, index) => {
        try {
          inventory.nodes.push(nodeOf(node));
        } catch (error) {
          problems.push(`${atPath(['nodes', index])}: ${messageOf(error)}`);
        }
      });
      for (const [name, value] of Object.entries(parsed.output.settings)) {
        const fault = faultOfSetting(name, value);
        if (fault !== undefined) {
          problems.push(`${atPath(['settings', name])}: ${fault}`);
        } else if (isInputName(name)) {
          inventory.settings[name] = Array.isArray(value) ? value.join('\n') : String(value);
        }
      }
    }
  }
  if (problems.length > 0) {
    throw new SideloadError('INVENTORY_INVALID', problems.join('\n'));
  }
  return inventory;
}

/** Aliases are resolved here: one that names nothing, or too many of them, is an error of the file. */
function resolve(document: Document.Parsed, onError: (message: string) => void): unknown {
  try {
    return document.toJS();
  } catch (error) {
    onError(messageOf(error));
    return undefined;
  }
}

function nodeOf(node: NodeValue): NodeEntry {
  if (typeof node === 'string') {
    return parseNode(node);
  }
  const host = node.host.includes(':') ? `[${node.host}]` : node.host;
  const { user, port, 'cri-socket': criSocket } = node;
  const entry = parseNode(
    `${user === undefined ? '' : `${user}@`}${host}${port === undefined ? '' : `:${port}`}${node.name === undefined ? '' : `=${node.name}`}`,
  );
  return criSocket === undefined ? entry : { ...entry, criSocket: parseCriSocket(criSocket) };
}

/** Whether an inventory file may set an input. */
export function isSetting(name: InputName): boolean {
  return inputSpec(name).type !== 'secret' && !NOT_A_SETTING.has(name);
}

function faultOfSetting(name: string, value: unknown): string | undefined {
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
  return !isSetting(name) ? `\`${name}\` is given by the job, not by the inventory` : undefined;
}

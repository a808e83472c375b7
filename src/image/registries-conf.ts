import { parse } from 'smol-toml';
import { messageOf } from '../errors.ts';
import { asObject, type JsonObject } from './json.ts';
import { isShort, type ShortNameRules } from './short-names.ts';

/**
 * Which file it is, for CRI-O, which runs as root (containers/image: pkg/sysregistriesv2; cri-o: pkg/config): the system's
 * `registries.conf` and its drop-ins, those of root's own home, the machine's memory of answers that people gave, and
 * `crio.conf` with its drop-ins.
 */
export const FILE_KINDS = ['system', 'system-drop-in', 'own', 'own-drop-in', 'answered', 'crio'] as const;
export type FileKind = (typeof FILE_KINDS)[number];

/** A file of a node. */
export interface RulesFile {
  readonly kind: FileKind;
  readonly path: string;
  /** `undefined` of one that is there, or may be, and that the user may not read. */
  readonly text: string | undefined;
}

/** What the files of a node come to. */
export interface ReadRules {
  readonly rules: ShortNameRules;
  /** The files that could not be read, or not understood, and why: what they say is not in the rules. */
  readonly unread: readonly string[];
}

/** Lists of hundreds of aliases, as Fedora ships one, take 20 kB. */
export const FILE_MAX_BYTES = 128 * 1024;
const ALL_MAX_BYTES = 4 * FILE_MAX_BYTES;
const DEPTH_MAX = 16;
/** As long as a reference may be. */
const NAME_MAX_LENGTH = 255;
const MODES = ['enforcing', 'permissive', 'disabled'] as const;
/** The first one that is enforcing unless told otherwise (cri-o#9401); those before it let every candidate count. */
const FIRST_ENFORCING = [1, 34] as const;

/** What one file says; what it does not mention is `undefined`, or no alias. */
interface Said {
  readonly searchRegistries?: readonly string[] | undefined;
  readonly mode?: ShortNameRules['mode'];
  readonly aliases: readonly (readonly [string, string])[];
}

/**
 * What the files of a node decide about short names. A file of root's own takes the place of the system's and its
 * drop-ins; each later file replaces the search registries and the mode of those before it, and the same alias; what people have
 * answered comes before all aliases. Once CRI-O has read any file of its own, the mode of registries.conf does not count
 * (cri-o: SetSystemContext).
 * @param files each kind in the order in which CRI-O reads them
 * @param version of CRI-O
 */
export function readRules(files: readonly RulesFile[], version: string): ReadRules {
  const unread: string[] = [];
  let leftBytes = ALL_MAX_BYTES;
  const said = (kinds: readonly FileKind[]): readonly Said[] =>
    kinds
      .flatMap(kind => files.filter(file => file.kind === kind))
      .flatMap(({ kind, path, text }) => {
        leftBytes -= Buffer.byteLength(text ?? '');
        const read = readFile(kind, text, leftBytes);
        if (typeof read !== 'string') return [read];
        unread.push(`${path} ${read}`);
        return [];
      });
  const hasOwn = files.some(({ kind, text }) => kind === 'own' && text !== undefined);
  const registries = said(hasOwn ? ['own', 'own-drop-in'] : ['own', 'system', 'system-drop-in', 'own-drop-in']);
  const answered = said(['answered']);
  const ownMode = lastOf(said(['crio']).map(({ mode }) => mode));
  const hasCrio = files.some(({ kind }) => kind === 'crio');
  const aliases = new Map([...registries, ...answered].flatMap(one => one.aliases));
  const searchRegistries = lastOf(registries.map(one => one.searchRegistries)) ?? [];
  const mode = modeOf(hasCrio ? (ownMode ?? 'enforcing') : lastOf(registries.map(one => one.mode)), version);
  return { rules: { searchRegistries, aliases, ...(mode === undefined ? {} : { mode }) }, unread };
}

/** Versions without a mode of their own heed that of registries.conf as little. */
function modeOf(mode: ShortNameRules['mode'], version: string): ShortNameRules['mode'] {
  const [, major, minor] = /^v?(\d+)\.(\d+)/.exec(version) ?? [];
  const [firstMajor, firstMinor] = FIRST_ENFORCING;
  const isOlder = major !== undefined && (Number(major) - firstMajor || Number(minor) - firstMinor) < 0;
  return isOlder ? 'disabled' : mode;
}

/** @returns in words, what is wrong with a file */
function readFile(kind: FileKind, text: string | undefined, leftBytes: number): Said | string {
  if (text === undefined) return 'may not be read';
  if (Buffer.byteLength(text) > FILE_MAX_BYTES) return `has more than ${FILE_MAX_BYTES} bytes`;
  if (leftBytes < 0) return `comes after ${ALL_MAX_BYTES} bytes of other files`;
  try {
    const root = asObject(parse(text, { maxDepth: DEPTH_MAX }));
    return kind === 'crio' ? saidByCrio(root) : saidByRegistries(root);
  } catch (thrown) {
    return `cannot be understood: ${messageOf(thrown).split('\n')[0]}`;
  }
}

function saidByCrio(root: JsonObject): Said {
  const image = asObject(asObject(root.crio).image);
  return { mode: modeIn(image.short_name_mode, 'short_name_mode'), aliases: [] };
}

/** The first version of the format has `[registries.search]` with `registries`. */
function saidByRegistries(root: JsonObject): Said {
  const search = asObject(asObject(root.registries).search).registries ?? root['unqualified-search-registries'];
  return {
    searchRegistries: search === undefined ? undefined : textsIn(search, 'unqualified-search-registries'),
    mode: modeIn(root['short-name-mode'], 'short-name-mode'),
    aliases: Object.entries(asObject(root.aliases)).map(([name, meant]) => aliasOf(name, meant)),
  };
}

function aliasOf(name: string, meant: unknown): readonly [string, string] {
  const isLong = name.length > NAME_MAX_LENGTH || String(meant).length > NAME_MAX_LENGTH;
  if (isLong || typeof meant !== 'string' || !isShort(name) || (meant !== '' && isShort(meant))) {
    throw new Error(`[aliases] has ${JSON.stringify(name).slice(0, 80)}, which is no short name of a full one`);
  }
  return [name, meant];
}

function textsIn(value: unknown, key: string): readonly string[] {
  if (!Array.isArray(value) || !value.every(text => typeof text === 'string' && text.length <= NAME_MAX_LENGTH)) {
    throw new Error(`${key} is no list of names`);
  }
  return value.map((text: string) => text.replace(/\/+$/, ''));
}

function modeIn(value: unknown, key: string): ShortNameRules['mode'] {
  const mode = MODES.find(one => one === value);
  if (mode === undefined && value !== undefined && value !== '') {
    throw new Error(`${key} is none of ${MODES.join(', ')}`);
  }
  return mode;
}

function lastOf<T>(values: readonly (T | undefined)[]): T | undefined {
  return values.findLast(value => value !== undefined);
}

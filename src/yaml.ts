import { Composer, isAlias, isMap, isScalar, isSeq, LineCounter, type Node, type Pair, Parser } from 'yaml';
import { messageOf } from './errors.ts';

/** A YAML document as plain values. */
export interface YamlDocument {
  /** Mappings have no prototype, so that no key means anything but itself; `undefined` when there is a fault. */
  readonly value: unknown;
  /** What is wrong with it, in the order of the text; no more than {@link FAULTS_TOLD}. */
  readonly faults: readonly YamlFault[];
  /** The line, from 1, of what lies at a path of keys and indexes, or of the innermost part that is there. */
  lineAt(path: readonly unknown[]): number;
}

export interface YamlFault {
  /** From 1. */
  readonly line: number;
  readonly message: string;
}

/** What a text may cost. */
export interface YamlLimits {
  readonly maxCharacters: number;
}

/** A file that the user wrote: about ten thousand nodes in an inventory. */
const USER_FILE: YamlLimits = { maxCharacters: 1 << 20 };
/** What a node says: the kubelet's configuration has a few thousand characters, drop-ins included. */
export const FROM_NODE: YamlLimits = { maxCharacters: 64 << 10 };

/**
 * Collections within each other. The composer calls itself for each, and so does everybody who reads what it made; at 3000
 * of them V8 has ended the process from within (docs/notes/bounds.md). Pods have less than 20.
 */
const MAX_DEPTH = 64;
/** Values that a text makes, and their characters in texts, aliases followed: nine lists of ten aliases make 10^9 ("billion laughs"). */
const MAX_VALUES = 200_000;
const MAX_GROWTH = 4;
const FAULTS_TOLD = 20;
const MESSAGE_MAX_CHARACTERS = 200;

/** The same schema whatever a `%YAML` line in the text says, and not a word of its own on standard error. */
const OPTIONS = { schema: 'core', merge: false, uniqueKeys: false, logLevel: 'silent', prettyErrors: false } as const;

/**
 * Reads YAML 1.2, or JSON, of one document or several, whoever wrote it: the time is linear in the length of the text, and
 * anything beyond the limits is a fault of the text. Never throws. Documents that say nothing are left out.
 *
 * The library parses within linear time, at any depth, and what comes then does not: it compares each key of a mapping with
 * all others, looks for the anchor of an alias in the whole document, and writes a key that is a collection out as text. So
 * depth is judged between its two steps, and the values are made here.
 */
export function readYaml(text: string, { maxCharacters }: YamlLimits = USER_FILE): readonly YamlDocument[] {
  if (text.length > maxCharacters) return [fault(1, `it is longer than ${maxCharacters} characters`)];
  const lines = new LineCounter();
  const lineOf = (offset: number) => lines.linePos(offset).line;
  try {
    const tokens = [...new Parser(lines.addNewLine).parse(text)];
    const tooDeep = tokens.find(token => depthOf(token) > MAX_DEPTH);
    if (tooDeep !== undefined) return [fault(lineOf(tooDeep.offset), `it nests deeper than ${MAX_DEPTH}`)];
    const budget = { values: MAX_VALUES, characters: MAX_GROWTH * maxCharacters };
    return [...new Composer(OPTIONS).compose(tokens)]
      .flatMap(document => {
        const faults = document.errors.map(({ pos, message }) => ({ line: lineOf(pos[0]), message: short(message) }));
        if (faults.length > 0) return [{ value: undefined, faults: faults.slice(0, FAULTS_TOLD), lineAt: () => 1 }];
        return document.contents === null ? [] : [documentOf(document.contents, lineOf, budget)];
      })
      .filter(({ value }) => value !== null);
  } catch (error) {
    return [fault(1, short(messageOf(error)))];
  }
}

function fault(line: number, message: string): YamlDocument {
  return { value: undefined, faults: [{ line, message }], lineAt: () => 1 };
}

function short(message: string): string {
  return (message.split('\n')[0] ?? '').slice(0, MESSAGE_MAX_CHARACTERS);
}

/** A token of the library's concrete syntax tree, as far as depth goes. */
interface TreeToken {
  readonly items?: readonly { readonly key?: unknown; readonly value?: unknown }[];
  readonly value?: unknown;
}

/** How many collections lie within each other at most: counted without calling itself, as the text may be hostile. */
function depthOf(root: unknown): number {
  let deepest = 0;
  const waiting: { readonly token: unknown; readonly depth: number }[] = [{ token: root, depth: 0 }];
  for (let next = waiting.pop(); next !== undefined; next = waiting.pop()) {
    const { token, depth } = next;
    if (typeof token !== 'object' || token === null) continue;
    const { items, value } = token as TreeToken;
    if (depth > deepest) deepest = depth;
    for (const item of items ?? []) {
      waiting.push({ token: item.key, depth: depth + 1 }, { token: item.value, depth: depth + 1 });
    }
    waiting.push({ token: value, depth });
  }
  return deepest;
}

/** What is left of what a text may make. */
interface Budget {
  values: number;
  characters: number;
}

function documentOf(root: Node, lineOf: (offset: number) => number, budget: Budget): YamlDocument {
  const faults: YamlFault[] = [];
  const anchors = new Map<string, Node>();
  /** Where the parts of each collection begin. */
  const places = new Map<object, Map<string, number>>();
  const offsetOf = (node: unknown) => (node as Node | null)?.range?.[0] ?? 0;
  const complain = (node: unknown, message: string) => {
    if (faults.length < FAULTS_TOLD) faults.push({ line: lineOf(offsetOf(node)), message });
  };

  const valueIn = (node: unknown, depth: number): unknown => {
    budget.values -= 1;
    if (budget.values < 0) throw new Error(`it has more than ${MAX_VALUES} values, aliases followed`);
    if (depth > MAX_DEPTH) throw new Error(`it nests deeper than ${MAX_DEPTH}, aliases followed`);
    if (isAlias(node)) {
      const target = anchors.get(node.source);
      if (target === undefined)
        complain(node, `the alias ${short(JSON.stringify(node.source))} names nothing before it`);
      return target === undefined ? undefined : valueIn(target, depth + 1);
    }
    const { anchor } = (node ?? {}) as { readonly anchor?: string };
    if (anchor !== undefined) anchors.set(anchor, node as Node);
    if (isScalar(node)) {
      if (typeof node.value === 'string') budget.characters -= node.value.length;
      if (budget.characters < 0) throw new Error('it grows too long, aliases followed');
      return node.value;
    }
    if (isSeq(node)) {
      const place = new Map<string, number>();
      const list = node.items.map((item, index) => {
        place.set(String(index), offsetOf(item));
        return valueIn(item, depth + 1);
      });
      places.set(list, place);
      return list;
    }
    return isMap(node) ? mappingOf(node.items, depth) : undefined;
  };

  const mappingOf = (pairs: readonly Pair<unknown, unknown>[], depth: number): object => {
    const mapping = Object.create(null) as Record<string, unknown>;
    const place = new Map<string, number>();
    for (const { key, value } of pairs) {
      if (!isScalar(key) && !isAlias(key)) {
        complain(key ?? value, 'a key must be a text');
        continue;
      }
      const name = valueIn(key, depth + 1) ?? '';
      if (typeof name === 'object') {
        complain(key, 'a key must be a text');
        continue;
      }
      if (place.has(String(name))) complain(key, `the key ${short(JSON.stringify(String(name)))} is there twice`);
      place.set(String(name), offsetOf(value ?? key));
      mapping[String(name)] = value === null || value === undefined ? null : valueIn(value, depth + 1);
    }
    places.set(mapping, place);
    return mapping;
  };

  const lineAt = (value: unknown) => (path: readonly unknown[]) => {
    let offset = offsetOf(root);
    let part = value;
    for (const key of path) {
      const found = typeof part === 'object' && part !== null ? places.get(part)?.get(String(key)) : undefined;
      if (found === undefined) break;
      offset = found;
      part = (part as Readonly<Record<string, unknown>>)[String(key)];
    }
    return lineOf(offset);
  };

  const value = valueIn(root, 0);
  return { value: faults.length > 0 ? undefined : value, faults, lineAt: lineAt(value) };
}

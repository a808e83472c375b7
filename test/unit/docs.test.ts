import { existsSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { parse, parseAllDocuments } from 'yaml';
import { SWITCHES } from '../../src/commands.ts';
import { helpText } from '../../src/help.ts';
import { variableOf } from '../../src/host/terminal.ts';
import { INPUT_NAMES, INPUTS, inputSpec, isInputName, parseInputs } from '../../src/inputs.ts';
import { parseInventory } from '../../src/node/inventory.ts';
import { type Block, blocksOf, PAGES, readPage, root, waitsFor } from '../pipelines/documents.ts';
import { faultsOf, read } from './workflows/validate.ts';

const MODES: readonly string[] = INPUTS.mode.type.oneOf;
const VARIABLES = new Set<string>([...INPUT_NAMES.map(variableOf), 'KUBE_SIDELOAD_CACHE']);
const FLAGS = new Set<string>([
  ...INPUT_NAMES.filter(name => inputSpec(name).type !== 'secret'),
  ...Object.keys(SWITCHES),
]);
const COMMANDS = new Set([
  ...MODES,
  ...[...helpText().matchAll(/^ +kube-sideload ([a-z]+)/gm)].map(([, name = '']) => name),
]);

function isThere({ kind, name }: { readonly kind: string; readonly name: string }): boolean {
  return kind === 'input' ? isInputName(name) : MODES.includes(name);
}

/** Blocks, without those of pages that wait for an input. */
const blocks = PAGES.filter(page => waitsFor(page).every(one => one.kind !== 'input' || isThere(one))).flatMap(
  blocksOf,
);

/** The words of each call of the program in a block of shell. */
function callsIn({ text }: Block): readonly (readonly string[])[] {
  return text
    .replaceAll(/\\\n\s*/g, ' ')
    .split('\n')
    .flatMap(line => /(?:^|\s)(?:kube-sideload|node \S*dist\/cli\/index\.js) +(.*)$/.exec(line)?.[1] ?? [])
    .map(words => words.trim().split(/\s+/));
}

/** What is wrong with inputs, given as texts. Values that CI fills in say nothing of themselves. */
function faultsIn(inputs: Readonly<Record<string, unknown>>): readonly string[] {
  const unknown = Object.keys(inputs).filter(name => !isInputName(name));
  const { problems } = parseInputs(name => {
    const value = inputs[name];
    return value === undefined || String(value).includes('$') ? undefined : String(value);
  });
  return [...unknown.map(name => `there is no input ${name}`), ...problems.map(({ message }) => message)];
}

/** Every mapping somewhere in a YAML block. */
function mappingsIn(value: unknown): readonly Readonly<Record<string, unknown>>[] {
  if (typeof value !== 'object' || value === null) {
    return [];
  }
  const inner = Object.values(value).flatMap(mappingsIn);
  return Array.isArray(value) ? inner : [value as Readonly<Record<string, unknown>>, ...inner];
}

const label = ({ page, name, text }: Block) => `${page}: ${name ?? text.trim().split('\n')[0]}`;
const yaml = blocks.filter(({ language }) => language === 'yaml');
const calls = blocks.filter(({ language }) => language === 'sh').filter(block => callsIn(block).length > 0);

describe('the commands of the documentation', () => {
  it.each(calls.map(block => [label(block), block] as const))('%s', (_label, block) => {
    for (const words of callsIn(block)) {
      const flags = [...words.join(' ').matchAll(/--([a-z-]+)(?:[= ](?!--)([^\s]+))?/g)];
      const [command = ''] = words.filter(word => !word.startsWith('-'));
      expect(command === '' || COMMANDS.has(command) || words[0]?.startsWith('--'), `no command ${command}`).toBe(true);
      expect(flags.map(([, name = '']) => name).filter(name => !FLAGS.has(name))).toEqual([]);
      const inputs = flags.filter(([, name = '']) => isInputName(name)).map(([, name, value]) => [name, value]);
      expect(faultsIn(Object.fromEntries(inputs))).toEqual([]);
    }
  });
});

describe('the YAML of the documentation', () => {
  it.each(yaml.map(block => [label(block), block] as const))('%s', async (_label, block) => {
    const { text, name = '' } = block;
    for (const mapping of mappingsIn(parse(text))) {
      const { uses, with: given, component, inputs } = mapping;
      if (typeof uses === 'string' && /(^|\/)kube-sideload\/kube-sideload@/.test(uses)) {
        expect(faultsIn(given as Readonly<Record<string, unknown>>)).toEqual([]);
      }
      if (typeof component === 'string') {
        const [header] = parseAllDocuments(read('templates/sideload/template.yml')).map(one => one.toJS() as unknown);
        const declared = (header as { spec: { inputs: object } }).spec.inputs;
        const own = Object.entries(inputs as object).filter(([input]) => isInputName(input));
        expect(Object.keys(inputs as object).filter(input => !Object.hasOwn(declared, input))).toEqual([]);
        expect(faultsIn(Object.fromEntries(own))).toEqual([]);
      }
      const variables = Object.keys(mapping).filter(key => key.startsWith('KUBE_SIDELOAD_'));
      expect(variables.filter(variable => !VARIABLES.has(variable))).toEqual([]);
    }
    if (name.endsWith('inventory.yaml')) {
      expect(parseInventory(text, name).nodes.length).toBeGreaterThan(0);
    }
    if (name.includes('/workflows/') || /^jobs:/m.test(text)) {
      const complete = /^on:/m.test(text) ? text : `on: push\n${text}`;
      // Gitea and Forgejo take URLs, which GitHub does not know.
      const known = complete.replaceAll(/uses: https:\/\/[\w.]+\//g, 'uses: ');
      expect(await faultsOf('.github/workflows/example.yml', known)).toEqual([]);
    }
  });
});

describe('a page', () => {
  it.each(PAGES)('%s has no link to a file that is not there', page => {
    const links = [...readPage(page).matchAll(/\]\((?!https?:|mailto:|#)([^)#\s]+)/g)].map(([, link = '']) => link);
    expect(links.filter(link => !existsSync(join(root, dirname(page), link)))).toEqual([]);
  });

  it.each(PAGES)('%s waits for nothing that has come (then finish it, and take the marker out)', page => {
    expect(waitsFor(page).filter(isThere)).toEqual([]);
  });
});

describe('these checks', () => {
  it('see what a page must not say', () => {
    expect(faultsIn({ imags: 'app:1', smoke: 'maybe' })).toEqual([
      'there is no input imags',
      expect.stringContaining('`smoke` must be'),
    ]);
  });
});

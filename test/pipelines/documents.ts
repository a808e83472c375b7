import { readdirSync, readFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import type { Lab } from '../lab/index.ts';

export const root = resolve(import.meta.dirname, '..', '..');

/** A fenced block of a page of documentation. */
export interface Block {
  readonly page: string;
  /** The first word after the fence; empty when there is none. */
  readonly language: string;
  readonly text: string;
  /** What the block is called in its first line, as in `# .gitlab-ci.yml`. */
  readonly name: string | undefined;
  /** Whether it says of itself that it is run as it stands (`<!-- tested -->` in the line before). */
  readonly isTested: boolean;
}

export const PAGES: readonly string[] = [
  'README.md',
  'CONTRIBUTING.md',
  'docs/troubleshooting.md',
  'docs/privileges/README.md',
  ...readdirSync(join(root, 'docs/guides')).map(file => `docs/guides/${file}`),
];

export function readPage(page: string): string {
  return readFileSync(join(root, page), 'utf8');
}

export function blocksOf(page: string): readonly Block[] {
  return [...readPage(page).matchAll(/^(<!-- tested -->\n)?( *)```(\w*)[^\n]*\n([\s\S]*?)^\2```$/gm)].map(
    ([, tested, indent = '', language = '', block = '']) => {
      const lines = block.split('\n').map(line => (line.startsWith(indent) ? line.slice(indent.length) : line));
      const name = /^# (\S+)/.exec(lines[0] ?? '')?.[1];
      return { page, language, text: lines.join('\n'), name, isTested: tested !== undefined };
    },
  );
}

/** What a page waits for, as in `<!-- waits for: input ssh-jump -->` or `<!-- waits for: mode check -->`. */
export function waitsFor(page: string): readonly { readonly kind: string; readonly name: string }[] {
  return [...readPage(page).matchAll(/^<!-- waits for: (input|mode) ([\w-]+) -->$/gm)].map(
    ([, kind = '', name = '']) => ({ kind, name }),
  );
}

/** The text of the block with this name, or of the first one in that language. @throws when there is none */
export function example(page: string, nameOrLanguage: string): string {
  const blocks = blocksOf(page);
  const block =
    blocks.find(({ name }) => name === nameOrLanguage) ?? blocks.find(({ language }) => language === nameOrLanguage);
  if (block === undefined) {
    throw new Error(`${page} has no example ${nameOrLanguage}`);
  }
  return block.text;
}

/** The example with the lab's addresses in place of those that pages use. */
export function forLab(text: string, lab: Lab): string {
  return lab.nodes.reduce((changed, node, index) => changed.replaceAll(`10.0.0.1${index + 1}`, node.address), text);
}

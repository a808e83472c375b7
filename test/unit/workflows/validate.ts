import { readFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { type ActionsMetadataProvider, validate } from '@actions/languageservice';
import { TextDocument } from 'vscode-languageserver-textdocument';
import { parse } from 'yaml';

export const root = resolve(import.meta.dirname, '..', '..', '..');
export const read = (file: string) => readFileSync(join(root, file), 'utf8');

/** The inputs of other people's actions would have to come from the network: they are not checked. */
const config = {
  actionsMetadataProvider: {
    fetchActionMetadata: ({ owner, name }: Parameters<ActionsMetadataProvider['fetchActionMetadata']>[0]) =>
      Promise.resolve(
        `${owner}/${name}` === 'kube-sideload/kube-sideload'
          ? (parse(read('action.yml')) as Awaited<ReturnType<ActionsMetadataProvider['fetchActionMetadata']>>)
          : { name, description: '' },
      ),
  },
};

let asked = 0;

/**
 * What GitHub's own language service says of a workflow, or of an action when the file is called `action.yml`: syntax,
 * keys, types, expressions and their contexts, cron times, the inputs of this project's action. As `LINE: MESSAGE`.
 */
export async function faultsOf(file: string, text: string): Promise<readonly string[]> {
  // It keeps what it has parsed by address.
  asked += 1;
  const found = await validate(TextDocument.create(`file:///${asked}/${file}`, 'yaml', 1, text), config);
  return found.map(({ range, message }) => `${range.start.line + 1}: ${message}`);
}

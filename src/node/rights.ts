import { askedRights, type Extras, type Right } from '../privileges.ts';
import { type Node, ready } from './node.ts';
import { runScript } from './script.ts';

/** A right that a push makes use of, and the commands of it that sudo refuses to the user. */
export interface MissingRight {
  readonly right: Pick<Right, 'purpose' | 'without'>;
  readonly commands: readonly string[];
}

const ASK = `
section refused
set -f
number=0
while IFS= read -r command; do
  sudo -n -l $command >/dev/null 2>&1 </dev/null || echo "$number"
  number=$((number + 1))
done <<END
$COMMANDS
END
`;

/** Asks sudo for everything that a run would run by it, where it does not allow everything; nothing of it is run. */
export async function missingRights(node: Node, extras: Extras, signal: AbortSignal): Promise<readonly MissingRight[]> {
  const { connection, facts } = ready(node);
  if (!facts.isNarrow) {
    return [];
  }
  const asked = askedRights(facts, extras);
  const variables = { COMMANDS: asked.map(({ command }) => command).join('\n') };
  const sections = await runScript(connection, { body: ASK, variables }, signal, 'asking sudo what it allows');
  const refused = new Set((sections.get('refused') ?? '').split('\n'));
  const missing = new Map<Right, string[]>();
  for (const [number, { right, command }] of asked.entries()) {
    if (refused.has(String(number))) {
      missing.set(right, [...(missing.get(right) ?? []), command]);
    }
  }
  return [...missing].map(([right, commands]) => ({ right, commands }));
}

import type { NodeFacts } from '../node/facts.ts';
import type { Script, Sections } from '../node/script.ts';
import { eachReference, variables } from './cri.ts';

/**
 * Functions for scripts about names. `has_name NAME` tells whether it is there; the script fails when the runtime does not
 * answer (`answer` in `cri.ts`). `give_name FROM TO` moves TO when it names something else. `take_name NAME` takes away the image
 * with its last name, and fails when that is in use; `free_name NAME` then takes the name alone.
 */
export type Names = string;

/** For {@link eachReference}: one that is not there is as good as removed. */
export const FREE_NAME = `  ! has_name "$reference" || free_name "$reference" >&2 || exit 1`;

/** Takes away names, and nothing else than names where their content is in use. */
export function freeNames(names: Names, facts: NodeFacts, references: readonly string[]): Script {
  return { body: `${names}${eachReference(FREE_NAME)}`, variables: variables(facts, references) };
}

/** Asks which of these names there are. */
export function findNames(names: Names, facts: NodeFacts, references: readonly string[]): Script {
  return {
    body: `${names}${eachReference('  ! has_name "$reference" || section "name $number"')}`,
    variables: variables(facts, references),
  };
}

/** The answer to {@link findNames}. */
export function foundNames(sections: Sections, references: readonly string[]): readonly string[] {
  return references.filter((_, number) => sections.has(`name ${number}`));
}

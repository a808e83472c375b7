import type { NodeFacts } from '../node/facts.ts';
import type { Script, Sections } from '../node/script.ts';
import { eachReference, variables } from './cri.ts';

/**
 * Functions for scripts about names, a runtime's own and {@link HAS_NAME}. `ask_name NAME` ends with 0 when the name is
 * there, with 1 when it is not, and with anything else when the runtime has not answered. `give_name FROM TO` moves TO
 * when it names something else. `take_name NAME` takes away the image with its last name, and fails when that is in
 * use; `free_name NAME` then takes the name alone.
 */
export type Names = string;

/** A runtime that does not answer, as while it restarts, has said nothing about what it holds: it is asked for twenty seconds. */
export const HAS_NAME = `
has_name() {
  attempt=0
  while [ $attempt -lt 40 ]; do
    ask_name "$1" && return 0
    [ $? -ne 1 ] || return 1
    attempt=$((attempt + 1))
    sleep 0.5
  done
  echo "the runtime does not say whether it has $1" >&2
  exit 1
}`;

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

import type { NodeFacts } from '../node/facts.ts';
import type { Script, Sections } from '../node/script.ts';
import { eachReference, variables } from './cri.ts';

/**
 * Functions for scripts about names. `has_name NAME` tells whether it is there; the script fails when the runtime does not
 * answer (`answer` in `cri.ts`). `give_name FROM TO` moves TO when it names something else. `take_name NAME` takes away the image
 * with its last name, and fails when that is in use; `free_name NAME` then takes the name alone. `note_content NAME`, after
 * `has_name NAME`, tells that this name is about to go; `free_content` then takes
 * away what is left without a name that somebody has given.
 */
export type Names = string;

/** How many half seconds a smoke pod's container may still use its image, for all names of a script together. */
export const LATE = 10;

/**
 * Takes away each of the references, after `first`; one that is not there is as good as removed. What a reference names that was
 * not there before can be in use by nobody but the smoke pod, whose container goes a moment after it. If it stays in use,
 * the section `stays N` tells so: then the name alone is taken.
 */
export function freeEach(first = ''): string {
  return `
late=0${eachReference(`${first}  if has_name "$reference"; then
    note_content "$reference"
    case $reference in */absent/* | */absent-at/*)
      until take_name "$reference" >&2; do
        [ $late -lt ${LATE} ] && has_name "$reference" || break
        late=$((late + 1))
        sleep 0.5
      done
      ! has_name "$reference" || section "stays $number" ;;
    esac
    ! has_name "$reference" || free_name "$reference" >&2 || exit 1
  fi`)}
free_content >&2`;
}

/** Takes away names, and nothing else than names where their content is in use. */
export function freeNames(names: Names, facts: NodeFacts, references: readonly string[]): Script {
  return { body: `${names}${freeEach()}`, variables: variables(facts, references) };
}

/** The answer to {@link freeNames}: of which references the image stays without a name, as a container uses it. */
export function stayingImages(sections: Sections, references: readonly string[]): readonly string[] {
  return references.filter((_, number) => sections.has(`stays ${number}`));
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

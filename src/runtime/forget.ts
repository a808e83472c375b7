import type { NodeFacts } from '../node/facts.ts';
import type { Script } from '../node/script.ts';
import { eachReference, variables } from './cri.ts';
import type { Names } from './names.ts';

/**
 * containerd's CRI gives each image a name of its own besides (`sha256:` and its ID), which would keep the content for
 * ever: it goes when no other name is left.
 */
const FORGET_CONTAINERD = `  if has_name "$reference"; then
    take_name "$reference" >&2 || exit 1
    left=$(ctr images ls -q "target.digest==$manifest") || exit 1
    if [ -n "$left" ] && ! printf '%s\\n' "$left" | grep -qv '^sha256:'; then
      for name in $left; do take_name "$name" >&2 || exit 1; done
    fi
  fi`;

const FORGET = '  ! has_name "$reference" || take_name "$reference" >&2 || exit 1';

/** Takes names from a node, and with its last name an image, unless that is in use. */
export function forget(names: Names, facts: NodeFacts, references: readonly string[]): Script {
  const body = facts.runtime.name === 'containerd' ? FORGET_CONTAINERD : FORGET;
  return { body: `${names}${eachReference(body)}`, variables: variables(facts, references) };
}

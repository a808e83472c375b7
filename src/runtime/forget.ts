import type { NodeFacts } from '../node/facts.ts';
import type { Script } from '../node/script.ts';
import { CTR } from './containerd.ts';
import { eachReference, variables } from './cri.ts';
import { runtimeOf } from './detect.ts';

/**
 * Takes names from a node, and with its last name an image. containerd's CRI gives each image a name of its own besides
 * (`sha256:` and its ID), which would keep the content for ever: it goes when no other name is left.
 */
const FORGET = `${CTR}${eachReference(`  manifest=$(ctr images ls "name==$reference" | sed -n '2s/^[^ ]* *[^ ]* *\\(sha256:[0-9a-f]*\\) .*/\\1/p')
  if [ -n "$manifest" ]; then
    ctr images rm "$reference" >&2 || exit 1
    left=$(ctr images ls -q "target.digest==$manifest") || exit 1
    if [ -n "$left" ] && ! printf '%s\\n' "$left" | grep -qv '^sha256:'; then
      for name in $left; do ctr images rm "$name" >&2 || exit 1; done
    fi
  fi`)}`;

/** `docker image ls NAME` does not find `docker.io/…` by that name; `docker image inspect NAME` does. */
const FORGET_DOCKER = eachReference(`  ! as_root $DOCKER image inspect "$reference" >/dev/null 2>&1 ||
    as_root $DOCKER image rm "$reference" >&2 || exit 1`);

export function forget(facts: NodeFacts, references: readonly string[]): Script {
  switch (facts.runtime.name) {
    case 'containerd':
      return { body: FORGET, variables: variables(facts, references) };
    case 'docker':
      return { body: FORGET_DOCKER, variables: variables(facts, references) };
    case 'cri-o':
      return runtimeOf('cri-o').remove(facts, references);
  }
}

import type { NodeFacts } from '../node/facts.ts';
import type { Script } from '../node/script.ts';
import { variables } from './cri.ts';
import type { Names } from './names.ts';
import { STAGE_PREFIX } from './staging.ts';

/**
 * While references move, a node keeps what each of them named before under a name of this run, which tells all that is
 * needed to put it back: `kube-sideload.invalid/RUN/before/docker.io/library/app:1` names the old content. For a
 * reference that did not exist `…/RUN/absent/…` names the new one. Whoever finds them needs no other record, also when
 * the runner is gone. As names they keep the content from being collected, too.
 */
export interface Kept {
  /** The reference that pods use. */
  readonly reference: string;
  readonly before: string;
  readonly absent: string;
}

const KEPT = /^kube-sideload\.invalid\/([0-9a-z]+)\/(?:before|absent)(-at)?\/([^/]+)(\/.+):([^:]+)$/;
const NAME_MAX_LENGTH = 255;
const SIMPLE_REGISTRY = /^([a-z0-9.-]+)(?::(\d+))?$/;

/** The names under which a reference is kept; `undefined` for one that is too long for it. */
export function keptNames(runId: string, reference: string): Kept | undefined {
  const at = reference.indexOf('@sha256:');
  const colon = reference.lastIndexOf(':');
  const named = at < 0 ? reference.slice(0, colon) : reference.slice(0, at);
  const tag = reference.slice(colon + 1);
  const slash = named.indexOf('/');
  const path = `${encodeRegistry(named.slice(0, slash))}${named.slice(slash)}`;
  const [before = '', absent = ''] = ['before', 'absent'].map(
    kind => `${STAGE_PREFIX}${runId}/${kind}${at < 0 ? '' : '-at'}/${path}`,
  );
  return before.length > NAME_MAX_LENGTH
    ? undefined
    : { reference, before: `${before}:${tag}`, absent: `${absent}:${tag}` };
}

/** What a kept name tells; `undefined` for any other name. */
export function parseKept(name: string): { readonly runId: string; readonly kept: Kept } | undefined {
  const match = KEPT.exec(name);
  const [, runId = '', at, registry = '', path = '', tag = ''] = match ?? [];
  const host = decodeRegistry(registry);
  const reference = `${host}${path}${at === undefined ? ':' : '@sha256:'}${tag}`;
  const kept = match === null ? undefined : keptNames(runId, reference);
  // Only what would be written again in the same way is ours, and names a registry (distribution: a dot, a port, capitals).
  return kept !== undefined &&
    (host === 'localhost' || /[.:A-Z]/.test(host)) &&
    [kept.before, kept.absent].includes(name)
    ? { runId, kept }
    : undefined;
}

/** In a path a registry may have neither a port nor capitals: `__` cannot be part of one, nor can a `0x` without a dot. */
function encodeRegistry(registry: string): string {
  const [, host, port] = SIMPLE_REGISTRY.exec(registry) ?? [];
  if (host === undefined) {
    return `0x${Buffer.from(registry).toString('hex')}`;
  }
  return port === undefined ? host : `${host}__${port}`;
}

function decodeRegistry(text: string): string {
  return /^0x[0-9a-f]+$/.test(text) ? Buffer.from(text.slice(2), 'hex').toString() : text.replace('__', ':');
}

/** Keeps what each reference names now; `stage` is the content that a reference gets which names nothing yet. */
export function keepScript(
  names: Names,
  facts: NodeFacts,
  moves: readonly (Kept & { readonly stage: string })[],
): Script {
  return {
    body: `${names}
set -e
set -- $REFERENCES
while [ $# -gt 3 ]; do
  if has_name "$2"; then give_name "$2" "$3" >&2; else give_name "$1" "$4" >&2; fi
  shift 4
done`,
    variables: variables(
      facts,
      moves.flatMap(({ stage, reference, before, absent }) => [stage, reference, before, absent]),
    ),
  };
}

/**
 * Puts back what was kept; what a reference names instead until then gets the name `…/absent/…`, with which it goes. Says of each, in the section `restored N`: `before` or `absent` when it is as it was,
 * `unmarked` when nothing was kept, so that it has not moved, and nothing when it could not be put back.
 */
export function restoreScript(names: Names, facts: NodeFacts, kept: readonly Kept[]): Script {
  return {
    body: `${names}
number=0
set -- $REFERENCES
while [ $# -gt 2 ]; do
  section "restored $number"
  if has_name "$2"; then { ! has_name "$1" || has_name "$3" || give_name "$1" "$3"; give_name "$2" "$1"; } >&2 && printf before
  elif has_name "$3"; then { ! has_name "$1" || free_name "$1"; } >&2 && printf absent
  else printf unmarked
  fi
  number=$((number + 1))
  shift 3
done`,
    variables: variables(
      facts,
      kept.flatMap(({ reference, before, absent }) => [reference, before, absent]),
    ),
  };
}

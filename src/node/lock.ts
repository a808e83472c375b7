import { createHash } from 'node:crypto';
import { type Node, ready } from './node.ts';
import { runScript, type Script, type Sections } from './script.ts';

/**
 * While a run moves references on a node, and until its verdict is in, it has a lock there for each of them: a symbolic
 * link, which is made or not made, and whose text says who has it. It is below /run, which a reboot empties.
 */
const DIRECTORY = '/run/kube-sideload';

/** How long a lock counts when its holder does not renew it. */
export const LEASE_SECONDS = 120;

/** A reference that another run has locked. */
export interface Refusal {
  readonly reference: string;
  readonly run: string;
  /** By the node's clock. */
  readonly since: Date;
}

/** What a node answers to a run that asks for locks. */
export interface LockAnswer {
  /** References that the run has locked now, each with the run whose lock had run out, if there was one. */
  readonly taken: ReadonlyMap<string, string | undefined>;
  readonly refusals: readonly Refusal[];
  /** Why the user may have none at all. */
  readonly denial: string | undefined;
}

/**
 * The text of a link is `RUN:SINCE:EXPIRES:REFERENCE`: seconds since 1970, and seconds since the machine started, which
 * nobody sets. It has no space: for sudo, arguments are one text with spaces in it. One that has run out is replaced by
 * `replace LOCK HELD NEW`: of several that try at once, one can make the link whose name is that of the text to be
 * replaced, and only it may move that link over the old one. Without NEW the lock goes. Renewing and releasing go the
 * same way, as the lock may have run out meanwhile.
 */
const LOCKS = `
read -r up rest </proc/uptime
up=\${up%.*}
parse() {
  run=\${1%%:*}; rest=\${1#*:}; since=\${rest%%:*}; rest=\${rest#*:}; expires=\${rest%%:*}
  case $run:$since$expires in *[!0-9a-z]*:* | *:*[!0-9]* | *:) run=unknown since=0 expires=0 ;; esac
}
is_over() { [ "$expires" -le "$up" ] || [ "$expires" -gt $((up + 30 * LEASE)) ]; }
replace() {
  parse "$2"
  next=$1.$run.$expires
  if ! said=$(as_root ln -sT "\${3:-$2}" "$next" 2>&1); then
    parse "$(readlink "$next")"
    ! is_over || as_root rm -f "$next"
    return 1
  fi
  if [ "$(readlink "$1")" != "$2" ]; then as_root rm -f "$next"; return 1; fi
  if [ -n "$3" ]; then as_root mv -f "$next" "$1"; else as_root rm -f "$1" "$next"; fi
}
`;

const TAKING = `${LOCKS}
take() {
  for attempt in 1 2 3; do
    held=$(readlink "$1")
    parse "$held"
    from= said= mine="$(date +%s):$((up + LEASE)):$2"
    if [ -z "$held" ]; then said=$(as_root ln -sT "$RUN:$mine" "$1" 2>&1)
    elif [ "$run" = "$RUN" ]; then replace "$1" "$held" "$RUN:$since:\${mine#*:}"
    elif is_over; then from=$run; replace "$1" "$held" "$RUN:$mine"
    else break
    fi && { printf 'taken %s' "$from"; return; }
  done
  parse "$(readlink "$1")"
  [ "$run" != "$RUN" ] || { printf taken; return; }
  [ -n "$held" ] || case $said in *'File exists'*) ;; *) printf 'refused %s' "$said"; return ;; esac
  printf 'held %s %s' "$run" "$since"
}
[ -d ${DIRECTORY} ] || as_root mkdir -p -m 755 ${DIRECTORY} 2>/dev/null`;

const TAKE = `${TAKING}
number=0
set -- $LOCKED
while [ $# -gt 1 ]; do
  section "lock $number"; take "${DIRECTORY}/$1" "$2"
  number=$((number + 1))
  shift 2
done`;

const RELEASE = `${LOCKS}
for lock in ${DIRECTORY}/*; do
  case \${lock##*/} in *.*) continue ;; esac
  held=$(readlink "$lock") || continue
  case $held in "$RUN:"*) replace "$lock" "$held" '' ;; esac
done`;

/**
 * Functions for scripts that change what a node has once, such as a file of its configuration: one at a time between
 * `alone` and `together`, with the name of what is changed. Whoever may make no locks does without.
 */
const ALONE = `${TAKING}
alone() {
  for second in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
    case $(take ${DIRECTORY}/$1 "$1") in held*) sleep 1 ;; *) return 0 ;; esac
  done
  echo "another job changes the $1 of the node, and does not come to its end" >&2
  return 1
}
together() { held=$(readlink ${DIRECTORY}/$1) && replace ${DIRECTORY}/$1 "$held" ''; }
`;

/** A script that does something which one script at a time may do. */
export function scriptAlone(what: string, runId: string, { body, variables }: Script): Script {
  return {
    body: `${ALONE}
alone ${what} || exit 1
${body}
status=$?
together ${what}
[ $status = 0 ] || exit 1`,
    variables: { ...variables, RUN: runId, LEASE: `${LEASE_SECONDS}` },
  };
}

export function takeScript(runId: string, references: readonly string[]): Script {
  const locked = references.map(reference => `${createHash('sha256').update(reference).digest('hex')} ${reference}`);
  return { body: TAKE, variables: { RUN: runId, LEASE: `${LEASE_SECONDS}`, LOCKED: locked.join('\n') } };
}

export function releaseScript(runId: string): Script {
  return { body: RELEASE, variables: { RUN: runId, LEASE: `${LEASE_SECONDS}` } };
}

/** The answers to {@link takeScript}; one that is none is a denial. */
export function readAnswers(sections: Sections, references: readonly string[]): LockAnswer {
  const answers = references.map((reference, number) => {
    const [state, run = '', since] = sections.get(`lock ${number}`)?.split(' ') ?? [];
    // A node may say anything, and not every number is a date.
    const seconds = /^\d{1,11}$/.test(since ?? '') ? Number(since) : 0;
    return { reference, state, run, since: new Date(seconds * 1000) };
  });
  const denied = answers.findIndex(({ state }) => state !== 'taken' && state !== 'held');
  return {
    taken: new Map(
      answers.flatMap(({ reference, state, run }) => (state === 'taken' ? [[reference, run || undefined]] : [])),
    ),
    refusals: answers.flatMap(({ state, ...refusal }) => (state === 'held' ? [refusal] : [])),
    denial: denied < 0 ? undefined : sections.get(`lock ${denied}`)?.replace(/^refused ?/, '') || 'without a word',
  };
}

/** Takes the locks of references on a node, or makes those that the run has there count for another while. */
export async function takeLocks(
  node: Node,
  references: readonly string[],
  runId: string,
  signal: AbortSignal,
): Promise<LockAnswer> {
  const { connection } = ready(node);
  return readAnswers(
    await runScript(connection, takeScript(runId, references), signal, 'locking the references'),
    references,
  );
}

/** Makes the locks that a run has on a node count for another while. @returns those that another run has taken over. */
export async function renewLocks(node: Node, runId: string, signal: AbortSignal): Promise<readonly Refusal[]> {
  const references = node.lock?.references ?? [];
  if (references.length === 0) {
    return [];
  }
  const askedAtMs = Date.now();
  const { refusals } = await takeLocks(node, references, runId, signal);
  node.lock = { references, askedAtMs };
  return refusals;
}

/** Gives up all locks that the run has on a node. */
export async function releaseLocks(node: Node, runId: string, signal: AbortSignal): Promise<void> {
  const { connection } = ready(node);
  node.lock = undefined;
  await runScript(connection, releaseScript(runId), signal, 'letting go of the locks');
}

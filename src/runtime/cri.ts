import { asObject, asText, type JsonObject } from '../image/json.ts';
import type { NodeFacts } from '../node/facts.ts';
import type { Sections } from '../node/script.ts';
import { FAULT } from './fault.ts';
import { OF_THE_NODE, OURS_BY_SUDO, PROCESSES } from './processes.ts';
import type { HeldImage, Runtime, TagPair } from './runtime.ts';

/** What crictl and docker say of an image that is not there. */
export const NO_SUCH_IMAGE = '[Nn]o such image';
/** What CRI-O says of a name that it can resolve to none: `inspecti` fails for it, as a pod's container does. */
const NO_SUCH_NAME = 'short[- ]name|unqualified-search|invalid reference';
export const EXIT_CODE_1 = '^exit code 1$';
/** Matches no line. */
export const NEVER = '.^';

/** Words in front of a command that needs root. */
export function asRoot({ privilege }: NodeFacts): readonly string[] {
  return privilege === 'sudo' || privilege === 'doas' ? [privilege, '-n'] : [];
}

/**
 * Functions for scripts that pin: `pin NAME…` in the name of `$RUN`, `unpin NAME…`, and `unpin_of RUN`. What is pinned
 * already stays whose it is, and what somebody else has pinned is not unpinned.
 */
export type Pins = string;

/**
 * Functions for scripts. `answer NOTHING COMMAND…` puts what a command prints into `$said`; it ends with 1 when there is
 * nothing, which the command shows by a line that matches NOTHING, a regular expression: one of its complaint, or
 * `exit code N`. A runtime that does not answer, as while it restarts, has said nothing about what it holds: it is asked
 * for twenty seconds, and then the script fails. Where it does not let the user in, the script fails at once; an error that
 * it has given five times in a row, it goes on to give.
 * `ask_cri REF` asks the CRI for an image, and `inspect_by_cri N REF` puts the answer into the section `cri N`. The CRI
 * learns of a new reference a moment after the runtime has made it: that is waited for.
 * What crictl says on standard error (a missing configuration file, say) is no part of its answer.
 * `end_imports REF` ends imports that still run, and waits for their end: when the runner disappears, sshd may wait for
 * it for hours, and the import with it. Which processes these are `processes.ts` says. `end_input` ends what hands the archive
 * on, and our shells around it: the importer sees its input end, and takes away what it has received, which it does not
 * when it is ended itself (`leases.ts`). One that unpacks sees nothing of it, and gets half a minute. To a user with few rights
 * (`$NARROW`) sudo cannot allow `kill`, which would be about all processes; what pkill may end a sudoers file can say: root's
 * processes of this node, of programs that sudo starts for us. Its own command line must not have the name, or it finds itself.
 */
export const CRI = `${FAULT}${PROCESSES}
answer() {
  nothing=$1
  shift
  attempt=0 errors=0 kind=silent
  while [ $attempt -lt 40 ] && [ $errors -lt 5 ]; do
    said=$("$@" 2>/dev/null) && return
    code=0
    why=$("$@" 2>&1 >/dev/null) || code=$?
    if printf 'exit code %s\\n%s\\n' $code "$why" | grep -Eq "$nothing"; then said=; return 1; fi
    kind=$(kind_of "$why")
    case $code:$kind in
      0:* | *:silent) errors=0 kind=silent ;;
      *:refused) break ;;
      *) errors=$((errors + 1)) ;;
    esac
    attempt=$((attempt + 1))
    sleep 0.5
  done
  give_up $kind "$why"
}
ask_cri() {
  answer '${NO_SUCH_IMAGE}|${NO_SUCH_NAME}' as_root $CRICTL --runtime-endpoint "unix://$SOCKET" --image-endpoint "unix://$SOCKET" inspecti -o json "$1"
}
inspect_by_cri() {
  [ -n "$CRICTL" ] || return 0
  for late in 1 2 3 4 5 6 7 8 9 10; do
    ask_cri "$2" && break
    sleep 0.3
  done
  section "cri $1"; printf '%s' "$said"
}
note_content() { :; }
free_content() { :; }
end_processes() { # end_processes SIGNAL NAME
  left=
  for process in $running; do kill "-$1" "$process" || left="$left $process"; done
  [ -n "$left" ] || return 0
  if [ -z "$NARROW" ]; then as_root kill "-$1" $left
  else as_root pkill "-$1" ${OF_THE_NODE} -f "${OURS_BY_SUDO}[\${2%"\${2#?}"}]\${2#?}"
  fi
}
end_input() {
  wrappers=' ' importer=
  for process in $running; do
    { read -r name <"/proc/$process/comm"; } || continue
    if [ "$name" = sh ]; then wrappers="$wrappers$process "; else importer=$process; fi
  done
  for stat in /proc/[0-9]*/stat; do
    { read -r process name state parent rest <"$stat"; } || continue
    case $name:$wrappers in '(cat):'*" $parent "* | '(dd):'*" $parent "*) kill "$process" ;; esac
  done
  kill $wrappers
} 2>/dev/null
end_imports() {
  attempt=0 due=150
  while [ $attempt -lt $((due + 25)) ]; do
    running=$(ours "\${1%:*}")
    [ -n "$running" ] || return 0
    end_input
    [ $attempt != 10 ] || [ -n "$importer" ] || due=10
    case $((attempt - due)) in
      0) end_processes TERM "\${1%:*}" 2>/dev/null ;;
      15) end_processes KILL "\${1%:*}" 2>/dev/null ;;
    esac
    attempt=$((attempt + 1))
    sleep 0.2
  done
}
`;

/** A script that does something for each of the references: `$reference`, with `$number` from 0 for its sections. */
export function eachReference(body: string): string {
  return `
number=0
for reference in $REFERENCES; do
${body}
  number=$((number + 1))
done`;
}

/** A script that does something for each pair of references, `$1` and `$2`, and stops at the first that fails. */
export function eachPair(body: string): string {
  return `
set -e
set -- $REFERENCES
while [ $# -gt 1 ]; do
${body}
  shift 2
done`;
}

/** The references of pairs, in the order in which {@link eachPair} takes them. */
export function flatPairs(pairs: readonly TagPair[]): readonly string[] {
  return pairs.flatMap(({ from, to }) => [from, to]);
}

/** What is held under each reference, out of what a runtime reads from the sections with the reference's number. */
export function heldBy(heldAt: (sections: Sections, number: number) => HeldImage | undefined): Runtime['held'] {
  return (sections, references) =>
    new Map(references.map((reference, number) => [reference, heldAt(sections, number)]));
}

/** The variables that every runtime's scripts start with. */
export function variables(
  { tools, criSocket, isNarrow, imageIds }: NodeFacts,
  references: readonly string[],
): Readonly<Record<string, string>> {
  const command = (name: keyof NodeFacts['tools']) => tools[name]?.join(' ') ?? '';
  return {
    CRICTL: command('crictl'),
    CTR: command('ctr'),
    SKOPEO: command('skopeo'),
    PODMAN: command('podman'),
    DOCKER: command('docker'),
    SOCKET: criSocket,
    NARROW: isNarrow ? 'yes' : '',
    IMAGE_IDS: imageIds.join(' '),
    REFERENCES: references.join('\n'),
  };
}

/**
 * The image ID that the CRI reports (`status.id`), with its algorithm: CRI-O leaves `sha256:` out. `absent` when crictl
 * was asked and has no such image; `unasked` when the node has no crictl.
 */
export function criImageId(sections: Sections, number: number): string | 'absent' | 'unasked' {
  const answer = sections.get(`cri ${number}`);
  if (answer === undefined) {
    return 'unasked';
  }
  const id = asText(asObject(parseObject(answer).status).id);
  if (id === undefined) {
    return 'absent';
  }
  return /^[0-9a-f]{64}$/.test(id) ? `sha256:${id}` : id;
}

/** Whether the CRI says that the image is kept from being collected; `undefined` when it was not asked. */
export function criPinned(sections: Sections, number: number): boolean | undefined {
  const { status } = parseObject(sections.get(`cri ${number}`));
  return status === undefined ? undefined : asObject(status).pinned === true;
}

/** What an image is for by its config, as a client on the node shows it; `unknown` where it does not say. */
export function builtFor(config: JsonObject): { readonly os: string; readonly architecture: string } {
  return { os: asText(config.os) ?? 'unknown', architecture: asText(config.architecture) ?? 'unknown' };
}

/** The object that a client on a node prints; anything else becomes an empty one. */
export function parseObject(text: string | undefined): JsonObject {
  return asObject(parseJson(text));
}

/** What a client on a node prints as JSON; undefined when it is none, and of any form else. */
export function parseJson(text: string | undefined): unknown {
  try {
    return JSON.parse(text ?? '');
  } catch {
    return undefined;
  }
}

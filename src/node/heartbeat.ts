import { SEARCH_PATH } from './script.ts';

/** How long a node keeps what has arrived of an image when the connection breaks off: the runner may come back. */
const KEEP_SECONDS = 90;

/**
 * The words of this shell are commands, each behind the number of its words. `first` runs the first of them; the others are
 * what to do when that has failed and nobody is there any more to hear of it. While it runs, an empty line is printed on
 * standard error every ten seconds. What waits for the next one holds nothing open, so that the channel can close.
 */
const BEAT = [
  `export LC_ALL=C PATH="$PATH:${SEARCH_PATH}"`,
  'first() { n=$1 i=1; shift; for w; do [ $i -gt $n ] || set -- "$@" "$w"; i=$((i + 1)); done; shift $((i - 1)); "$@"; }',
  `(trap 'kill $s; exit' TERM; while sleep 10 2>/dev/null & s=$!; wait $s; do echo >&2; done) >/dev/null & b=$!`,
  'first "$@"; c=$?; kill $b; shift $(($1 + 1))',
  `[ $c = 0 ] || [ $# = 0 ] || (trap "" PIPE; echo >&2) ||` +
    ` { (sleep ${KEEP_SECONDS}; while [ $# -gt 0 ]; do first "$@"; shift $(($1 + 1)); done) >/dev/null 2>&1 & }`,
  'exit $c',
].join('; ');

/**
 * The command with a heartbeat, by which the node notices that we are gone. A node that only receives waits for a dead
 * runner as long as TCP keepalive does, two hours by default, and an import waits with it; a node that has something to
 * send learns of it from TCP. It shares the channel of the command: sshd may allow a single one (`MaxSessions 1`).
 * Some words come from the node, as the paths of its programs do: none of them is shell text.
 * @param abandoned commands that remove what the run has left, each with its arguments
 */
export function withHeartbeat(
  argv: readonly string[],
  abandoned: readonly (readonly string[])[] = [],
): readonly string[] {
  return ['/bin/sh', '-c', BEAT, 'sh', ...[argv, ...abandoned].flatMap(words => [`${words.length}`, ...words])];
}

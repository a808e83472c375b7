import { SEARCH_PATH } from './script.ts';

/** How long a node keeps what has arrived of an image when the connection breaks off: the runner may come back. */
const KEEP_SECONDS = 90;

/**
 * Runs "$@", and prints an empty line on standard error every ten seconds until it has ended. What waits for the next one
 * holds nothing open, so that the channel can close. "$0" is what to do when the command has failed and nobody is there
 * any more to hear of it.
 */
const BEAT = [
  `export LC_ALL=C PATH="$PATH:${SEARCH_PATH}"`,
  `(trap 'kill $s; exit' TERM; while sleep 10 2>/dev/null & s=$!; wait $s; do echo >&2; done) >/dev/null & b=$!`,
  '"$@"; c=$?; kill $b',
  `[ $c = 0 ] || [ "$0" = sh ] || (trap "" PIPE; echo >&2) || { (sleep ${KEEP_SECONDS}; eval "$0") >/dev/null 2>&1 & }`,
  'exit $c',
].join('; ');

/**
 * The command with a heartbeat, by which the node notices that we are gone. A node that only receives waits for a dead
 * runner as long as TCP keepalive does, two hours by default, and an import waits with it; a node that has something to
 * send learns of it from TCP. It shares the channel of the command: sshd may allow a single one (`MaxSessions 1`).
 * @param abandoned commands that remove what the run has left, each with its arguments; of words that need no quotes
 */
export function withHeartbeat(
  argv: readonly string[],
  abandoned: readonly (readonly string[])[] = [],
): readonly string[] {
  const last = abandoned.map(command => command.join(' ')).join('; ');
  return ['/bin/sh', '-c', BEAT, last === '' ? 'sh' : last, ...argv];
}

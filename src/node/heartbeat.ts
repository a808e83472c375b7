import { SEARCH_PATH } from './script.ts';

/**
 * Runs "$@", and prints an empty line on standard error every ten seconds until it has ended. What waits for the next one
 * holds nothing open, so that the channel can close.
 */
const BEAT = [
  `export LC_ALL=C PATH="$PATH:${SEARCH_PATH}"`,
  `(trap 'kill $s; exit' TERM; while sleep 10 2>/dev/null & s=$!; wait $s; do echo >&2; done) >/dev/null & b=$!`,
  '"$@"; c=$?; kill $b; exit $c',
].join('; ');

/**
 * The command with a heartbeat, by which the node notices that we are gone. A node that only receives waits for a dead
 * runner as long as TCP keepalive does, two hours by default, and an import waits with it; a node that has something to
 * send learns of it from TCP. It shares the channel of the command: sshd may allow a single one (`MaxSessions 1`).
 */
export function withHeartbeat(argv: readonly string[]): readonly string[] {
  return ['/bin/sh', '-c', BEAT, 'sh', ...argv];
}

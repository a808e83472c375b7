import { PassThrough } from 'node:stream';
import type { SshConnection } from '../ssh/connect.ts';

/**
 * Prints a line every ten seconds for as long as its standard input is open. `kill 0` also ends the `sleep`: sshd gives
 * every command a process group of its own.
 */
const BEAT = 'trap : TERM; while sleep 10; do echo; done & cat >/dev/null; kill 0';

/**
 * Lets the node notice that we are gone. A node that only receives waits for a dead runner as long as TCP keepalive
 * does, two hours by default, and an import waits with it; a node that has something to send learns of it from TCP.
 * @returns ends the heartbeat
 */
export function startHeartbeat(connection: SshConnection): () => Promise<void> {
  const stdin = new PassThrough();
  // Whatever happens to the connection, those who use it for their work report it.
  const ended = connection.run(['sh', '-c', BEAT], { stdin }).then(
    () => {},
    () => {},
  );
  return async () => {
    stdin.end();
    await ended;
  };
}

import { setImmediate } from 'node:timers/promises';
import { test } from 'vitest';
import { connect } from '../../src/ssh/connect.ts';
import { failure, login, optionsWith, serve, serveTcp, targetOf } from './login.ts';

// In a file, and so in a process, of its own: it counts everything that is open.
test('nothing is left that would keep the process alive', { timeout: 8000 }, async () => {
  const server = await serve();
  const { port, sockets } = await serveTcp(() => {});
  const connection = await login(server, { connectTimeoutMs: 60_000 });
  await connection.run(['true']);
  await connection.close();
  await failure(connect(targetOf(port), optionsWith({ connectTimeoutMs: 50 })));
  for (const socket of [...server.sockets, ...sockets]) socket.destroy();
  // A timer or socket of ours that stays would outlast the limit of the test; vitest's own timers are short.
  while (process.getActiveResourcesInfo().some(name => name === 'TCPSocketWrap' || name === 'Timeout')) {
    await setImmediate();
  }
});

import { expect, test } from 'vitest';
import { connect } from '../../src/ssh/connect.ts';
import { failure, login, optionsWith, serve, serveTcp, targetOf } from './login.ts';

// In a file, and so in a process, of its own: it counts everything that is open.
test('nothing is left that would keep the process alive', async () => {
  const server = await serve();
  const { port, sockets } = await serveTcp(() => {});
  const count = (resource: string) => process.getActiveResourcesInfo().filter(name => name === resource).length;
  const timers = count('Timeout');
  const connection = await login(server);
  await connection.run(['true']);
  await connection.close();
  await failure(connect(targetOf(port), optionsWith({ connectTimeoutMs: 50 })));
  for (const socket of [...server.sockets, ...sockets]) socket.destroy();
  await expect.poll(() => count('TCPSocketWrap')).toBe(0);
  expect(count('Timeout')).toBeLessThanOrEqual(timers);
});

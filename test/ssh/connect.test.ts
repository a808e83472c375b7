import { once } from 'node:events';
import { expect, test } from 'vitest';
import { connect } from '../../src/ssh/connect.ts';
import { failure, login, optionsWith, serve, serveTcp, targetOf } from './login.ts';
import { CREDENTIALS, startTcp } from './server.ts';

test('a refused connection says so, with address and the name of the system error', async () => {
  const { port, close } = await startTcp(() => {});
  await close();
  const error = await failure(connect(targetOf(port), optionsWith()));
  expect(error).toMatchObject({ code: 'SSH_UNREACHABLE', node: 'worker-1' });
  expect(error.message).toContain(`127.0.0.1:${port}`);
  expect(error.message).toContain('ECONNREFUSED');
});

test('a name that does not exist says that it cannot be resolved', async () => {
  const target = { ...targetOf(22), host: 'worker-1.invalid' };
  const error = await failure(connect(target, optionsWith()));
  expect(error.code).toBe('SSH_UNREACHABLE');
  expect(error.message).toMatch(/worker-1\.invalid:22 .*name/);
  expect(error.hint).toContain('write the node’s address before it');
});

test('a peer that accepts and never speaks is left after the limit, and the phase is named', async () => {
  const { port } = await serveTcp(() => {});
  const error = await failure(connect(targetOf(port), optionsWith({ connectTimeoutMs: 200 })));
  expect(error.code).toBe('SSH_UNREACHABLE');
  expect(error.message).toContain('TCP connected, but no SSH banner came within 0.2 s');
});

test('a peer that stalls after its banner is left after the limit, and the phase is named', async () => {
  const { port } = await serveTcp(socket => socket.write('SSH-2.0-stalled\r\n'));
  const error = await failure(connect(targetOf(port), optionsWith({ connectTimeoutMs: 200 })));
  expect(error.message).toContain('the SSH handshake began and did not finish within 0.2 s');
});

test('something else than SSH on the port is named', async () => {
  const { port } = await serveTcp(socket => socket.end('HTTP/1.1 400 Bad Request\r\n\r\n'));
  const error = await failure(connect(targetOf(port), optionsWith()));
  expect(error.code).toBe('SSH_UNREACHABLE');
  expect(error.message).toContain('does not speak SSH');
});

test('endless garbage is not read for ever', async () => {
  const { port } = await serveTcp(socket => {
    const pour = () => {
      while (socket.writable && socket.write('garbage\n'.repeat(1000)));
    };
    socket.on('drain', pour);
    pour();
  });
  const error = await failure(connect(targetOf(port), optionsWith()));
  expect(error.message).toContain('does not speak SSH');
});

test('a peer that closes at once points to an overloaded sshd', async () => {
  const { port } = await serveTcp(socket => socket.end());
  const error = await failure(connect(targetOf(port), optionsWith()));
  expect(error.code).toBe('SSH_UNREACHABLE');
  expect(error.message).toContain('MaxStartups');
});

test.each(['end', 'resetAndDestroy'] as const)(
  'a peer that goes away after its banner (%s) is told apart',
  async how => {
    const { port } = await serveTcp(socket => {
      socket.write('SSH-2.0-short\r\n');
      socket.once('data', () => socket[how]());
    });
    const error = await failure(connect(targetOf(port), optionsWith()));
    expect(error.code).toBe('SSH_UNREACHABLE');
    expect(error.message).toContain('during the SSH handshake');
  },
);

test('a refused key names the user, the key and what the server would accept', async () => {
  const server = await serve({ authenticate: context => context.reject(['password', 'keyboard-interactive']) });
  const error = await failure(login(server));
  expect(error).toMatchObject({ code: 'SSH_AUTH_FAILED', node: 'worker-1' });
  expect(error.message).toContain('deploy');
  expect(error.message).toContain(CREDENTIALS.fingerprint);
  expect(error.message).toContain('password, keyboard-interactive');
  expect(error.hint).toContain('PubkeyAuthentication');
});

test('a server that wants a second factor is told apart from one that refuses the key', async () => {
  const server = await serve({ authenticate: context => context.reject(['keyboard-interactive'], true) });
  const error = await failure(login(server));
  expect(error.code).toBe('SSH_AUTH_FAILED');
  expect(error.message).toContain('wants another proof as well: keyboard-interactive');
});

test('a login that hangs is left after the limit, and the phase is named', async () => {
  const server = await serve({ authenticate: () => {} });
  const error = await failure(login(server, { connectTimeoutMs: 1000 }));
  expect(error.code).toBe('SSH_UNREACHABLE');
  expect(error.message).toContain('the login did not within 1 s');
});

test('an abort ends the attempt with the reason of the signal, and the socket with it', async () => {
  const { port, sockets } = await serveTcp(() => {});
  const abort = new AbortController();
  const attempt = failure(connect(targetOf(port), optionsWith({ signal: abort.signal })));
  await expect.poll(() => sockets.length).toBe(1);
  abort.abort();
  expect((await attempt).name).toBe('AbortError');
  const [socket] = sockets;
  if (socket !== undefined && !socket.destroyed) await once(socket.resume(), 'close');
});

test('an aborted signal prevents the attempt', async () => {
  const { port, sockets } = await serveTcp(() => {});
  const error = await failure(connect(targetOf(port), optionsWith({ signal: AbortSignal.abort() })));
  expect(error.name).toBe('AbortError');
  expect(sockets).toEqual([]);
});

test('close can be called twice, and commands after it are refused', async () => {
  const server = await serve();
  const connection = await login(server);
  await Promise.all([connection.close(), connection.close()]);
  await connection.close();
  const error = await failure(connection.run(['true']));
  expect(error).toMatchObject({ code: 'SSH_LOST', node: 'worker-1' });
  expect(error.message).toContain('closed here');
});

test('close does not wait for a node that has gone silent', async () => {
  const server = await serve();
  const connection = await login(server);
  for (const socket of server.sockets) socket.pause();
  await connection.close();
});

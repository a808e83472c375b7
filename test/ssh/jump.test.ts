import { expect, onTestFinished, test } from 'vitest';
import { connect, type SshConnection, type SshHost, type SshOptions } from '../../src/ssh/connect.ts';
import { hostKeyPolicy } from '../../src/ssh/host-keys.ts';
import { jumpHosts } from '../../src/ssh/jump.ts';
import { count, failure, optionsWith, serve, serveTcp, targetOf } from './login.ts';
import { generateKey, KEYS, type ServerOptions, startTcp, type TestServer } from './server.ts';

const MIB = 1024 * 1024;

function gateway(options: ServerOptions = {}): Promise<TestServer> {
  return serve({ forwards: true, hostKeys: [KEYS.ecdsa], ...options });
}

function hop({ target: { host, port } }: TestServer, user = 'ops'): SshHost {
  return { host, port, user };
}

/** What knows the host keys of these servers, and shares their jump hosts. */
function knowing(servers: readonly TestServer[], changes: Partial<SshOptions> = {}): SshOptions {
  const hostKeys = hostKeyPolicy({ knownHosts: servers.map(({ knownHosts }) => knownHosts).join('') });
  const options = optionsWith({ hostKeys, ...changes });
  return { jumps: jumpHosts(options), ...options };
}

async function through(jump: readonly SshHost[], node: TestServer, options: SshOptions): Promise<SshConnection> {
  const connection = await connect({ ...node.target, jump }, options);
  onTestFinished(() => connection.close());
  return connection;
}

/** Answers with how much it has read. */
function echo(options: ServerOptions = {}): Promise<TestServer> {
  return serve({ exec: count, ...options });
}

const gone = (server: TestServer) => server.sockets.every(socket => socket.destroyed);

test('a node behind a jump host is reached, with all its data', async () => {
  const [gw, node] = [await gateway(), await echo()];
  const connection = await through([hop(gw)], node, knowing([gw, node]));
  expect(await connection.run(['wc'], { stdin: Buffer.alloc(20 * MIB) })).toMatchObject({
    code: 0,
    stdout: `${20 * MIB}`,
  });
  // The node sees the jump host, not us.
  expect(node.sockets).toHaveLength(1);
});

test('a chain of jump hosts is gone through in its order', async () => {
  const [first, second, node] = [await gateway(), await gateway({ hostKeys: [KEYS.rsa] }), await echo()];
  const connection = await through([hop(first), hop(second)], node, knowing([first, second, node]));
  expect(await connection.run(['wc'], { stdin: 'hello' })).toMatchObject({ stdout: '5' });
  expect(first.received.filter(message => message === 'CHANNEL_OPEN')).toHaveLength(1);
});

test('nodes behind the same jump host share one login there, which ends with the last of them', async () => {
  const [gw, one, other] = [await gateway(), await echo(), await echo()];
  const options = knowing([gw, one, other]);
  const connections = await Promise.all([one, other].map(node => through([hop(gw)], node, options)));
  expect(gw.sockets).toHaveLength(1);
  await connections[0]?.close();
  expect(await connections[1]?.run(['wc'], { stdin: 'x' })).toMatchObject({ stdout: '1' });
  await connections[1]?.close();
  await expect.poll(() => gone(gw)).toBe(true);
});

test('another user of the same jump host, or a longer chain, has a login of its own', async () => {
  const [gw, node] = [await gateway(), await echo()];
  const options = knowing([gw, node]);
  await through([hop(gw)], node, options);
  await through([hop(gw, 'other')], node, options);
  await through([hop(gw), hop(gw)], node, options);
  // The second of the chain is reached through the first, and so both by the same login of the first.
  expect(gw.sockets).toHaveLength(3);
});

test('the host key of the jump host is checked under its own name, before any login', async () => {
  const [gw, node] = [await gateway(), await echo()];
  const error = await failure(through([hop(gw)], node, knowing([node])));
  expect(error).toMatchObject({ code: 'SSH_HOST_KEY_UNKNOWN', node: 'worker-1' });
  expect(error.message).toContain(`the jump host [127.0.0.1]:${gw.target.port} shows an unknown host key`);
  expect(gw.received).not.toContain('USERAUTH_REQUEST');
  expect(node.sockets).toEqual([]);
});

test('the host key of the node behind it is checked as well', async () => {
  const [gw, node] = [await gateway(), await echo()];
  const other = generateKey('ed25519').publicKey;
  const hostKeys = hostKeyPolicy({ knownHosts: `${gw.knownHosts}[127.0.0.1]:${node.target.port} ${other}\n` });
  const error = await failure(through([hop(gw)], node, optionsWith({ hostKeys })));
  expect(error.code).toBe('SSH_HOST_KEY_CHANGED');
  expect(error.message).not.toContain('the jump host');
  await expect.poll(() => gone(gw)).toBe(true);
});

test('the second hop of a chain that refuses the login is named', async () => {
  const [first, node] = [await gateway(), await echo()];
  const second = await gateway({ authenticate: context => context.reject(['publickey']) });
  const error = await failure(through([hop(first), hop(second)], node, knowing([first, second, node])));
  expect(error).toMatchObject({ code: 'SSH_AUTH_FAILED', node: 'worker-1' });
  expect(error.message).toContain(`the jump host 127.0.0.1:${second.target.port} refused the login of ops`);
  await expect.poll(() => gone(first) && gone(second)).toBe(true);
});

test('a jump host that cannot be reached is named, with the phase, to every node behind it', async () => {
  const [silent, one, other] = [await serveTcp(() => {}), await echo(), await echo()];
  const options = knowing([one, other], { connectTimeoutMs: 300 });
  const jump = [{ host: '127.0.0.1', port: silent.port, user: 'ops' }];
  const errors = await Promise.all([one, other].map(node => failure(through(jump, node, options))));
  for (const error of errors) {
    expect(error).toMatchObject({ code: 'SSH_UNREACHABLE', node: 'worker-1' });
    expect(error.message).toContain(`the jump host 127.0.0.1:${silent.port} cannot be reached`);
    expect(error.message).toContain('no SSH banner came within 0.3 s');
  }
  expect(silent.sockets).toHaveLength(1);
});

test('a jump host that forwards nothing says so', async () => {
  const [gw, node] = [await gateway({ forwards: false }), await echo()];
  const error = await failure(through([hop(gw)], node, knowing([gw, node])));
  expect(error).toMatchObject({ code: 'SSH_UNREACHABLE', node: 'worker-1' });
  expect(error.message).toContain(`127.0.0.1:${node.target.port} cannot be reached from the jump host before it`);
});

test('a node that is not there is the node’s fault, and not that of the jump host', async () => {
  const gw = await gateway();
  const { port, close } = await startTcp(() => {});
  await close();
  const error = await failure(connect({ ...targetOf(port), jump: [hop(gw)] }, knowing([gw])));
  expect(error.message).toMatch(new RegExp(`^127\\.0\\.0\\.1:${port} cannot be reached from the jump host`));
});

test('a node that stalls behind a jump host is left after the limit', async () => {
  const gw = await gateway();
  const { port } = await serveTcp(() => {});
  const options = knowing([gw], { connectTimeoutMs: 500 });
  const error = await failure(connect({ ...targetOf(port), jump: [hop(gw)] }, options));
  expect(error.message).toContain('no SSH banner came within 0.5 s');
  await expect.poll(() => gone(gw)).toBe(true);
});

test('a jump host that is lost is named as the reason to all that run behind it, and the next attempt opens another', async () => {
  const gw = await gateway();
  const node = await serve({ exec: () => {} });
  const options = knowing([gw, node]);
  const connection = await through([hop(gw)], node, options);
  const running = failure(connection.run(['ctr']));
  await node.arrival('CHANNEL_REQUEST');
  for (const socket of gw.sockets) socket.destroy();
  const error = await running;
  expect(error).toMatchObject({ code: 'SSH_LOST', node: 'worker-1' });
  expect(error.message).toContain(`The connection to the jump host 127.0.0.1:${gw.target.port} broke off`);
  await through([hop(gw)], node, options);
  expect(gw.sockets).toHaveLength(2);
});

test('an abort of one node leaves the jump host to the others', async () => {
  const [gw, one, other] = [await gateway(), await serve({ exec: () => {} }), await echo()];
  const options = knowing([gw, one, other]);
  const abort = new AbortController();
  const first = await through([hop(gw)], one, { ...options, signal: abort.signal });
  const second = await through([hop(gw)], other, options);
  const running = failure(first.run(['ctr']));
  abort.abort();
  expect((await running).name).toBe('AbortError');
  expect(await second.run(['wc'], { stdin: 'abc' })).toMatchObject({ stdout: '3' });
});

import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { PassThrough, Readable } from 'node:stream';
import { describe, expect, onTestFinished, test } from 'vitest';
import type { SshConnection, SshTarget } from '../../src/ssh/connect.ts';
import { hostKeyPolicy } from '../../src/ssh/host-keys.ts';
import { endLeftClients } from '../../src/ssh/openssh.ts';
import { openTransport, type SshSettings } from '../../src/ssh/transport.ts';
import { count, failure, serve, serveTcp, targetOf } from './login.ts';
import { CREDENTIALS, generateKey, KEYS, type ServerOptions, startTcp, type TestServer } from './server.ts';

const MIB = 1024 * 1024;
type Transport = 'node-ssh' | 'openssh';

function settingsOf(
  transport: Transport,
  knownHosts: string,
  connectTimeoutMs = 10_000,
  key = CREDENTIALS,
): SshSettings {
  return {
    authentication: { key },
    hostKeys: hostKeyPolicy({ knownHosts }),
    connectTimeoutMs,
    openssh:
      transport === 'node-ssh'
        ? undefined
        : { knownHosts: { text: knownHosts }, key: { text: key.privateKey }, agent: undefined, connectTimeoutMs },
  };
}

/** A directory of a run, with a blank in its name. */
function scratch(): string {
  const directory = mkdtempSync(join(tmpdir(), 'ssh "test" %h '));
  onTestFinished(() => rmSync(directory, { recursive: true }));
  return directory;
}

async function reach(
  target: SshTarget,
  settings: SshSettings,
  signal = new AbortController().signal,
): Promise<SshConnection> {
  const connection = await openTransport(settings, scratch()).connect(target, signal);
  onTestFinished(() => connection.close());
  return connection;
}

/** A source without end. */
function endless(): Readable {
  return new Readable({
    read() {
      this.push(Buffer.alloc(64 * 1024));
    },
  });
}

/** Sends back what it reads. */
const echo: ServerOptions['exec'] = ({ command, channel }) => {
  channel.stderr.write(`ran ${command}\n`);
  channel.pipe(channel, { end: false });
  channel.on('end', () => {
    channel.exit(3);
    channel.end();
  });
};

describe.each<Transport>(['node-ssh', 'openssh'])('%s', transport => {
  const login = (server: TestServer, signal?: AbortSignal) =>
    reach(server.target, settingsOf(transport, server.knownHosts), signal);

  test('a command gets its arguments and stdin, and gives both outputs and its exit code', async () => {
    const connection = await login(await serve({ exec: echo }));
    const sent: number[] = [];
    const onStdinBytes = (bytes: number) => sent.push(bytes);
    const result = await connection.run(['cat', 'a b', "it's $HOME"], {
      preamble: 'x\n',
      stdin: 'hello ü',
      onStdinBytes,
    });
    expect(result).toEqual({ code: 3, stdout: 'x\nhello ü', stderr: `ran cat 'a b' 'it'\\''s $HOME'\n` });
    expect(sent).toEqual([8]);
  });

  test('what a command prints is handed on as it comes, to whoever takes it, and its failure ends the command', async () => {
    const server = await serve({ exec: ({ channel }) => channel.write('first\n') });
    const connection = await login(server);
    const taken: string[] = [];
    const onStdout = (chunk: Buffer) => {
      taken.push(chunk.toString());
      throw new Error('that will do');
    };
    // The command never ends by itself, and its input stays open.
    const stdin = new PassThrough();
    expect((await failure(connection.run(['watch'], { stdin, onStdout }))).message).toBe('that will do');
    expect(taken).toEqual(['first\n']);
  });

  test('a large stream arrives whole, and commands run one after the other and side by side', async () => {
    const connection = await login(await serve({ exec: count }));
    const chunks = Array.from({ length: 320 }, () => Buffer.alloc(65_536, 'i'));
    expect(await connection.run(['wc'], { stdin: Readable.from(chunks) })).toMatchObject({ stdout: `${20 * MIB}` });
    expect(chunks.at(-1)?.length).toBe(0); // its memory has been given back
    const results = await Promise.all(['', 'a', 'ab'].map(stdin => connection.run(['wc'], { stdin })));
    expect(results.map(({ stdout }) => stdout)).toEqual(['0', '1', '2']);
  });

  test('a command that prints megabytes while it receives does not block', async () => {
    const server = await serve({
      exec: ({ channel }) => {
        const printed = new Promise<void>(resolve => channel.write(Buffer.alloc(5 * MIB, 'o'), () => resolve()));
        channel.resume();
        channel.on('end', async () => {
          await printed;
          channel.exit(0);
          channel.end();
        });
      },
    });
    const stdin = Readable.from(Array.from({ length: 80 }, () => Buffer.alloc(65_536)));
    const { code, stdout } = await (await login(server)).run(['ctr'], { stdin });
    expect([code, stdout.length]).toEqual([0, 5 * MIB]);
  });

  test('a command that ends early, with stdin unread, gives its exit code and what it said', async () => {
    const server = await serve({
      exec: ({ channel }) => {
        channel.stderr.write('ctr: no space left on device\n');
        channel.exit(1);
        channel.end();
      },
    });
    const stdin = endless();
    const result = await (await login(server)).run(['ctr'], { stdin });
    expect(result).toEqual({ code: 1, stdout: '', stderr: 'ctr: no space left on device\n' });
    expect(stdin.destroyed).toBe(true);
  });

  test('a command that a signal has ended is no success', async () => {
    const server = await serve({
      exec: ({ channel }) => {
        channel.exit('KILL', false, 'killed');
        channel.end();
      },
    });
    const { code } = await (await login(server)).run(['ctr']);
    expect(code).toBe(transport === 'node-ssh' ? 137 : 255);
  });

  test('the exit code 255 of a command is that of the command', async () => {
    const server = await serve({
      exec: ({ channel }) => {
        channel.exit(255);
        channel.end();
      },
    });
    expect(await (await login(server)).run(['ctr'])).toMatchObject({ code: 255 });
  });

  // OpenSSH's client waits for the session to be closed, which sshd does and this server does not.
  if (transport === 'node-ssh') {
    test('a server that runs no commands is named', async () => {
      const error = await failure((await login(await serve({ exec: 'refuse' }))).run(['ctr'], { stdin: endless() }));
      expect(error).toMatchObject({ code: 'REMOTE_COMMAND_FAILED', node: 'worker-1' });
      expect(error.message).toContain('refused to start ctr');
    });
  }

  test('output over the limit is an error, not a part of the output', async () => {
    const server = await serve({ exec: ({ channel }) => channel.write(Buffer.alloc(MIB)) });
    const error = await failure((await login(server)).run(['ctr'], { maxOutputBytes: 1000 }));
    expect(error).toMatchObject({ code: 'REMOTE_COMMAND_FAILED', node: 'worker-1' });
  });

  test('a source that fails ends the command with its own error, and not the connection', async () => {
    let runs = 0;
    const server = await serve({ exec: exec => (++runs > 1 ? count(exec) : exec.channel.resume()) });
    const connection = await login(server);
    const stdin = Readable.from(
      (async function* () {
        yield Buffer.alloc(MIB);
        await server.arrival('CHANNEL_DATA');
        throw new Error('the disk broke');
      })(),
    );
    expect((await failure(connection.run(['ctr'], { stdin }))).message).toBe('the disk broke');
    await server.arrival('CHANNEL_CLOSE');
    expect(await connection.run(['wc'], { stdin: 'abc' })).toMatchObject({ stdout: '3' });
  });

  test('an abort ends a command that never answers, and not the connection', async () => {
    let runs = 0;
    const server = await serve({ exec: exec => ++runs > 1 && count(exec) });
    const connection = await login(server);
    const abort = new AbortController();
    const running = failure(connection.run(['ctr'], { stdin: endless(), signal: abort.signal }));
    await server.arrival('CHANNEL_DATA');
    abort.abort();
    expect((await running).name).toBe('AbortError');
    expect(await connection.run(['wc'], { stdin: 'abc' })).toMatchObject({ stdout: '3' });
  });

  test('an abort of the connection ends its commands, and then itself', async () => {
    const server = await serve({ exec: () => {} });
    const abort = new AbortController();
    const connection = await login(server, abort.signal);
    const running = failure(connection.run(['ctr'], { stdin: endless() }));
    await server.arrival('CHANNEL_DATA');
    const [socket] = server.sockets;
    const closed = new Promise(resolve => socket?.once('close', resolve));
    abort.abort();
    expect((await running).name).toBe('AbortError');
    await closed;
    expect((await failure(connection.run(['true']))).name).toBe('AbortError');
  });

  test('a connection that breaks during an upload is lost', async () => {
    const server = await serve({ exec: () => {} });
    const connection = await login(server);
    const stdin = endless();
    const running = failure(connection.run(['ctr'], { stdin }));
    await server.arrival('CHANNEL_DATA');
    for (const socket of server.sockets) socket.destroy();
    expect(await running).toMatchObject({ code: 'SSH_LOST', node: 'worker-1' });
    expect(stdin.destroyed).toBe(true);
    expect(await failure(connection.run(['true']))).toMatchObject({ code: 'SSH_LOST' });
  });

  test('commands wait for one another where the server has room for one, and lose nothing', async () => {
    const connection = await login(await serve({ maxSessions: 1, exec: count }));
    const results = await Promise.all(
      [1, 2, 3].map(size => connection.run(['wc'], { stdin: Buffer.alloc(size * MIB) })),
    );
    expect(results.map(({ stdout }) => Number(stdout))).toEqual([MIB, 2 * MIB, 3 * MIB]);
  });

  test('close can be called twice, and commands after it are refused', async () => {
    const server = await serve();
    const connection = await login(server);
    await Promise.all([connection.close(), connection.close()]);
    expect(await failure(connection.run(['true']))).toMatchObject({ code: 'SSH_LOST', node: 'worker-1' });
    await expect.poll(() => server.sockets.every(socket => socket.destroyed)).toBe(true);
  });

  test('a node that is not listening cannot be reached', async () => {
    const { port, close } = await startTcp(() => {});
    await close();
    const error = await failure(reach(targetOf(port), settingsOf(transport, '')));
    expect(error).toMatchObject({ code: 'SSH_UNREACHABLE', node: 'worker-1' });
    expect(error.message).toMatch(/refused/i);
  });

  test('a peer that never speaks is left after the limit', async () => {
    const { port } = await serveTcp(() => {});
    const error = await failure(reach(targetOf(port), settingsOf(transport, '', 1000)));
    expect(error).toMatchObject({ code: 'SSH_UNREACHABLE', node: 'worker-1' });
  });

  test('a login that hangs is left after the limit', async () => {
    const server = await serve({ authenticate: () => {} });
    const error = await failure(reach(server.target, settingsOf(transport, server.knownHosts, 1500)));
    expect(error.code).toBe('SSH_UNREACHABLE');
    expect(error.message).toMatch(/within 1.5 s/);
  });

  test('an abort ends the attempt', async () => {
    const { port, sockets } = await serveTcp(() => {});
    const abort = new AbortController();
    const attempt = failure(reach(targetOf(port), settingsOf(transport, ''), abort.signal));
    await expect.poll(() => sockets.length).toBe(1);
    abort.abort();
    expect((await attempt).name).toBe('AbortError');
  });

  test('an unknown host key is refused before any login', async () => {
    const server = await serve();
    const error = await failure(reach(server.target, settingsOf(transport, '')));
    expect(error).toMatchObject({ code: 'SSH_HOST_KEY_UNKNOWN', node: 'worker-1' });
    expect(server.received).not.toContain('USERAUTH_REQUEST');
  });

  test.each([
    ['changed', (port: number) => `[127.0.0.1]:${port} ${generateKey('ed25519').publicKey}\n`],
    ['revoked', (_port: number) => `@revoked * ${KEYS.ed25519.publicKey}\n`],
  ])('a %s host key is refused', async (how, line) => {
    const server = await serve();
    const known = line(server.target.port) + (line(0).startsWith('@') ? server.knownHosts : '');
    const error = await failure(reach(server.target, settingsOf(transport, known)));
    expect(error.code).toBe('SSH_HOST_KEY_CHANGED');
    expect(error.message).toContain(how === 'changed' ? KEYS.ed25519.fingerprint : 'revoke');
    // Of the text that was given, not of a file that the run has made.
    const place = transport === 'openssh' ? /`ssh-known-hosts`:\d/ : /line \d+ of known_hosts/;
    // The client names no line for a key that is revoked.
    expect(error.message).toMatch(how === 'revoked' && transport === 'openssh' ? /was revoked/ : place);
  });

  test('a refused key is told', async () => {
    const server = await serve({ authenticate: context => context.reject(['publickey']) });
    const error = await failure(login(server));
    expect(error).toMatchObject({ code: 'SSH_AUTH_FAILED', node: 'worker-1' });
  });

  test('a chain of jump hosts is gone through, each by its own host key', async () => {
    const options = { forwards: true };
    const [first, second, node] = [await serve(options), await serve(options), await serve({ exec: count })];
    const target = { ...node.target, jump: [first.target, second.target] };
    const known = [first, second, node].map(({ knownHosts }) => knownHosts);
    const connection = await reach(target, settingsOf(transport, known.join('')));
    expect(await connection.run(['wc'], { stdin: 'hello' })).toMatchObject({ stdout: '5' });
    const error = await failure(reach(target, settingsOf(transport, `${known[0]}${known[2]}`)));
    expect(error).toMatchObject({ code: 'SSH_HOST_KEY_UNKNOWN', node: 'worker-1' });
    expect(error.message).toContain(`${second.target.port}`);
  });
});

test('openssh keeps what it needs in files that only the user can read, below the directory of the run', async () => {
  const server = await serve({ exec: count });
  const directory = scratch();
  const transport = openTransport(settingsOf('openssh', server.knownHosts), directory);
  const connection = await transport.connect(server.target, new AbortController().signal);
  await connection.run(['true']);
  const place = join(directory, 'ssh');
  expect(statSync(place).mode & 0o777).toBe(0o700);
  for (const name of ['key', 'known_hosts', 'config']) expect(statSync(join(place, name)).mode & 0o777).toBe(0o600);
  expect(readFileSync(join(place, 'config'), 'utf8')).toMatch(/^BatchMode yes\nStrictHostKeyChecking yes\n/);
  await connection.close();
  // The socket goes with the connection.
  expect(readdirSync(place).sort()).toEqual(['config', 'key', 'known_hosts']);
});

test('openssh’s processes of a run that was killed can be ended by those who know its directory', async () => {
  const server = await serve({ exec: () => {} });
  const directory = scratch();
  const transport = openTransport(settingsOf('openssh', server.knownHosts), directory);
  const connection = await transport.connect(server.target, new AbortController().signal);
  const running = failure(connection.run(['ctr']));
  await server.arrival('CHANNEL_REQUEST');
  await endLeftClients(directory);
  expect(await running).toMatchObject({ code: 'SSH_LOST' });
  await expect.poll(() => server.sockets.every(socket => socket.destroyed)).toBe(true);
  await endLeftClients(join(directory, 'nothing'));
});

import { once } from 'node:events';
import { Readable } from 'node:stream';
import { expect, test } from 'vitest';
import { failure, login, serve } from './login.ts';
import type { Exec } from './server.ts';

const MIB = 1024 * 1024;

/** A source without end. */
function endless(): Readable {
  return new Readable({
    read() {
      this.push(Buffer.alloc(64 * 1024));
    },
  });
}

test('a command gets its arguments and stdin, and gives both outputs and its exit code', async () => {
  const server = await serve({
    exec: ({ command, channel }) => {
      channel.stderr.write(`ran ${command}\n`);
      channel.pipe(channel, { end: false });
      channel.on('end', () => {
        channel.exit(3);
        channel.end();
      });
    },
  });
  const connection = await login(server);
  const sent: number[] = [];
  const result = await connection.run(['cat', 'a b'], { stdin: 'hello ü', onStdinBytes: bytes => sent.push(bytes) });
  expect(result).toEqual({ code: 3, stdout: 'hello ü', stderr: "ran cat 'a b'\n" });
  expect(sent).toEqual([8]);
});

test('a large stream arrives whole, in order, and its progress is told', async () => {
  const size = 20 * MIB;
  let receivedBytes = 0;
  let isInOrder = true;
  const server = await serve({
    exec: ({ channel }) => {
      channel.on('data', (chunk: Buffer) => {
        for (let index = 0; index < chunk.length; index += 4093) {
          if (chunk[index] !== Math.floor((receivedBytes + index) / 65_536) % 251) isInOrder = false;
        }
        receivedBytes += chunk.length;
      });
      channel.on('end', () => {
        channel.exit(0);
        channel.end();
      });
    },
  });
  const connection = await login(server);
  const chunks = Array.from({ length: size / 65_536 }, (_, index) => Buffer.alloc(65_536, index % 251));
  let sentBytes = 0;
  const options = { stdin: Readable.from(chunks), onStdinBytes: (bytes: number) => (sentBytes = bytes) };
  expect(await connection.run(['cat'], options)).toMatchObject({ code: 0 });
  expect({ receivedBytes, isInOrder, sentBytes }).toEqual({ receivedBytes: size, isInOrder: true, sentBytes: size });
  expect(chunks.every(chunk => chunk.length === 0)).toBe(true); // their memory has been given back
});

test('a source is read no faster than the node takes it', async () => {
  let readBytes = 0;
  const source = new Readable({
    read() {
      readBytes += 65_536;
      this.push(Buffer.alloc(65_536));
    },
  });
  const server = await serve({ exec: () => {} });
  const connection = await login(server);
  const abort = new AbortController();
  const running = failure(connection.run(['import'], { stdin: source, signal: abort.signal }));
  let before: number;
  do {
    before = readBytes;
    await connection.run(['true'], { signal: AbortSignal.timeout(100) }).catch(() => {});
  } while (before === 0 || readBytes !== before);
  abort.abort();
  await running;
  expect(readBytes).toBeLessThan(8 * MIB);
});

test('a command that is killed has a code other than 0, and its signal', async () => {
  const server = await serve({
    exec: ({ channel }) => {
      channel.exit('KILL', false, 'killed');
      channel.end();
    },
  });
  const connection = await login(server);
  expect(await connection.run(['ctr'])).toMatchObject({ code: 137, signal: 'SIGKILL' });
});

test('a channel that closes without an exit status is no success', async () => {
  const server = await serve({ exec: ({ channel }) => channel.end() });
  const connection = await login(server);
  const error = await failure(connection.run(['ctr']));
  expect(error).toMatchObject({ code: 'SSH_LOST', node: 'worker-1' });
  expect(error.message).toContain('without an exit status');
});

test('a server that runs no commands is named', async () => {
  const server = await serve({ exec: 'refuse' });
  const connection = await login(server);
  const stdin = endless();
  const error = await failure(connection.run(['ctr'], { stdin }));
  expect(error).toMatchObject({ code: 'REMOTE_COMMAND_FAILED', node: 'worker-1' });
  expect(stdin.destroyed).toBe(true);
  expect(error.message).toContain('refused to start ctr');
});

const lost: readonly (readonly [string, (exec: Exec) => void])[] = [
  ['reset', ({ socket }) => socket.resetAndDestroy()],
  ['closed', ({ socket }) => socket.end()],
  ['ended by SSH', ({ client }) => client.end()],
  [
    'reset after an exit status',
    ({ channel, socket }) => {
      channel.exit(0);
      socket.resetAndDestroy();
    },
  ],
];

test.each(lost)('a connection that breaks while a command runs is no success: %s', async (_, exec) => {
  const server = await serve({ exec });
  const connection = await login(server);
  const error = await failure(connection.run(['ctr']));
  expect(error).toMatchObject({ code: 'SSH_LOST', node: 'worker-1' });
  expect(await failure(connection.run(['ctr']))).toMatchObject({ code: 'SSH_LOST' });
});

test('a connection that breaks during an upload ends the source too', async () => {
  const server = await serve({ exec: ({ channel, socket }) => channel.once('data', () => socket.resetAndDestroy()) });
  const connection = await login(server);
  const stdin = endless();
  expect(await failure(connection.run(['ctr'], { stdin }))).toMatchObject({ code: 'SSH_LOST' });
  expect(stdin.destroyed).toBe(true);
});

test('a source that fails half way cuts the command: TERM, and no end that looks complete', async () => {
  const server = await serve({ exec: ({ channel }) => channel.resume() });
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
  expect(server.received).toContain('signal TERM');
  expect(server.received).not.toContain('CHANNEL_EOF');
  expect(server.sockets[0]?.destroyed).toBe(false);
});

test('a source that has failed before is refused, and one that fails while the channel opens is heard', async () => {
  const server = await serve();
  const connection = await login(server);
  const stdin = new Readable({ read() {} });
  const running = failure(connection.run(['ctr'], { stdin }));
  stdin.destroy(new Error('the disk broke'));
  expect((await running).message).toBe('the disk broke');
  expect((await failure(connection.run(['ctr'], { stdin }))).message).toBe('the disk broke');
});

test('a command that ends early, with stdin unread, gives its exit code and what it said', async () => {
  const server = await serve({
    exec: ({ channel }) => {
      channel.stderr.write('ctr: no space left on device\n');
      channel.exit(1);
      channel.end();
    },
  });
  const connection = await login(server);
  const stdin = endless();
  const result = await connection.run(['ctr'], { stdin });
  expect(result).toEqual({ code: 1, stdout: '', stderr: 'ctr: no space left on device\n' });
  expect(stdin.destroyed).toBe(true);
});

test('a command that prints megabytes while it receives does not block', async () => {
  const server = await serve({
    exec: ({ channel }) => {
      // ssh2's server loses a part when both outputs wait for room, so they follow one another.
      const printed = new Promise<void>(resolve => {
        channel.stderr.write(Buffer.alloc(5 * MIB, 'e'), () =>
          channel.write(Buffer.alloc(5 * MIB, 'o'), () => resolve()),
        );
      });
      channel.resume();
      channel.on('end', async () => {
        await printed;
        channel.exit(0);
        channel.end();
      });
    },
  });
  const connection = await login(server);
  const stdin = Readable.from(Array.from({ length: 80 }, () => Buffer.alloc(64 * 1024)));
  const { code, stdout, stderr } = await connection.run(['ctr'], { stdin });
  expect([code, stdout.length, stderr.length]).toEqual([0, 5 * MIB, 5 * MIB]);
});

test('output over the limit is an error, not a part of the output', async () => {
  const server = await serve({ exec: ({ channel }) => channel.write(Buffer.alloc(MIB)) });
  const connection = await login(server);
  const error = await failure(connection.run(['ctr'], { maxOutputBytes: 1000 }));
  expect(error).toMatchObject({ code: 'REMOTE_COMMAND_FAILED', node: 'worker-1' });
  expect(error.message).toBe('ctr printed more than 1000 bytes');
  await server.arrival('CHANNEL_CLOSE');
});

test('an abort ends a command that never answers, also after its stdin has ended, and not the connection', async () => {
  let runs = 0;
  const server = await serve({
    exec: ({ channel }) => {
      runs += 1;
      if (runs > 1) {
        channel.exit(0);
        channel.end();
      }
    },
  });
  const connection = await login(server);
  const abort = new AbortController();
  const running = failure(connection.run(['ctr'], { signal: abort.signal }));
  await server.arrival('CHANNEL_EOF');
  abort.abort();
  expect((await running).name).toBe('AbortError');
  await server.arrival('CHANNEL_CLOSE');
  expect(server.received).toContain('signal TERM');
  expect(await connection.run(['true'])).toMatchObject({ code: 0 });
});

test('a command that puts things in order when its input ends gets no signal, of which it would die', async () => {
  const server = await serve({ exec: () => {} });
  const connection = await login(server);
  const abort = new AbortController();
  const options = { stdin: endless(), signal: abort.signal, endsWithInput: true };
  const running = failure(connection.run(['ctr'], options));
  await server.arrival('CHANNEL_DATA');
  abort.abort();
  expect((await running).name).toBe('AbortError');
  await server.arrival('CHANNEL_CLOSE');
  expect(server.received).not.toContain('signal TERM');
  expect(server.received).not.toContain('CHANNEL_EOF');
});

test('an abort of the connection ends its commands, and then itself', async () => {
  const server = await serve({ exec: () => {} });
  const abort = new AbortController();
  const connection = await login(server, { signal: abort.signal });
  const runs = [failure(connection.run(['ctr'])), failure(connection.run(['ctr'], { stdin: endless() }))];
  await server.arrival('CHANNEL_DATA');
  const [socket] = server.sockets;
  const closed = socket && once(socket, 'close');
  abort.abort();
  for (const error of await Promise.all(runs)) expect(error.name).toBe('AbortError');
  await closed;
  expect(server.received.filter(message => message === 'signal TERM')).toHaveLength(2);
  expect((await failure(connection.run(['true']))).name).toBe('AbortError');
});

test('a node that goes silent is noticed', async () => {
  const server = await serve({ exec: ({ socket }) => socket.pause() });
  const connection = await login(server, { keepaliveIntervalMs: 50 });
  const error = await failure(connection.run(['ctr']));
  expect(error).toMatchObject({ code: 'SSH_LOST', node: 'worker-1' });
  expect(error.message).toContain('has not answered for 0.15 s');
});

test('commands run side by side on one connection', async () => {
  const server = await serve({
    exec: ({ command, channel }) => {
      channel.write(command);
      channel.exit(0);
      channel.end();
    },
  });
  const connection = await login(server);
  const results = await Promise.all(['a', 'b', 'c'].map(name => connection.run([name])));
  expect(results.map(result => result.stdout)).toEqual(['a', 'b', 'c']);
});

test('commands wait for one another where the server has room for one', async () => {
  let atOnce = 0;
  const server = await serve({
    maxSessions: 1,
    exec: ({ command, channel }) => {
      atOnce += 1;
      channel.resume();
      channel.on('end', () => {
        channel.write(`${command} ${atOnce}`);
        channel.exit(0);
        channel.end();
        atOnce -= 1;
      });
    },
  });
  const connection = await login(server);
  const results = await Promise.all(['a', 'b', 'c'].map(name => connection.run([name])));
  expect(results.map(result => result.stdout).sort()).toEqual(['a 1', 'b 1', 'c 1']);
});

test('a server that opens no channel at all is not asked for ever', async () => {
  const server = await serve({ maxSessions: 0 });
  const connection = await login(server);
  const error = await failure(connection.run(['ctr']));
  expect(error).toMatchObject({ code: 'REMOTE_COMMAND_FAILED', node: 'worker-1' });
  expect(error.message).toContain('refused to start ctr');
  expect(server.received.filter(message => message === 'CHANNEL_OPEN')).toHaveLength(3);
});

test('a preamble comes before stdin, and is not counted', async () => {
  const server = await serve({
    exec: ({ channel }) => {
      channel.pipe(channel, { end: false });
      channel.on('end', () => {
        channel.exit(0);
        channel.end();
      });
    },
  });
  const connection = await login(server);
  const sent: number[] = [];
  const onStdinBytes = (bytes: number) => sent.push(bytes);
  const result = await connection.run(['sudo'], { preamble: 'secret\n', stdin: 'image', onStdinBytes });
  expect([result.stdout, sent]).toEqual(['secret\nimage', [5]]);
  expect(await connection.run(['sudo'], { preamble: 'secret\n' })).toMatchObject({ stdout: 'secret\n' });
});

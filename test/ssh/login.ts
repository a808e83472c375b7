import { onTestFinished } from 'vitest';
import type { SideloadError } from '../../src/errors.ts';
import { connect, type SshConnection, type SshOptions, type SshTarget } from '../../src/ssh/connect.ts';
import { hostKeyPolicy } from '../../src/ssh/host-keys.ts';
import {
  CREDENTIALS,
  type Exec,
  type ServerOptions,
  startServer,
  startTcp,
  type TestServer,
  type TestTcp,
} from './server.ts';

/** A server that ends with the test. */
export async function serve(options?: ServerOptions): Promise<TestServer> {
  const server = await startServer(options);
  onTestFinished(() => server.close());
  return server;
}

/** A TCP server that ends with the test. */
export async function serveTcp(onConnection: Parameters<typeof startTcp>[0]): Promise<TestTcp> {
  const server = await startTcp(onConnection);
  onTestFinished(() => server.close());
  return server;
}

/** A target for a server that is no SSH server. */
export function targetOf(port: number): SshTarget {
  return { label: 'worker-1', host: '127.0.0.1', port, user: 'deploy' };
}

/** A connection that ends with the test. */
export async function login(server: TestServer, options: Partial<SshOptions> = {}): Promise<SshConnection> {
  const hostKeys = hostKeyPolicy({ knownHosts: server.knownHosts });
  const connection = await connect(server.target, { ...optionsWith(), hostKeys, ...options });
  onTestFinished(() => connection.close());
  return connection;
}

export function optionsWith(options: Partial<SshOptions> = {}): SshOptions {
  return {
    authentication: { key: CREDENTIALS },
    hostKeys: hostKeyPolicy({}),
    connectTimeoutMs: 10_000,
    signal: new AbortController().signal,
    ...options,
  };
}

/** The error of something that must fail. */
export async function failure(promise: Promise<unknown>): Promise<SideloadError> {
  return promise.then(
    () => {
      throw new Error('it succeeded');
    },
    (error: SideloadError) => error,
  );
}

/** A program for a server: says how much it has read. */
export function count({ channel }: Exec): void {
  let bytes = 0;
  channel.on('data', (chunk: Buffer) => (bytes += chunk.length));
  channel.on('end', () => {
    channel.write(String(bytes));
    channel.exit(0);
    channel.end();
  });
}

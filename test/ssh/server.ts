import { execFileSync } from 'node:child_process';
import { EventEmitter, once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { type AddressInfo, connect as connectTcp, createServer, type Socket, type Server as TcpServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import ssh2, { type AuthContext, type Connection, type ServerChannel } from 'ssh2';
import type { SshTarget } from '../../src/ssh/connect.ts';
import { parsePrivateKey, type SshCredentials } from '../../src/ssh/key.ts';

type KeyKind = 'ed25519' | 'rsa' | 'ecdsa';

export interface KeyPair {
  readonly privateKey: string;
  /** `TYPE BASE64`, as in known_hosts and authorized_keys. */
  readonly publicKey: string;
  /** As `ssh-keygen -l` prints it. */
  readonly fingerprint: string;
}

/** A key made by the real `ssh-keygen`. */
export function generateKey(kind: KeyKind, passphrase = '', extra: readonly string[] = []): KeyPair {
  const folder = mkdtempSync(join(tmpdir(), 'ssh-test-'));
  const file = join(folder, 'key');
  try {
    execFileSync('ssh-keygen', ['-q', '-t', kind, '-N', passphrase, '-C', 'test', '-f', file, ...extra]);
    const printed = execFileSync('ssh-keygen', ['-l', '-f', `${file}.pub`], { encoding: 'utf8' });
    return {
      privateKey: readFileSync(file, 'utf8'),
      publicKey: readFileSync(`${file}.pub`, 'utf8').split(' ').slice(0, 2).join(' '),
      fingerprint: printed.split(' ')[1] ?? '',
    };
  } finally {
    rmSync(folder, { recursive: true });
  }
}

/** Keys that any number of tests can share: one for the user, and one of each kind for the server. */
export const KEYS = {
  user: generateKey('ed25519'),
  ed25519: generateKey('ed25519'),
  rsa: generateKey('rsa'),
  ecdsa: generateKey('ecdsa'),
};

export const CREDENTIALS: SshCredentials = parsePrivateKey(KEYS.user.privateKey);

/** One command that a client wants to run. */
export interface Exec {
  readonly command: string;
  readonly channel: ServerChannel;
  readonly client: Connection;
  readonly socket: Socket;
}

export interface ServerOptions {
  /** Default: ed25519 only. */
  readonly hostKeys?: readonly KeyPair[];
  /** Default: accepts the user's key. */
  readonly authenticate?: (context: AuthContext) => void;
  /** Default: reads all of stdin and exits 0. `refuse`: the server does not start any command. */
  readonly exec?: ((exec: Exec) => void) | 'refuse';
  /** How many channels for commands it has open at a time. */
  readonly maxSessions?: number;
  /** Whether it is a jump host: it connects its clients to where they ask it to. */
  readonly forwards?: boolean;
  /** Where it listens; 127.0.0.1 by default. */
  readonly address?: string;
}

export interface TestServer {
  readonly target: SshTarget;
  /** A known_hosts line for each host key. */
  readonly knownHosts: string;
  /** Every connection so far, raw: to pause, reset or destroy. */
  readonly sockets: readonly Socket[];
  /** Protocol messages of clients, in order, such as `CHANNEL_EOF`, and signals, such as `signal TERM`. */
  readonly received: readonly string[];
  /** Settles when the message has arrived, also when it had before. */
  arrival(message: string): Promise<void>;
  /** Destroys all connections and stops listening. */
  close(): Promise<void>;
}

/** An SSH server inside this process, on a free port of 127.0.0.1, that behaves as badly as it is told to. */
export async function startServer(options: ServerOptions = {}): Promise<TestServer> {
  const {
    hostKeys = [KEYS.ed25519],
    authenticate = acceptUserKey,
    exec = consume,
    forwards = false,
    maxSessions = 10,
    address,
  } = options;
  const received: string[] = [];
  const arrivals = new EventEmitter().setMaxListeners(0);
  const record = (message: string) => {
    received.push(message);
    arrivals.emit(message);
  };
  const ssh = new ssh2.Server({
    hostKeys: hostKeys.map(key => key.privateKey),
    debug: line => {
      const [, message, content] = /Inbound: (?:Received )?([A-Z_]+)(?: \(([^)]*))?/.exec(line) ?? [];
      if (message !== undefined) record(message);
      const [, name] = /signal: (\w+)$/.exec(content ?? '') ?? [];
      if (name !== undefined) record(`signal ${name}`);
    },
  });
  const tcp = await startTcp(socket => ssh.injectSocket(socket), address);
  ssh.on('connection', client => {
    const socket = tcp.sockets.at(-1) as Socket;
    client.on('error', () => {});
    client.on('authentication', authenticate);
    client.on('tcpip', (accept, reject, { destIP, destPort }) => {
      if (!forwards) return reject();
      const onward = connectTcp(destPort, destIP);
      onward.once('error', () => reject());
      onward.once('connect', () => {
        const channel = accept();
        channel.on('error', () => {});
        onward.removeAllListeners('error').on('error', () => channel.close());
        channel.pipe(onward).pipe(channel);
      });
    });
    let sessions = 0;
    client.on('session', (accept, reject) => {
      if (sessions >= maxSessions) return reject();
      sessions += 1;
      const session = accept();
      session.on('close', () => {
        sessions -= 1;
      });
      session.on('exec', (acceptExec, rejectExec, { command }) => {
        if (exec === 'refuse') return rejectExec();
        const channel = acceptExec();
        channel.on('error', () => {});
        exec({ command, channel, client, socket });
      });
    });
  });
  return {
    target: { label: 'worker-1', host: '127.0.0.1', port: tcp.port, user: 'deploy' },
    knownHosts: hostKeys.map(key => `[127.0.0.1]:${tcp.port} ${key.publicKey}\n`).join(''),
    sockets: tcp.sockets,
    received,
    arrival: async message => {
      if (!received.includes(message)) await once(arrivals, message);
    },
    close: () => tcp.close(),
  };
}

export interface TestTcp {
  readonly port: number;
  readonly sockets: readonly Socket[];
  /** Destroys all connections and stops listening. */
  close(): Promise<void>;
}

/** A TCP server on a free port, for peers that do not speak SSH at all. */
export async function startTcp(onConnection: (socket: Socket) => void, address = '127.0.0.1'): Promise<TestTcp> {
  const sockets: Socket[] = [];
  const server: TcpServer = createServer(socket => {
    sockets.push(socket);
    socket.on('error', () => {});
    onConnection(socket);
  });
  server.listen(0, address);
  await once(server, 'listening');
  return {
    port: (server.address() as AddressInfo).port,
    sockets,
    close: async () => {
      for (const socket of sockets) socket.destroy();
      await new Promise(resolve => server.close(resolve));
    },
  };
}

function acceptUserKey(context: AuthContext): void {
  if (context.method === 'publickey') context.accept();
  else context.reject(['publickey']);
}

function consume({ channel }: Exec): void {
  channel.resume();
  channel.on('end', () => {
    channel.exit(0);
    channel.end();
  });
}

import { type ChildProcess, spawn } from 'node:child_process';
import { watch } from 'node:fs';
import { access, mkdir, readdir, writeFile } from 'node:fs/promises';
import { userInfo } from 'node:os';
import { join } from 'node:path';
import { childEnvironment } from '../child-environment.ts';
import { messageOf, SideloadError } from '../errors.ts';
import type { SshConnection, SshHost, SshTarget } from './connect.ts';
import { opensshError } from './openssh-error.ts';
import { type Client, runByClient } from './openssh-run.ts';
import { addressOf } from './session.ts';
import type { SshTransport } from './transport.ts';

/** What the machine's own client is told; the rest it has from its own configuration. */
export interface OpensshSettings {
  /** Known hosts in place of the machine's own. */
  readonly knownHosts: { readonly text: string } | { readonly file: string } | undefined;
  readonly key: { readonly text: string } | { readonly file: string } | undefined;
  /** The socket of an ssh-agent, or `none`; undefined leaves it to the client. */
  readonly agent: string | undefined;
  readonly connectTimeoutMs: number;
}

const CLOSE_TIMEOUT_MS = 2000;

/**
 * The machine's OpenSSH client: one process per node holds the connection, and each command is another that goes through
 * it (`ControlMaster`). It reads the machine's configuration after ours, whose values come first and so are those that
 * count, at jump hosts too: `ssh` hands its file on to them, and no option of its command line.
 *
 * @param directory of this run alone; configuration, given key and given known hosts are written there (0600)
 */
export function openssh(settings: OpensshSettings, directory: string): SshTransport {
  const place = join(directory, 'ssh');
  let ready: Promise<void> | undefined;
  let count = 0;
  return {
    connect: async (target, signal) => {
      ready ??= writeConfiguration(settings, place);
      await ready;
      count += 1;
      return await connectByClient(target, { ...settings, place, socket: `${SOCKET}${count}`, signal });
    },
  };
}

async function writeConfiguration({ knownHosts, key, agent, connectTimeoutMs }: OpensshSettings, place: string) {
  await mkdir(place, { mode: 0o700 });
  const secret = async (name: string, text: string) => {
    const file = join(place, name);
    await writeFile(file, text, { mode: 0o600, flag: 'wx' });
    return file;
  };
  const fileOf = async (given: { readonly text: string } | { readonly file: string }, name: string) =>
    'file' in given ? given.file : await secret(name, given.text);
  const lines = [
    'BatchMode yes',
    'StrictHostKeyChecking yes',
    'NoHostAuthenticationForLocalhost no',
    'VerifyHostKeyDNS no',
    'UpdateHostKeys no',
    `ConnectTimeout ${Math.ceil(connectTimeoutMs / 1000)}`,
    'ConnectionAttempts 1',
    'ServerAliveInterval 15',
    'ServerAliveCountMax 3',
    'LogLevel ERROR',
    // At the node these are set on the command line; a jump host's connection ends with that of its node.
    'ControlMaster no',
    'ControlPath none',
    'ControlPersist no',
    'ForwardAgent no',
    'ForwardX11 no',
    'ClearAllForwardings yes',
    'PermitLocalCommand no',
    'RemoteCommand none',
    'RequestTTY no',
    'ForkAfterAuthentication no',
    'StdinNull no',
  ];
  if (knownHosts !== undefined) {
    lines.push(`UserKnownHostsFile ${quoted(await fileOf(knownHosts, 'known_hosts'))}`);
    lines.push('GlobalKnownHostsFile /dev/null', 'KnownHostsCommand none');
  }
  if (key !== undefined) {
    lines.push(`IdentityFile ${quoted(await fileOf(key, 'key'))}`, 'IdentitiesOnly yes', 'IdentityAgent none');
  } else if (agent !== undefined) {
    lines.push(`IdentityAgent ${agent === 'none' ? 'none' : quoted(agent)}`);
  }
  lines.push(...homeConfiguration(), 'Include /etc/ssh/ssh_config');
  await secret('config', `${lines.join('\n')}\n`);
}

/** The user's own; ssh looks for it in the home directory of the system's table, whatever HOME says. */
function homeConfiguration(): readonly string[] {
  try {
    return [`Include ${quoted(join(userInfo().homedir, '.ssh', 'config'))}`];
  } catch {
    return []; // A user whom the machine does not know has none.
  }
}

/** A path as ssh_config(5) reads it: in double quotes, with `%` for its tokens. */
function quoted(path: string): string {
  return `"${path.replaceAll('%', '%%').replaceAll(/["\\]/g, '\\$&')}"`;
}

interface ClientOptions extends OpensshSettings {
  readonly place: string;
  /** Name of the socket, in `place`: as a name it is short enough for a socket, wherever the directory is. */
  readonly socket: string;
  readonly signal: AbortSignal;
}

async function connectByClient(target: SshTarget, options: ClientOptions): Promise<SshConnection> {
  const { place, socket, signal, connectTimeoutMs } = options;
  const { label, jump = [] } = target;
  signal.throwIfAborted();
  const address = addressOf(target);
  const argv = [
    ...['-F', 'config', '-M', '-S', socket, '-N', '-T'],
    ...(jump.length === 0 ? [] : ['-J', jump.map(hopText).join(',')]),
    ...destination(target),
  ];
  const master = startGuarded(argv, place);
  let stderr = '';
  master.stderr?.on('data', (chunk: Buffer) => {
    stderr = (stderr + chunk.toString()).slice(-8000);
  });
  const ended = new AbortController();
  const exited = new Promise<void>(resolve => {
    const notStarted = (why: string) => {
      const message = `the program \`ssh\` cannot be started on the runner: ${why}`;
      const hint = 'Install OpenSSH’s client there, or leave out `ssh-transport`.';
      ended.abort(new SideloadError('INPUT_INVALID', message, { hint }));
      resolve();
    };
    // The client has ended: its guard waits for us only.
    master.stderr?.once('end', () => master.stdin?.end());
    master.once('error', error => notStarted(messageOf(error)));
    master.once('close', code => {
      if (code === NO_SUCH_PROGRAM) return notStarted('it is not there');
      const said = stderr.trim() || 'it was closed at the other end';
      const message = `The connection to ${address} broke off: ${said.slice(-500)}`;
      ended.abort(new SideloadError('SSH_LOST', message, { node: label }));
      resolve();
    });
  });
  const stop = async () => {
    master.stdin?.end();
    const timer = setTimeout(() => killGroup(master), CLOSE_TIMEOUT_MS);
    await exited;
    clearTimeout(timer);
  };

  try {
    await established();
  } catch (error) {
    await stop();
    throw error;
  }

  async function established(): Promise<void> {
    let finish: (failure?: { readonly error: unknown }) => void = () => {};
    const outcome = new Promise<void>((resolve, reject) => {
      finish = failure => (failure === undefined ? resolve() : reject(failure.error));
    });
    // The socket appears, under its name at once, when the login is through.
    const isThere = () =>
      access(join(place, socket)).then(
        () => finish(),
        () => {},
      );
    const watcher = watch(place, () => void isThere());
    // A file of this run is nothing to anybody else.
    const said = () => stderr.replaceAll(join(place, 'known_hosts'), '`ssh-known-hosts`');
    const late = () =>
      finish({ error: opensshError(`${said()}\nno login within ${connectTimeoutMs / 1000} s`, target) });
    const timer = setTimeout(late, connectTimeoutMs * (jump.length + 1));
    const onAbort = () => finish({ error: signal.reason });
    signal.addEventListener('abort', onAbort);
    const onEnded = () => {
      const { reason } = ended.signal;
      finish({ error: reason.code === 'INPUT_INVALID' ? reason : opensshError(said(), target) });
    };
    ended.signal.addEventListener('abort', onEnded);
    try {
      void isThere();
      await outcome;
      signal.throwIfAborted();
    } finally {
      watcher.close();
      clearTimeout(timer);
      signal.removeEventListener('abort', onAbort);
      ended.signal.removeEventListener('abort', onEnded);
    }
  }

  let closing: Promise<void> | undefined;
  const end = (reason: unknown): Promise<void> => {
    closing ??= (async () => {
      ended.abort(reason);
      await stop();
    })();
    return closing;
  };
  const onAbort = () => void end(signal.reason);
  signal.addEventListener('abort', onAbort);
  void exited.then(() => signal.removeEventListener('abort', onAbort));

  const through = ['-F', 'config', '-S', socket];
  const client: Client = {
    label,
    ended: ended.signal,
    running: new Set(),
    start: line =>
      startClient([...through, ...ONLY_THROUGH_IT, ...destination(target), line], place, ['pipe', 'pipe', 'pipe']),
    isAlive: async () =>
      (await codeOf(startClient([...through, '-O', 'check', ...destination(target)], place, []))) === 0,
  };
  return {
    target,
    prompt: { withinMs: connectTimeoutMs, isSeen: false },
    run: (command, runOptions = {}) => runByClient(client, command, runOptions),
    close: () => end(new SideloadError('SSH_LOST', `The connection to ${address} was closed here`, { node: label })),
  };
}

/** Ends the clients of a run that was killed before it could: they live on without it. Never rejects. */
export async function endLeftClients(directory: string): Promise<void> {
  const place = join(directory, 'ssh');
  const names = await readdir(place).catch(() => []);
  await Promise.all(
    names
      .filter(name => name.startsWith(SOCKET))
      .map(async name => {
        const client = startClient(['-F', 'none', '-S', name, '-O', 'exit', '--', 'node'], place, []);
        await codeOf(client);
      }),
  );
}

/** How the names of sockets begin. */
const SOCKET = 'node-';

/** Without the connection that is there, a client would open one of its own; this one leads nowhere. */
const ONLY_THROUGH_IT = ['-T', '-o', 'ControlMaster=no', '-o', 'ProxyCommand=false'];

/** In a session of its own: what a terminal sends to the foreground (Ctrl-C) is for us, who still have to clean up. */
function startClient(argv: readonly string[], place: string, stdio: ('pipe' | 'ignore')[]): ChildProcess {
  return spawn('ssh', argv, { ...clientOptions(place), stdio: stdio.length === 0 ? 'ignore' : stdio });
}

/** The exit code of a client that has only a word to say to the one that holds the connection. */
async function codeOf(client: ChildProcess): Promise<number | undefined> {
  const timer = setTimeout(() => client.kill('SIGKILL'), CLOSE_TIMEOUT_MS);
  const code = await new Promise<number | undefined>(resolve => {
    client.once('error', () => resolve(undefined));
    client.once('close', ended => resolve(ended ?? undefined));
  });
  clearTimeout(timer);
  return code;
}

function clientOptions(place: string) {
  return { cwd: place, detached: true, env: childEnvironment({ SSH_ASKPASS_REQUIRE: 'never' }) };
}

/**
 * Runs a client for as long as standard input is open, and ends it with it: whoever is killed cannot end what it has started,
 * and a client that holds a connection would live on with it.
 */
const WHILE_OPEN =
  'command -v "$1" >/dev/null || exit 127; "$@" </dev/null & exec 2>/dev/null; read -r line; kill $!; wait $!';
const NO_SUCH_PROGRAM = 127;

function startGuarded(argv: readonly string[], place: string): ChildProcess {
  const child = spawn('/bin/sh', ['-c', WHILE_OPEN, 'sh', 'ssh', ...argv], {
    ...clientOptions(place),
    stdio: ['pipe', 'ignore', 'pipe'],
  });
  child.stdin?.on('error', () => {});
  return child;
}

/** A client and its guard, which have a session of their own. */
function killGroup({ pid }: ChildProcess): void {
  try {
    if (pid !== undefined) process.kill(-pid, 'SIGKILL');
  } catch {
    // They have ended meanwhile.
  }
}

/** Of user and port what the user has said; the client has its own defaults. */
function destination({ host, user, port, given = { user, port } }: SshHost): readonly string[] {
  return [
    ...(given.user === undefined ? [] : ['-l', given.user]),
    ...(given.port === undefined ? [] : ['-p', String(given.port)]),
    '--',
    host,
  ];
}

function hopText({ host, user, port, given = { user, port } }: SshHost): string {
  const name = host.includes(':') ? `[${host}]` : host;
  return `${given.user === undefined ? '' : `${given.user}@`}${name}${given.port === undefined ? '' : `:${given.port}`}`;
}

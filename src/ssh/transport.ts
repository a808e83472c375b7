import type { SshAuthentication } from './authentication.ts';
import { connect, type SshConnection, type SshTarget } from './connect.ts';
import type { HostKeyPolicy } from './host-keys.ts';
import { jumpHosts } from './jump.ts';
import { type OpensshSettings, openssh } from './openssh.ts';

/** What all connections of a run have in common. */
export interface SshSettings {
  readonly authentication: SshAuthentication;
  readonly hostKeys: HostKeyPolicy;
  readonly connectTimeoutMs: number;
  /** For the machine's own client in place of ours. */
  readonly openssh?: OpensshSettings | undefined;
}

/** The way to the nodes. */
export interface SshTransport {
  /** @throws SideloadError as {@link connect} does; the signal's reason on abort. The signal also ends the connection. */
  connect(target: SshTarget, signal: AbortSignal): Promise<SshConnection>;
}

/** Says of a node that it is waited for, until the promise settles, and what it does; see {@link SshConnection.waiting}. */
type Waiting = <T>(node: string, what: string, act: Promise<T>) => Promise<T>;

/**
 * @param directory of the run, for files of a client that needs some
 * @param waiting by default nobody is told
 */
export function openTransport(
  settings: SshSettings,
  directory: string,
  waiting: Waiting = (_node, _what, act) => act,
): SshTransport {
  const transport = transportOf(settings, directory);
  return {
    connect: async (target, signal) => ({
      ...(await waiting(target.label, 'logging in', transport.connect(target, signal))),
      waiting: (what, act) => waiting(target.label, what, act),
    }),
  };
}

function transportOf(settings: SshSettings, directory: string): SshTransport {
  if (settings.openssh !== undefined) return openssh(settings.openssh, directory);
  const jumps = jumpHosts(settings);
  return { connect: (target, signal) => connect(target, { ...settings, jumps, signal }) };
}

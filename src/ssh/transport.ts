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

/** @param directory of the run, for files of a client that needs some */
export function openTransport(settings: SshSettings, directory: string): SshTransport {
  if (settings.openssh !== undefined) return openssh(settings.openssh, directory);
  const jumps = jumpHosts(settings);
  return { connect: (target, signal) => connect(target, { ...settings, jumps, signal }) };
}

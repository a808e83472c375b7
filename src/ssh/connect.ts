import { toSideloadError } from '../errors.ts';
import type { SshAuthentication } from './authentication.ts';
import type { HostKeyPolicy } from './host-keys.ts';
import { type JumpHosts, jumpHosts } from './jump.ts';
import { type CommandOptions, type CommandResult, runCommand } from './run.ts';
import { openSession } from './session.ts';

/** Where sshd listens, and as whom to log in. */
export interface SshHost {
  /** Name or address, without brackets. */
  readonly host: string;
  readonly port: number;
  readonly user: string;
  /** What of the two the user has said, for a client that has defaults of its own; absent: both. */
  readonly given?: { readonly user?: string | undefined; readonly port?: number | undefined } | undefined;
}

export interface SshTarget extends SshHost {
  /** The node as the user named it. */
  readonly label: string;
  /** Hosts to go through, the first one first. */
  readonly jump?: readonly SshHost[];
}

export interface SshOptions {
  readonly authentication: SshAuthentication;
  readonly hostKeys: HostKeyPolicy;
  /** For TCP, handshake and login together, of the node and of each jump host. */
  readonly connectTimeoutMs: number;
  /** A node that leaves three of these unanswered is lost. Default 15 s; 0 turns it off. */
  readonly keepaliveIntervalMs?: number;
  /** Those to share; by default the connection has its own. */
  readonly jumps?: JumpHosts;
  /** Ends the attempt, and later the connection with all that runs on it. */
  readonly signal: AbortSignal;
}

/** How commands become root's: by a word before each (`auto` finds out which), or all by the same `password`. */
export type RootBy = 'auto' | 'sudo' | 'doas' | 'none';

/** Whether a login has led to a shell that runs commands. */
export interface Prompt {
  /** How long that may take. */
  readonly withinMs: number;
  isSeen: boolean;
}

export interface SshConnection {
  readonly target: SshTarget;
  /** Shared by all that is made of this connection. */
  readonly prompt?: Prompt;
  /** Gives what the promise gives; says meanwhile that the node is waited for, and what it does. */
  readonly waiting?: <T>(what: string, act: Promise<T>) => Promise<T>;
  /** `auto` by default; `password` when all that is run here is root's already. */
  readonly becomesRootBy?: RootBy | 'password';
  /** Runs a program with its arguments on the node; see {@link runCommand} for what it throws. */
  run(argv: readonly string[], options?: CommandOptions): Promise<CommandResult>;
  /** Ends the connection; commands that still run are cut. Can be called again. Never rejects. */
  close(): Promise<void>;
}

/**
 * Logs in to a node, through its jump hosts, after checking the host key of each.
 *
 * @throws SideloadError `SSH_UNREACHABLE`, `SSH_HOST_KEY_UNKNOWN`, `SSH_HOST_KEY_CHANGED` or `SSH_AUTH_FAILED`; the
 *   signal's reason on abort
 */
export async function connect(target: SshTarget, options: SshOptions): Promise<SshConnection> {
  const { jump = [], label } = target;
  const { jumps = jumpHosts(options), signal } = options;
  const borrowed =
    jump.length === 0
      ? undefined
      : await jumps.borrow(jump, signal).catch((error: unknown) => {
          throw signal.aborted ? error : toSideloadError(error, label);
        });
  try {
    const session = await openSession(target, options, borrowed?.session);
    session.ended.addEventListener('abort', () => void borrowed?.giveBack(), { once: true });
    return {
      target,
      prompt: { withinMs: options.connectTimeoutMs, isSeen: false },
      run: (argv, runOptions = {}) => runCommand({ ...session, label }, argv, runOptions),
      close: async () => {
        await session.close();
        await borrowed?.giveBack();
      },
    };
  } catch (error) {
    await borrowed?.giveBack();
    throw error;
  }
}

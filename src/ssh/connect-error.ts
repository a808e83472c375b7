import { messageOf, SideloadError } from '../errors.ts';
import type { AuthenticationState } from './authentication.ts';

/** How far a connection attempt has come. */
export type Phase = 'agent' | 'lookup' | 'tcp' | 'banner' | 'handshake' | 'login';

/** What was known when a connection attempt failed. */
export interface Attempt extends AuthenticationState {
  /** The node; undefined for a jump host. */
  readonly label: string | undefined;
  /** `HOST:PORT`, or `the jump host HOST:PORT`, for messages. */
  readonly address: string;
  readonly user: string;
  readonly phase: Phase;
  /** Whether the peer had sent anything at all. */
  readonly wasAnswered: boolean;
}

const REASONS: Readonly<Record<string, string>> = {
  ECONNREFUSED: 'the connection was refused; nothing listens there, or a firewall says no',
  EHOSTUNREACH: 'there is no route to the host',
  ENETUNREACH: 'the network is unreachable',
  ETIMEDOUT: 'nothing answered',
  ENOTFOUND: 'the name cannot be resolved',
  EAI_AGAIN: 'the name server does not answer',
  ECONNRESET: 'the connection was reset',
  EPIPE: 'the connection was reset',
};

const PHASES: Readonly<Record<Phase, string>> = {
  agent: 'the ssh-agent on the runner has not answered',
  lookup: 'the name server has not answered',
  tcp: 'no TCP connection',
  banner: 'TCP connected, but no SSH banner came',
  handshake: 'the SSH handshake began and did not finish',
  login: 'the SSH handshake finished, but the login did not',
};

/** Why an attempt failed, out of the error that ended it and how far it had come. */
export function connectError(error: unknown, attempt: Attempt): SideloadError {
  const { label: node, address, phase } = attempt;
  if (levelOf(error) === 'client-authentication') return authError(error, attempt);
  if (levelOf(error) === 'agent') {
    const message = `the ssh-agent refused to prove the login of ${attempt.user} at ${address}: ${messageOf(error)}`;
    const hint = 'Look at the agent: a locked one, or a key that wants a confirmation, cannot be used by a job.';
    return new SideloadError('SSH_AUTH_FAILED', message, { node, hint, cause: error });
  }
  // ssh2 gives the number of an SSH disconnection message as the code, and its text as the message.
  if (phase === 'login' && typeof codeOf(error) === 'number') {
    const message = `${address} ended the login of ${attempt.user}: ${messageOf(error)}`;
    return new SideloadError('SSH_AUTH_FAILED', message, { node, cause: error });
  }
  return new SideloadError('SSH_UNREACHABLE', `${address} cannot be reached: ${unreachable(error, attempt)}`, {
    node,
    hint: isUnknownName(error) ? NAME_HINT : undefined,
    cause: error,
  });
}

const NAME_HINT =
  'The runner cannot resolve this name: write the node’s address before it, as in `10.0.0.12=worker-2` (`kubectl get nodes -o wide`).';

function isUnknownName(error: unknown): boolean {
  return codeOf(error) === 'ENOTFOUND' || codeOf(error) === 'EAI_AGAIN';
}

/** The limit for TCP, handshake and login together has passed. */
export function timeoutError(timeoutMs: number, { label: node, address, phase }: Attempt): SideloadError {
  const message = `${address} cannot be reached: ${PHASES[phase]} within ${timeoutMs / 1000} s`;
  return new SideloadError('SSH_UNREACHABLE', message, { node });
}

/** The reason that the operating system gives, in words and by its name. */
export function systemReason(error: unknown): string | undefined {
  // A name with several addresses ends in an AggregateError, whose message is empty.
  const first = error instanceof AggregateError ? error.errors[0] : error;
  const code = codeOf(first);
  if (typeof code !== 'string') return undefined;
  return `${REASONS[code] ?? messageOf(first)} (${code})`;
}

function unreachable(error: unknown, { phase, wasAnswered }: Attempt): string {
  const reason = messageOf(error);
  if (/identification|greeting|[Hh]eader|before handshake/.test(reason)) {
    return wasAnswered
      ? 'what answers there does not speak SSH'
      : 'it closed the connection before any SSH banner; sshd does so when it is overloaded (MaxStartups) or bans the address';
  }
  const system = systemReason(error);
  const during = phase === 'login' ? ' during the login' : ' during the SSH handshake';
  if (system !== undefined) return system + (phase === 'lookup' || phase === 'tcp' ? '' : during);
  if (reason === 'No response from server') return `it closed the connection${during}`;
  return reason;
}

function authError(error: unknown, attempt: Attempt) {
  const { label, address, user, offered, isKeyOffered, methodsLeft, wantsMore } = attempt;
  const methods = methodsLeft?.join(', ');
  const proofs = offered.join(', ');
  if (wantsMore) {
    const message = `${address} accepted ${proofs} of ${user} and wants another proof as well: ${methods}`;
    const hint =
      'Exempt this user in sshd_config (`AuthenticationMethods publickey`), or give `ssh-password` as well, if that is the other proof.';
    return new SideloadError('SSH_AUTH_FAILED', message, { node: label, hint, cause: error });
  }
  const accepts = methods ? `; it would accept: ${methods}` : '';
  const message = `${address} refused the login of ${user} with ${proofs || 'nothing that it takes'}${accepts}`;
  const hint = !isKeyOffered
    ? 'Check user and password; better, give the user a key.'
    : methodsLeft === undefined || methodsLeft.includes('publickey')
      ? `Look for this key with \`ssh-keygen -lf ~${user}/.ssh/authorized_keys\` there; sshd’s log tells why it refused.`
      : 'This sshd accepts no keys from this user: see `PubkeyAuthentication` and `AuthenticationMethods` in its sshd_config.';
  return new SideloadError('SSH_AUTH_FAILED', message, { node: label, hint, cause: error });
}

/** Why a jump host did not open a way to the next host (RFC 4254, 5.1: reason 1 is `administratively prohibited`). */
export function forwardError(error: unknown, { label, address }: Attempt): SideloadError {
  const reason = messageOf(error).replace(/^\(SSH\) Channel open failure: /, '');
  const isForbidden = error instanceof Error && 'reason' in error && error.reason === 1;
  return new SideloadError('SSH_UNREACHABLE', `${address} cannot be reached from the jump host before it: ${reason}`, {
    node: label,
    hint: isForbidden
      ? 'The jump host forbids it: see `AllowTcpForwarding` and `PermitOpen` in its sshd_config.'
      : 'Check name, port and firewall as the jump host sees them.',
    cause: error,
  });
}

function levelOf(error: unknown): unknown {
  return error instanceof Error && 'level' in error ? error.level : undefined;
}

function codeOf(error: unknown): unknown {
  return error instanceof Error && 'code' in error ? error.code : undefined;
}

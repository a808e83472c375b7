import ssh2, { type AuthHandlerMiddleware } from 'ssh2';
import { messageOf, SideloadError } from '../errors.ts';
import type { SshCredentials } from './key.ts';

/** What a login may be proven by, offered in this order. */
export interface SshAuthentication {
  readonly key?: SshCredentials | undefined;
  /** The socket of an ssh-agent. */
  readonly agent?: string | undefined;
  /** For the methods `password` and `keyboard-interactive`. */
  readonly password?: string | undefined;
}

/** How far the proving has come, for errors. */
export interface AuthenticationState {
  /** What has been offered, such as `the key SHA256:…`. */
  readonly offered: readonly string[];
  readonly isKeyOffered: boolean;
  /** Methods that the server would accept after it refused; undefined when it never said. */
  readonly methodsLeft: readonly string[] | undefined;
  /** The server took a proof, and wants another one as well. */
  readonly wantsMore: boolean;
}

/** The methods of SSH (RFC 4252, RFC 4256), as ssh2 asks for them. */
interface Proof {
  readonly method: 'publickey' | 'password' | 'keyboard-interactive';
  readonly shown: string;
  readonly request: object;
}

/** Offers one proof after the other, leaving out methods that the server does not take. */
export function authenticator(
  user: string,
  { key, agent, password }: SshAuthentication,
): { readonly handler: AuthHandlerMiddleware; state(): AuthenticationState } {
  const proofs: Proof[] = [];
  if (key !== undefined) {
    const request = { type: 'publickey', username: user, key: key.key };
    proofs.push({ method: 'publickey', shown: `the key ${key.fingerprint}`, request });
  }
  if (agent !== undefined) {
    const request = { type: 'agent', username: user, agent };
    proofs.push({ method: 'publickey', shown: `the keys of the ssh-agent at ${agent}`, request });
  }
  if (password !== undefined) {
    proofs.push({
      method: 'password',
      shown: 'the password',
      request: { type: 'password', username: user, password },
    });
    const prompt = answerOnce(password);
    const request = { type: 'keyboard-interactive', username: user, prompt };
    proofs.push({ method: 'keyboard-interactive', shown: 'the password, when asked for it', request });
  }
  const offered: Proof[] = [];
  let methodsLeft: readonly string[] | undefined;
  let wantsMore = false;
  // Called before the first method, with null, and after each refusal, with what the server would accept instead.
  const handler = ((left: readonly string[] | null, partialSuccess: boolean | null) => {
    methodsLeft = left ?? methodsLeft;
    wantsMore = partialSuccess === true;
    const next = proofs.find(
      proof => !offered.includes(proof) && (methodsLeft === undefined || methodsLeft.includes(proof.method)),
    );
    if (next === undefined) return false;
    offered.push(next);
    return next.request;
  }) as unknown as AuthHandlerMiddleware;
  return {
    handler,
    state: () => ({
      offered: offered.map(({ shown }) => shown),
      isKeyOffered: offered.some(({ method }) => method === 'publickey'),
      methodsLeft,
      wantsMore,
    }),
  };
}

/** Answers a single hidden prompt, once: a second one asks for something else, or says that the answer was wrong. */
function answerOnce(password: string) {
  let isAnswered = false;
  return (
    _name: string,
    _instructions: string,
    _language: string,
    prompts: readonly { readonly prompt: string; readonly echo?: boolean }[],
    finish: (answers: readonly string[]) => void,
  ) => {
    const [only, ...others] = prompts;
    const isForPassword = only !== undefined && others.length === 0 && only.echo !== true && !isAnswered;
    isAnswered ||= isForPassword;
    finish(isForPassword ? [password] : prompts.map(() => ''));
  };
}

/**
 * Asks the agent for its keys, when nothing else can be offered: what is wrong with it is worth more than a refusal.
 * @throws SideloadError `SSH_AUTH_FAILED` when it does not answer, or has none
 */
export async function agentKeys({ key, agent, password }: SshAuthentication, label: string | undefined): Promise<void> {
  if (agent === undefined || key !== undefined || password !== undefined) return;
  const fail = (what: string) => {
    throw new SideloadError('SSH_AUTH_FAILED', `the ssh-agent at ${agent} ${what}`, {
      node: label,
      hint: 'Compare with `ssh-add -l` on the runner, as the user of the job, or pass a key in `ssh-private-key`.',
    });
  };
  const count = await new Promise<number>((resolve, reject) => {
    ssh2.createAgent(agent).getIdentities((error, keys) => (error ? reject(error) : resolve(keys?.length ?? 0)));
  }).catch((error: unknown) => fail(`does not answer: ${messageOf(error)}`));
  if (count === 0) fail('has no keys');
}

import { type ErrorCode, SideloadError } from '../errors.ts';
import type { SshTarget } from './connect.ts';
import { addressOf } from './session.ts';

/** What the client's words mean, the first that fits; a jump host's client speaks on the same standard error. */
const MEANINGS: readonly (readonly [words: RegExp, code: ErrorCode, what: string])[] = [
  [
    /HOST IDENTIFICATION HAS CHANGED|REVOKED HOST KEY|host key .*revoked/i,
    'SSH_HOST_KEY_CHANGED',
    'ssh does not take the host key',
  ],
  [
    /Host key verification failed|host key is known|no matching host key/i,
    'SSH_HOST_KEY_UNKNOWN',
    'ssh does not know the host key',
  ],
  [
    /Permission denied|Too many authentication failures|authentication methods|sign_and_send_pubkey/i,
    'SSH_AUTH_FAILED',
    'the login was refused',
  ],
];

/** The frame and the explanations around what matters. */
const NOISE = /^[@\s]*$|^@.*@$|IT IS POSSIBLE|Someone could be|It is also possible|Please contact|Add correct host key/;

/** Why the machine's client did not log in, out of what it printed. */
export function opensshError(stderr: string, target: SshTarget): SideloadError {
  const said = stderr
    .split(/\r?\n/)
    .filter(line => !NOISE.test(line))
    .map(line => line.trim())
    .join('; ')
    .slice(-800);
  const [, code, what] = MEANINGS.find(([words]) => words.test(stderr)) ?? [
    undefined,
    'SSH_UNREACHABLE',
    'it cannot be reached',
  ];
  const { label, jump = [] } = target;
  const way = jump.length === 0 ? '' : ` through ${jump.map(addressOf).join(', ')}`;
  return new SideloadError(code as ErrorCode, `${addressOf(target)}${way}: ${what}: ${said || 'ssh said nothing'}`, {
    node: label,
  });
}

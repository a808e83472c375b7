import { randomBytes } from 'node:crypto';
import { within } from '../abort.ts';
import { SideloadError } from '../errors.ts';
import type { RootBy, SshConnection } from '../ssh/connect.ts';
import type { CommandOptions } from '../ssh/run.ts';
import { runScript, SEARCH_PATH } from './script.ts';

/** What the node says before a password is needed: who logs in, and whether sudo lets it pass without. */
const ASK = `
section uid; id -u
section sudo; command -v sudo
section without-password; sudo -n -k true >/dev/null 2>&1 && printf yes
`;

/**
 * `-k` makes sudo ask whatever it remembers of earlier logins, `-S` from standard input, of which it takes the line of
 * the password and no byte more. What it runs reads one line as well, the mark: when sudo has not read its own, the
 * password stands there, and nothing is started. "$0" is that shell's text, "$@" the mark and the command.
 */
const SUDO = `export LC_ALL=C PATH="$PATH:${SEARCH_PATH}"; exec sudo -k -S -p "" -- /bin/sh -c "$0" "$@"`;
const AFTER_MARK = 'IFS= read -r line; [ "$line" = "$0" ] && exec "$@"; echo "$0 is not what came" >&2; exit 97';
const UNREAD = 97;
/** A wrong password costs a few seconds, and a directory server that is away as long as it is waited for there. */
const ANSWER_MS = 60_000;

/**
 * Gives the connection what its commands need to become root. Without a password that is a word for scripts; with one,
 * and a sudo that asks for it, all that runs over the connection from then on is root's.
 * @throws SideloadError SUDO_REFUSED when sudo does not take the password
 */
export async function becomeRoot(
  connection: SshConnection,
  { sudo, password }: { readonly sudo: RootBy; readonly password: string | undefined },
  signal: AbortSignal,
): Promise<SshConnection> {
  const plain: SshConnection = { ...connection, becomesRootBy: sudo };
  if (password === undefined || sudo === 'doas' || sudo === 'none') {
    return plain;
  }
  const sections = await runScript(
    { ...connection, becomesRootBy: 'none' },
    { body: ASK },
    signal,
    'reading who logs in',
  );
  if (sections.get('uid') === '0' || sections.get('sudo') === '' || sections.get('without-password') === 'yes') {
    return plain;
  }
  // Alone and with nothing after it, a wrong password is one attempt: sudo would read on for two more.
  const argv = ['/bin/sh', '-c', SUDO.replace('/bin/sh -c "$0" "$@"', 'true')];
  const { code, stderr } = await within(
    ANSWER_MS,
    signal,
    limit => connection.run(argv, { stdin: `${password}\n`, signal: limit }),
    () => silentSudo(connection),
  );
  if (code !== 0) {
    throw refusal(connection, stderr.trim());
  }
  return {
    ...connection,
    becomesRootBy: 'password',
    run: (command, options) => runByPassword(connection, password, command, options),
  };
}

async function runByPassword(
  connection: SshConnection,
  password: string,
  command: readonly string[],
  options: CommandOptions = {},
) {
  const mark = randomBytes(12).toString('hex');
  const result = await connection.run(['/bin/sh', '-c', SUDO, AFTER_MARK, mark, ...command], {
    ...options,
    preamble: `${password}\n${mark}\n`,
  });
  if (result.code === UNREAD && result.stderr.includes(mark)) {
    throw new SideloadError('SUDO_REFUSED', 'sudo did not ask for its password this time; nothing was run', {
      node: connection.target.label,
      hint: 'The sudoers file asks for some commands and not for others: give the user `NOPASSWD` for all of them, and leave out `sudo-password`.',
    });
  }
  return result;
}

function silentSudo({ target }: SshConnection): SideloadError {
  return new SideloadError(
    'NODE_SILENT',
    `sudo has not said within ${ANSWER_MS / 1000} s whether it takes the password`,
    {
      node: target.label,
      hint: 'Try `sudo -k -v` on the node, as this user: PAM may be waiting for a server that is away.',
    },
  );
}

function refusal({ target }: SshConnection, said: string): SideloadError {
  const isWrong = /try again|incorrect password|no password was provided|authentication failure/i.test(said);
  return new SideloadError(
    'SUDO_REFUSED',
    isWrong
      ? `sudo does not take the password of ${target.user}`
      : `sudo refused ${target.user}: ${said || 'without a word'}`,
    {
      node: target.label,
      hint: isWrong
        ? 'Correct the secret; try it on the node with `sudo -k -v`, as this user.'
        : rootHint('sudo', said),
    },
  );
}

/** The next step, by what sudo or doas said; undefined for what is not known. */
export function rootHint(command: string, said: string): string | undefined {
  if (/(sudo|doas):( command)? not found/.test(said)) {
    return 'Log in as root (`root@` before the address), or install sudo or doas on the node.';
  }
  if (command.startsWith('doas')) {
    return 'Add `permit nopass USER as root` with the user’s name to /etc/doas.conf on the node, or log in as root; doas takes no password from a job.';
  }
  if (/must have a tty/.test(said)) {
    return 'Its sudoers has `requiretty`, and a terminal would garble the image: add `Defaults:USER !requiretty`.';
  }
  if (/password is required/i.test(said)) {
    return 'Give the user `NOPASSWD` rights (docs/privileges has a file for each runtime), or pass `sudo-password`.';
  }
  if (/not in the sudoers file|not allowed to (run sudo|execute)|may not run sudo/.test(said)) {
    return 'Give the user rights on the node: docs/privileges has a file of sudoers for each runtime.';
  }
  return undefined;
}

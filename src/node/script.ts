import { randomBytes } from 'node:crypto';
import { within } from '../abort.ts';
import { SideloadError } from '../errors.ts';
import { formatDuration } from '../report/units.ts';
import { runtimeFault } from '../runtime/fault.ts';
import type { Prompt, RootBy, SshConnection, SshTarget } from '../ssh/connect.ts';

/**
 * A piece of POSIX `sh` to run on a node. Values reach it only as variables, quoted in one place; it answers in sections:
 * `section NAME` starts one, and whatever follows on standard output belongs to it. `as_root` runs a command as root.
 */
export interface Script {
  readonly body: string;
  readonly variables?: Readonly<Record<string, string>>;
}

/** What a script said, by section, without the white space around it. */
export type Sections = ReadonlyMap<string, string>;

/** Where distributions keep their tools; a remote shell that is not a login shell often knows half of these. */
export const SEARCH_PATH = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/snap/bin';

/** How long a script may take that asks something: of a busy node, about many images. */
const ASK_MS = 2 * 60_000;
/** And one that changes what a runtime has: it may have gigabytes to move or to remove. */
export const CHANGE_MS = 5 * 60_000;

/**
 * Runs a script on a node in one round trip. It travels on standard input to a plain `/bin/sh`, so that neither the login
 * shell of the user matters nor its PATH, and a mark of this call keeps banners and other noise apart from the answer.
 * @param purpose what the node does meanwhile, for whoever waits, as in `reading what it is`
 * @param limitMs how long it may take; the first one on a connection has to begin as soon as a login has to be through
 * @throws SideloadError NODE_SILENT when it takes longer; LOGIN_SHELL_ENDED when the user's shell did not run it;
 *   REMOTE_COMMAND_FAILED when the script did not get to its end; for one that has given the runtime up
 *   RUNTIME_NOT_RUNNING, RUNTIME_REFUSED, SUDO_RIGHT_MISSING or RUNTIME_ERROR.
 */
export async function runScript(
  connection: SshConnection,
  script: Script,
  signal: AbortSignal,
  purpose: string,
  limitMs = ASK_MS,
): Promise<Sections> {
  const { target, prompt, waiting = (_, act) => act } = connection;
  const mark = `@@${randomBytes(6).toString('hex')}`;
  const stdin = composeScript(script, mark, connection.becomesRootBy);
  let printed = '';
  const silent = () => silence(purpose, limitMs, [...parseSections(printed, mark).keys()].at(-1), target);
  const running = within(
    prompt?.isSeen === false ? Math.min(prompt.withinMs, limitMs) : limitMs,
    signal,
    (limit, again) =>
      connection.run(['/bin/sh'], {
        stdin,
        signal: limit,
        onPrinted: chunk => {
          // From the last mark on, or of what comes before it the end.
          printed = (printed + chunk.toString()).slice(-PRINTED_CHARACTERS);
          if (prompt?.isSeen === false && printed.includes(`\n${mark} ${BEGUN}\n`)) {
            prompt.isSeen = true;
            again(limitMs, silent);
          }
        },
      }),
    () => (prompt?.isSeen === false ? noPrompt(prompt, printed, target) : silent()),
  );
  const result = await waiting(purpose, running);
  const sections = parseSections(result.stdout, mark);
  if (result.code !== 0 || !sections.has('end')) {
    const fault = runtimeFault(sections, target.label);
    if (fault !== undefined) {
      throw fault;
    }
    const said = `${result.stderr}\n${result.stdout.split(mark)[0] ?? ''}`.trim().slice(-2000);
    if (prompt?.isSeen === false && !NOT_STARTED.has(result.code)) {
      throw shellEnded(result.code, said, target);
    }
    throw new SideloadError(
      'REMOTE_COMMAND_FAILED',
      `a script on the node ended with exit code ${result.code}${said === '' ? '' : `: ${said}`}`,
      { node: target.label },
    );
  }
  return sections;
}

/** The section with which each script begins: there is a shell, and it runs commands. */
const BEGUN = 'begun';
/** POSIX.1 2.8.2: of a program that is not there, or that cannot be run. */
const NOT_STARTED: ReadonlySet<number> = new Set([126, 127]);
/** Enough of what comes to see how far a script has got. */
const PRINTED_CHARACTERS = 64 * 1024;

function silence(
  purpose: string,
  limitMs: number,
  last: string | undefined,
  { label }: Pick<SshTarget, 'label'>,
): SideloadError {
  const place = last === undefined || last === BEGUN ? '' : `; it got as far as \`${last}\``;
  return new SideloadError('NODE_SILENT', `${purpose}: not done within ${formatDuration(limitMs, 0)}${place}`, {
    node: label,
  });
}

function noPrompt({ withinMs }: Prompt, printed: string, { label, user }: SshTarget): SideloadError {
  const said = printed.trim() === '' ? 'and prints nothing' : `and has printed: ${printed.trim().slice(-500)}`;
  return new SideloadError(
    'NODE_SILENT',
    `the login of ${user} came through, but its shell has run no command within ${withinMs / 1000} s, ${said}`,
    {
      node: label,
      hint: `Log in as ${user} and see what hangs before the first command: \`~/.bashrc\`, \`~/.ssh/rc\`, \`/etc/ssh/sshrc\`, PAM, or a home directory on a server that is away; raise \`connect-timeout\` for a node that is slow.`,
    },
  );
}

function shellEnded(code: number, said: string, { label, user }: SshTarget): SideloadError {
  return new SideloadError(
    'LOGIN_SHELL_ENDED',
    `the login shell of ${user} ended with exit code ${code} before it ran a command, ${said === '' ? 'and printed nothing' : `and printed: ${said}`}`,
    { node: label },
  );
}

/** Sets the words before a command that needs root, unless the user is root. */
const ROOT_WORDS: Readonly<Record<RootBy | 'password', string>> = {
  auto: `AS_ROOT='sudo -n'; command -v sudo >/dev/null || ! command -v doas >/dev/null || AS_ROOT='doas -n'`,
  sudo: `AS_ROOT='sudo -n'`,
  doas: `AS_ROOT='doas -n'`,
  none: 'AS_ROOT=',
  password: 'AS_ROOT=',
};

/** The braces make `sh` read the whole script before it runs any of it: no command inside can swallow the rest. */
function composeScript(
  { body, variables = {} }: Script,
  mark: string,
  rootBy: keyof typeof ROOT_WORDS = 'auto',
): string {
  const assignments = Object.entries(variables).map(([name, value]) => `${name}=${quoteForSh(value)}`);
  return `{
export LC_ALL=C PATH="$PATH:${SEARCH_PATH}"
section() { printf '\\n${mark} %s\\n' "$1"; }
section ${BEGUN}
if [ "$(id -u)" = 0 ]; then AS_ROOT=; else ${ROOT_WORDS[rootBy]}; fi
as_root() { $AS_ROOT "$@"; }
${assignments.join('\n')}
${body}
section end
exit 0
} </dev/null
`;
}

/** POSIX.1 2.2.2: within single quotes every character stands for itself; a single quote is written outside of them. */
function quoteForSh(value: string): string {
  return `'${value.replaceAll("'", String.raw`'\''`)}'`;
}

function parseSections(stdout: string, mark: string): Sections {
  const sections = new Map<string, string>();
  for (const part of stdout.split(`\n${mark} `).slice(1)) {
    const newline = part.indexOf('\n');
    sections.set(part.slice(0, newline), part.slice(newline + 1).trim());
  }
  return sections;
}

import { randomBytes } from 'node:crypto';
import { SideloadError } from '../errors.ts';
import { runtimeFault } from '../runtime/fault.ts';
import type { RootBy, SshConnection } from '../ssh/connect.ts';

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

/**
 * Runs a script on a node in one round trip. It travels on standard input to a plain `/bin/sh`, so that neither the login
 * shell of the user matters nor its PATH, and a mark of this call keeps banners and other noise apart from the answer.
 * @throws SideloadError REMOTE_COMMAND_FAILED when the script did not get to its end; for one that has given the runtime up
 * RUNTIME_NOT_RUNNING, RUNTIME_REFUSED, SUDO_RIGHT_MISSING or RUNTIME_ERROR.
 */
export async function runScript(connection: SshConnection, script: Script, signal: AbortSignal): Promise<Sections> {
  const mark = `@@${randomBytes(6).toString('hex')}`;
  const stdin = composeScript(script, mark, connection.becomesRootBy);
  const result = await connection.run(['/bin/sh'], { stdin, signal });
  const sections = parseSections(result.stdout, mark);
  if (result.code !== 0 || !sections.has('end')) {
    const fault = runtimeFault(sections, connection.target.label);
    if (fault !== undefined) {
      throw fault;
    }
    const said = `${result.stderr}\n${result.stdout.split(mark)[0] ?? ''}`.trim();
    throw new SideloadError(
      'REMOTE_COMMAND_FAILED',
      `a script on the node ended with exit code ${result.code}${said === '' ? '' : `: ${said.slice(-2000)}`}`,
      { node: connection.target.label },
    );
  }
  return sections;
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

import { SideloadError } from '../errors.ts';

/** Needs no quotes in any shell; zsh expands a leading `=`, and old fish a leading `%`. */
const BARE = /^[A-Za-z0-9_@+:,./-][A-Za-z0-9_@%+=:,./-]*$/;

/**
 * The command line for a program and its arguments that the login shells sh, bash, zsh, fish and csh read alike.
 *
 * Three characters stand outside the single quotes, behind a backslash: `'` for all, `\` because fish reads it inside
 * single quotes, and `!` because csh expands history there. NUL and line breaks have no form that all shells share.
 *
 * @throws SideloadError `INPUT_INVALID` for an empty list, and for NUL or a line break in an argument
 */
export function commandLine(argv: readonly string[]): string {
  if (argv.length === 0) throw new SideloadError('INPUT_INVALID', 'A remote command needs at least a program');
  return argv.map((argument, index) => quoted(argument, index === 0)).join(' ');
}

function quoted(argument: string, isProgram: boolean): string {
  if (/[\0\r\n]/.test(argument)) {
    throw new SideloadError(
      'INPUT_INVALID',
      `An argument of a remote command has a line break or NUL in it: ${JSON.stringify(argument.slice(0, 80))}`,
      { hint: 'Take the line break out of the input that this value comes from.' },
    );
  }
  // A program name with `=` in it would be an assignment.
  if (BARE.test(argument) && !(isProgram && argument.includes('='))) return argument;
  if (argument === '') return "''";
  return argument.replace(/[!'\\]|[^!'\\]+/g, run => (/^[!'\\]$/.test(run) ? `\\${run}` : `'${run}'`));
}

import { isMode, SWITCHES } from './commands.ts';
import { variableOf } from './host/terminal.ts';
import { INPUT_NAMES, type InputName, inputSpec } from './inputs.ts';
import { shown } from './problems.ts';

/** What is wrong with a command line that `parseArgs` of Node refuses, in words that say what to write instead. */
export function faultOfOptions(thrown: unknown): string {
  const { code, message } = thrown as NodeJS.ErrnoException;
  const option = /'(?:-\w, )?(--?[^\s'=]+)/.exec(message)?.[1] ?? '';
  const name = option.replace(/^--?/, '');
  if (code === 'ERR_PARSE_ARGS_UNKNOWN_OPTION') {
    return isSecret(name) ? secretFault(name) : `there is no option ${option}${likeOf(option)}`;
  }
  if (code === 'ERR_PARSE_ARGS_INVALID_OPTION_VALUE') {
    return Object.hasOwn(SWITCHES, name)
      ? `${option} takes no value`
      : `${option} needs a value: ${option}=${exampleOf(name)}`;
  }
  return message;
}

/** What is wrong with words that are no options. */
export function faultOfWords(words: readonly string[]): string {
  const [command, ...rest] = words;
  return isMode(command)
    ? `${command} takes nothing but options, and got ${rest.join(' ')}: images are named with --images, and several values of an option with commas between them or with the option several times`
    : `unknown command: ${words.join(' ')}`;
}

/** What is wrong with an option of one value that is there several times. */
export function faultOfRepeated(name: InputName, given: readonly string[]): string {
  return `--${name} takes one value, and is there ${given.length} times: ${given.map(shown).join(', ')}`;
}

function isSecret(name: string): name is InputName {
  return INPUT_NAMES.some(input => input === name && inputSpec(input).type === 'secret');
}

/** A command line can be read by everybody on the machine. */
function secretFault(name: InputName): string {
  const file = INPUT_NAMES.find(input => input === `${name}-file`);
  const byFile = file === undefined ? '' : `, or name a file with --${file}`;
  return `--${name} is no option, as everybody on the machine can read a command line: set the variable ${variableOf(name)}${byFile}`;
}

/** A value that the option takes. */
function exampleOf(name: string): string {
  const input = INPUT_NAMES.find(one => one === name);
  const type = input === undefined ? undefined : inputSpec(input).type;
  return typeof type === 'object' ? type.oneOf.join('|') : 'VALUE';
}

/** An option that somebody may have meant: of the same beginning, or with one letter more, fewer or other. */
function likeOf(option: string): string {
  const name = option.replace(/^--?/, '');
  const options: readonly string[] = [...INPUT_NAMES.filter(one => !isSecret(one)), ...Object.keys(SWITCHES)];
  const like = name.length < 3 ? [] : options.filter(one => one.startsWith(name) || isNear(one, name));
  return like.length === 0 ? '' : `; there is ${like.map(one => `--${one}`).join(', ')}`;
}

/** Whether two words differ in one place. */
function isNear(one: string, other: string): boolean {
  const [short, long] = one.length < other.length ? [one, other] : [other, one];
  let same = 0;
  while (same < short.length && short[same] === long[same]) same += 1;
  return long.slice(same + 1) === short.slice(long.length === short.length ? same + 1 : same);
}

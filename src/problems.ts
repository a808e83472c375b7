import { type ErrorCode, SideloadError, toSideloadError } from './errors.ts';

/** One thing that is wrong with what the user gave, found before anything was done. */
export interface InputProblem {
  readonly code: ErrorCode;
  readonly message: string;
  readonly hint?: string | undefined;
}

export function problem(message: string, hint?: string): InputProblem {
  return { code: 'INPUT_INVALID', message, hint };
}

const SHOWN_CHARACTERS = 100;

/** A text as a message may show it: in part only where it may be a secret that got into the wrong input. */
export function shown(text: string): string {
  const start = text.startsWith('-----BEGIN') ? '-----BEGIN' : (text.split('\n')[0] ?? '').slice(0, SHOWN_CHARACTERS);
  return `${JSON.stringify(start)}${start === text ? '' : '…'}`;
}

/** Runs a parser; what it throws is added to the problems, so that the user learns of all of them at once. */
export function collect<T>(problems: InputProblem[], parse: () => T): T | undefined {
  try {
    return parse();
  } catch (thrown) {
    const { code, message, hint } = toSideloadError(thrown);
    if (code === 'INTERNAL') {
      throw thrown;
    }
    problems.push({ code, message, hint });
    return undefined;
  }
}

/** Throws one error for all problems; a single one keeps its own code and hint. */
export function throwProblems(problems: readonly InputProblem[]): void {
  const [first, ...rest] = problems;
  if (first === undefined) {
    return;
  }
  if (rest.length === 0) {
    throw new SideloadError(first.code, first.message, { hint: first.hint });
  }
  const lines = problems.map(one => `  - ${one.message}${one.hint === undefined ? '' : ` (${one.hint})`}`);
  throw new SideloadError('INPUT_INVALID', `${problems.length} problems with the inputs:\n${lines.join('\n')}`);
}

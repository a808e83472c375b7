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

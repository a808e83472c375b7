import { readdirSync, readFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { describe, expect, it } from 'vitest';
import { ERRORS, SideloadError, toSideloadError } from '../../src/errors.ts';
import { collect, type InputProblem, problem, throwProblems } from '../../src/problems.ts';

const TESTS = resolve(import.meta.dirname, '..');

const headings = readFileSync(resolve(import.meta.dirname, '..', '..', 'docs', 'troubleshooting.md'), 'utf8')
  .split('\n')
  .flatMap(line => /^## ([A-Z][A-Z_]+)$/.exec(line)?.[1] ?? []);

describe('docs/troubleshooting.md', () => {
  it.each(Object.keys(ERRORS))('explains %s', code => {
    expect(headings).toContain(code);
  });

  it('explains nothing that cannot happen, and nothing twice', () => {
    expect(headings.toSorted()).toEqual(Object.keys(ERRORS).toSorted());
  });
});

/** The text of all tests but these. */
const tests = readdirSync(TESTS, { recursive: true, encoding: 'utf8' })
  .filter(file => file.endsWith('.test.ts') && !file.endsWith('errors.test.ts'))
  .map(file => readFileSync(join(TESTS, file), 'utf8'))
  .join('\n');

it.each(Object.keys(ERRORS))('%s is produced by a test', code => {
  expect(new RegExp(`\\b${code}\\b`).test(tests)).toBe(true);
});

it.each(Object.entries(ERRORS))('%s has a title and a next step in whole sentences', (_code, { title, hint }) => {
  expect(title).toMatch(/^[A-Zk].*[^.]$/);
  expect(hint).toMatch(/^[A-Z].*\.$/);
});

describe('anything that is thrown', () => {
  it('is itself when it is one of ours, with the node where it lacked one', () => {
    const error = new SideloadError('DISK_FULL', 'full', { hint: 'make room' });
    expect(toSideloadError(error)).toBe(error);
    expect(toSideloadError(error, 'w1')).toMatchObject({
      code: 'DISK_FULL',
      message: 'full',
      node: 'w1',
      hint: 'make room',
    });
    const known = new SideloadError('DISK_FULL', 'full', { node: 'w2' });
    expect(toSideloadError(known, 'w1').node).toBe('w2');
  });

  it.each([
    ['a cancellation', new DOMException('aborted', 'AbortError'), 'CANCELLED'],
    ['a fault of ours', new TypeError('x is not a function'), 'INTERNAL'],
    ['a text', 'oops', 'INTERNAL'],
    ['nothing', undefined, 'INTERNAL'],
  ])('is told apart: %s', (_what, thrown, code) => {
    const error = toSideloadError(thrown, 'w1');
    expect(error).toMatchObject({ code, node: 'w1' });
    expect(error.cause).toBe(thrown);
  });

  it('has the hint of its code unless there is a better one', () => {
    expect(new SideloadError('DISK_FULL', 'full').hint).toBe(ERRORS.DISK_FULL.hint);
  });
});

describe('problems with the inputs', () => {
  it('are none: nothing happens', () => {
    expect(throwProblems([])).toBeUndefined();
  });

  it('keep code and hint when there is one', () => {
    expect(() => throwProblems([{ code: 'SSH_KEY_INVALID', message: 'bad', hint: 'store it whole' }])).toThrow(
      expect.objectContaining({ code: 'SSH_KEY_INVALID', message: 'bad', hint: 'store it whole' }),
    );
  });

  it('are one error when there are several, each on its line with its hint', () => {
    expect(() => throwProblems([problem('one', 'do this'), problem('two')])).toThrow(
      '2 problems with the inputs:\n  - one (do this)\n  - two',
    );
  });

  it('are collected, and faults of ours are not among them', () => {
    const problems: InputProblem[] = [];
    const refuse = () => {
      throw new SideloadError('INPUT_INVALID', 'no');
    };
    expect(collect(problems, refuse)).toBeUndefined();
    expect(collect(problems, () => 7)).toBe(7);
    expect(problems).toMatchObject([{ code: 'INPUT_INVALID', message: 'no' }]);
    expect(() =>
      collect(problems, () => {
        throw new TypeError('ours');
      }),
    ).toThrow(TypeError);
  });
});

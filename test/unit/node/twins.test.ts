import { expect, it } from 'vitest';
import type { MachineFacts } from '../../../src/node/facts.ts';
import { sameMachines } from '../../../src/node/twins.ts';
import { nodeSettings } from './settings.ts';

function entry(label: string, identity: string | undefined) {
  return { settings: nodeSettings(label), machine: { identity } as MachineFacts };
}

function found(entries: readonly ReturnType<typeof entry>[]): readonly string[] {
  return [...sameMachines(entries)].map(([{ settings }, error]) => `${settings.label} ${error.code}: ${error.message}`);
}

it('addresses of one machine are an error of all but the first, which names them all', () => {
  const entries = [entry('a', 'one'), entry('b', 'two'), entry('c', 'one'), entry('d', 'one')];
  expect(found(entries)).toEqual([
    'c INPUT_INVALID: a, c, d are addresses of one machine',
    'd INPUT_INVALID: a, c, d are addresses of one machine',
  ]);
});

it('names no more of three hundred addresses of two machines than anybody reads', () => {
  const entries = Array.from({ length: 300 }, (_, index) => entry(`w${index}`, index < 52 ? 'one' : 'two'));
  const lines = found(entries);
  expect(lines).toHaveLength(298);
  expect(lines[0]).toBe(
    'w1 INPUT_INVALID: w0, w1, w2, w3, w4, w5, w6, w7, w8, w9 and 42 more are addresses of one machine',
  );
  expect(new Set(lines.map(line => line.replace(/^\S+ /, ''))).size).toBe(2);
});

it('machines that do not tell, or were not reached, are none that are the same', () => {
  const silent = { settings: nodeSettings('c'), machine: undefined };
  expect([...sameMachines([entry('a', undefined), entry('b', undefined), silent])]).toEqual([]);
});

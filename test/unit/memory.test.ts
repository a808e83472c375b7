import { expect, it } from 'vitest';
import { free, freeAround } from '../../src/memory.ts';

const BYTES = 100_000;

it('is given back with the last chunk of it, and not sooner', () => {
  const memory = Buffer.alloc(BYTES);
  const [first, last] = [memory.subarray(0, 50_000), memory.subarray(50_000)];
  free(first);
  expect(memory.length).toBe(BYTES);
  free(last);
  expect([memory.length, first.length, last.length]).toEqual([0, 0, 0]);
});

it('is given back with any chunk of it when all is said to be over', () => {
  const memory = Buffer.alloc(BYTES);
  freeAround(memory.subarray(0, 4));
  expect(memory.length).toBe(0);
});

it('stays when others have a part of it', () => {
  const pooled = Array.from({ length: 200 }, (_, index) => Buffer.from(`part ${index}`));
  for (const chunk of pooled) freeAround(chunk);
  expect(pooled.map(String)).toEqual(pooled.map((_, index) => `part ${index}`));
});

it('is nothing to speak of for small chunks', () => {
  const small = Buffer.alloc(100);
  free(small);
  expect(small.length).toBe(100);
});

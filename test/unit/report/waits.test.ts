import { expect, it } from 'vitest';
import { waitsOf } from '../../../src/report/waits.ts';
import { stopClock } from '../clock.ts';

const SECOND = 1000;

it('says for whom it waits after ten seconds, ever less often, and no more when it is over', async () => {
  const clock = stopClock();
  const lines: string[] = [];
  const waits = waitsOf(line => void lines.push(line));
  let finish = (_: string) => {};
  const result = waits.until('n2', 'reading what it is', new Promise<string>(resolve => (finish = resolve)));
  await clock.advance(9 * SECOND);
  expect(lines).toEqual([]);
  await clock.advance(91 * SECOND);
  expect(lines).toEqual(
    [10, 20, 40]
      .map(time => `waiting for n2: reading what it is, ${time} s`)
      .concat(['waiting for n2: reading what it is, 1 min 20 s']),
  );
  finish('an answer');
  expect(await result).toBe('an answer');
  await clock.advance(1000 * SECOND);
  expect(lines).toHaveLength(4);
});

it('tells of many in one line, by what they do', async () => {
  const clock = stopClock();
  const lines: string[] = [];
  const waits = waitsOf(line => void lines.push(line));
  const never = new Promise<void>(() => {});
  for (const node of ['n1', 'n2', 'n3', 'n4', 'n5']) void waits.until(node, 'logging in', never);
  void waits.until('n6', 'reading what it is', never);
  await clock.advance(10 * SECOND);
  expect(lines).toEqual([
    'waiting for n1, n2, n3 and 2 more: logging in, 10 s',
    'waiting for n6: reading what it is, 10 s',
  ]);
});

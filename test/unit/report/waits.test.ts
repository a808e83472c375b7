import { expect, it } from 'vitest';
import { transferProgress } from '../../../src/report/progress.ts';
import { waitsOf } from '../../../src/report/waits.ts';
import { stopClock } from '../clock.ts';
import { recordingHost } from '../recording-host.ts';

const SECOND = 1000;

it('says for whom it waits after ten seconds, ever less often, and no more when it is over', async () => {
  const clock = stopClock();
  const lines: string[] = [];
  const waits = waitsOf({ isLive: false, info: line => void lines.push(line), progress: () => {} });
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
  const waits = waitsOf({ isLive: false, info: line => void lines.push(line), progress: () => {} });
  const never = new Promise<void>(() => {});
  for (const node of ['n1', 'n2', 'n3', 'n4', 'n5']) void waits.until(node, 'logging in', never);
  void waits.until('n6', 'reading what it is', never);
  await clock.advance(10 * SECOND);
  expect(lines).toEqual([
    'waiting for n1, n2, n3 and 2 more: logging in, 10 s',
    'waiting for n6: reading what it is, 10 s',
  ]);
});

it('in a terminal the line changes, and goes', async () => {
  const clock = stopClock();
  const drawn: (readonly string[])[] = [];
  const info = () => expect.unreachable('a line that stays');
  const waits = waitsOf({ isLive: true, info, progress: lines => void drawn.push(lines) });
  let finish = () => {};
  const over = waits.until('n2', 'reading what it is', new Promise<void>(resolve => (finish = resolve)));
  await clock.advance(12 * SECOND);
  expect(drawn).toEqual([10, 11, 12].map(time => [`waiting for n2: reading what it is, ${time} s`]));
  finish();
  await over;
  expect(drawn.at(-1)).toEqual([]);
});

it('in a terminal with transfers it stands below them, and nowhere else', async () => {
  const clock = stopClock();
  const host = recordingHost({}, true);
  const waits = waitsOf(host);
  const transfer = transferProgress(host, waits).start('n1', 1000);
  void waits.until('n2', 'reading what it is', new Promise<void>(() => {}));
  await clock.advance(15 * SECOND);
  const last = host.progressLines.at(-1) ?? [];
  expect(last).toHaveLength(2);
  expect(last[1]).toBe('waiting for n2: reading what it is, 15 s');
  expect(host.progressLines.every(lines => /^ {2}n1 /.test(lines[0] ?? ''))).toBe(true);
  transfer.end();
});

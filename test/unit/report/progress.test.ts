import { expect, it } from 'vitest';
import { transferProgress } from '../../../src/report/progress.ts';
import { stopClock } from '../clock.ts';
import { recordingHost } from '../recording-host.ts';

it('shows all transfers in one line, every ten seconds in the log of a job', async () => {
  const clock = stopClock();
  const host = recordingHost();
  const progress = transferProgress(host);
  const first = progress.start('w1', 100_000_000);
  const second = progress.start('w2', 50_000_000);
  first.advance(25_000_000);
  second.advance(50_000_000);
  await clock.advance(9_999);
  expect(host.calls).toEqual([]);
  await clock.advance(1);
  expect(host.calls).toEqual(['progress w1 25 % of 100.0 MB (2.5 MB/s) · w2 100 % of 50.0 MB (5.0 MB/s)']);
});

it('looks alive in a terminal', async () => {
  const clock = stopClock();
  const host = recordingHost({}, true);
  transferProgress(host).start('w1', 1000);
  await clock.advance(1000);
  expect(host.calls).toHaveLength(2);
});

it('is silent about transfers that have ended, and begins again with the next', async () => {
  const clock = stopClock();
  const host = recordingHost({}, true);
  const progress = transferProgress(host);
  const first = progress.start('w1', 1000);
  const second = progress.start('w2', 1000);
  first.end();
  await clock.advance(500);
  second.end();
  await clock.advance(5000);
  expect(host.calls).toEqual(['progress w2 0 % of 1.0 kB (0 B/s)']);
  progress.start('w3', 0);
  await clock.advance(500);
  expect(host.calls.at(-1)).toBe('progress w3 100 % of 0 B (0 B/s)');
});

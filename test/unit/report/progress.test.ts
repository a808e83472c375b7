import { describe, expect, it } from 'vitest';
import { transferProgress } from '../../../src/report/progress.ts';
import { stopClock } from '../clock.ts';
import { type RecordingHost, recordingHost } from '../recording-host.ts';

const MB = 1_000_000;

describe('in the log of a job', () => {
  it('one line tells of all nodes and names those that are behind, every ten seconds', async () => {
    const clock = stopClock();
    const host = recordingHost();
    const progress = transferProgress(host);
    const first = progress.start('w1', 100 * MB);
    const second = progress.start('w2', 50 * MB);
    const third = progress.start('w3', 50 * MB);
    first.advance(25 * MB);
    second.advance(40 * MB);
    third.end();
    await clock.advance(9_999);
    expect(host.calls).toEqual([]);
    await clock.advance(1);
    expect(host.calls).toEqual([
      'progress 32 % of 200.0 MB to 3 nodes, 6.5 MB/s, 30 s left, 1 done, behind: w1 25 %, w2 80 %',
    ]);
  });

  it('one node is named, and its import is waited for', async () => {
    const clock = stopClock();
    const host = recordingHost();
    const transfer = transferProgress(host).start('w1', 100 * MB);
    transfer.advance(50 * MB);
    await clock.advance(10_000);
    transfer.advance(100 * MB);
    await clock.advance(10_000);
    expect(host.calls).toEqual([
      'progress 50 % of 100.0 MB to w1, 5.0 MB/s, 10 s left',
      'progress 100 % of 100.0 MB to w1, importing',
    ]);
  });

  it('of several, those whose imports are waited for are named', async () => {
    const clock = stopClock();
    const host = recordingHost();
    const progress = transferProgress(host);
    const transfers = ['w1', 'w2', 'w3', 'w4', 'w5'].map(node => progress.start(node, MB));
    for (const transfer of transfers) transfer.advance(MB);
    await clock.advance(10_000);
    for (const transfer of transfers.slice(1)) transfer.end();
    await clock.advance(10_000);
    expect(host.calls).toEqual([
      'progress 100 % of 5.0 MB to 5 nodes, importing on w1, w2, w3 and 2 more, 0 done',
      'progress 100 % of 5.0 MB to 5 nodes, importing on w1, 4 done',
    ]);
  });

  it('what is to be sent counts as it is known in the end', async () => {
    const clock = stopClock();
    const host = recordingHost();
    const transfer = transferProgress(host).start('w1', 100 * MB);
    transfer.advance(25 * MB);
    transfer.expect(50 * MB);
    await clock.advance(10_000);
    expect(host.calls).toEqual(['progress 50 % of 50.0 MB to w1, 2.5 MB/s, 10 s left']);
  });

  it('lines become fewer, and end with the last transfer', async () => {
    const clock = stopClock();
    const host = recordingHost();
    const transfer = transferProgress(host).start('w1', MB);
    await clock.advance(60_000);
    expect(host.calls).toHaveLength(6);
    await clock.advance(60_000);
    expect(host.calls).toHaveLength(8);
    expect(host.calls.at(-1)).toBe('progress 0 % of 1.0 MB to w1, 0 B/s');
    transfer.end();
    await clock.advance(60_000);
    expect(host.calls).toHaveLength(8);
  });
});

describe('in a terminal', () => {
  /** The lines as they stand. */
  const shown = (host: RecordingHost) => host.progressLines.at(-1) ?? [];

  it('each node has a line, and all have one, which fit', async () => {
    const clock = stopClock();
    const host = recordingHost({}, true);
    const progress = transferProgress(host);
    const first = progress.start('w1', 100 * MB);
    const second = progress.start('worker-2', 50 * MB);
    const third = progress.start('w3', 50 * MB);
    progress.start('w4', 10 * MB).advance(10 * MB);
    await clock.advance(4_000);
    first.advance(10 * MB);
    second.advance(40 * MB);
    second.end();
    third.end('failed');
    await clock.advance(1_000);
    expect(shown(host)).toEqual([
      '  w1         ██░░░░░░░░░░░░░░░░░░   10 %    10.0 MB of 100.0 MB    2.0 MB/s  45 s left',
      '✔ worker-2   ████████████████████  100 %     40.0 MB of 40.0 MB              done',
      '✘ w3         ░░░░░░░░░░░░░░░░░░░░    0 %         0 B of 50.0 MB              failed',
      '  w4         ████████████████████  100 %     10.0 MB of 10.0 MB              importing',
      '  all nodes  ██████░░░░░░░░░░░░░░   28 %    60.0 MB of 210.0 MB    4.0 MB/s  45 s left',
    ]);
  });

  it('the rate is that of now', async () => {
    const clock = stopClock();
    const host = recordingHost({}, true);
    const transfer = transferProgress(host).start('w1', 100 * MB);
    await clock.advance(60_000);
    for (const sent of [10, 20, 30, 40, 50]) {
      transfer.advance(sent * MB);
      await clock.advance(1_000);
    }
    expect(shown(host)).toHaveLength(1);
    expect(shown(host)[0]).toMatch(/ 10\.0 MB\/s {2}5 s left$/);
  });

  it('more nodes than lines leave room for the sum, busy ones first', async () => {
    const clock = stopClock();
    const host = recordingHost({}, true);
    const progress = transferProgress(host);
    const transfers = Array.from({ length: 20 }, (_, index) => progress.start(`w${index + 1}`, MB));
    for (const transfer of transfers.slice(0, 15)) transfer.end();
    await clock.advance(1_000);
    const lines = shown(host);
    expect(lines).toHaveLength(8);
    expect(lines.slice(0, 6).map(line => line.trim().split(/ +/)[0])).toEqual(['✔', 'w16', 'w17', 'w18', 'w19', 'w20']);
    expect(lines[6]).toBe('  and 14 more, 15 of 20 done');
    expect(lines[7]).toMatch(/^ {2}all nodes/);
  });

  it('a narrow one does without bars', async () => {
    const clock = stopClock();
    const host = recordingHost({}, true, { columns: 60, rows: 10 });
    transferProgress(host)
      .start('a-node-with-a-name-that-is-longer-than-thirty', MB)
      .advance(MB / 2);
    await clock.advance(1_000);
    expect(shown(host)[0]).toBe('  a-node-with-a-name-that-is-lo…   50 %     500.0 kB of 1.0 MB  500.0 kB/s  1 s left');
  });

  it('all lines go with the last transfer, and a new one begins again', async () => {
    const clock = stopClock();
    const host = recordingHost({}, true);
    const progress = transferProgress(host);
    progress.start('w1', MB).end();
    expect(shown(host)).toEqual([]);
    await clock.advance(5_000);
    expect(host.progressLines).toHaveLength(1);
    progress.start('w1', 0);
    await clock.advance(200);
    expect(shown(host)).toEqual([expect.stringMatching(/^ {2}w1 .* 100 % .* 0 B of 0 B .* importing$/)]);
  });
});

import { tmpdir } from 'node:os';
import { describe, expect, it, onTestFinished, vi } from 'vitest';
import { endRun, startOfRun, startRun } from '../../../src/run.ts';
import { abandonedReferences, isPart, partReference, stageName, stageReference } from '../../../src/runtime/staging.ts';
import { recordingHost } from '../recording-host.ts';

const DAY_MS = 24 * 3600 * 1000;
const NOW_MS = Date.UTC(2026, 10, 24);

/** The ID of a run that began at this time. */
async function runIdAt(timeMs: number): Promise<string> {
  vi.useFakeTimers({ now: timeMs, toFake: ['Date'] });
  onTestFinished(() => {
    vi.useRealTimers();
  });
  const run = await startRun({ ...recordingHost(), temporaryDirectory: tmpdir() }, new AbortController().signal);
  await endRun(run);
  return run.id;
}

it('names a staged image so that it can be no real one, and runs do not meet', async () => {
  const [one, two] = [await runIdAt(NOW_MS), await runIdAt(NOW_MS)];
  expect(stageReference(one, 0)).toMatch(/^kube-sideload\.invalid\/[a-z0-9]{12,13}:0$/);
  expect(one).not.toBe(two);
});

it.each([Date.UTC(2026, 0, 1), Date.UTC(2037, 0, 1), Date.UTC(2039, 0, 1), Date.UTC(2100, 0, 1)])(
  'can tell from its name when a run began: %d',
  async timeMs => {
    expect(startOfRun(await runIdAt(timeMs))?.getTime()).toBe(timeMs);
  },
);

it('tells a part of an image from the image', () => {
  const stage = stageReference('t4y1q2abcdef', 12);
  const part = partReference(stage, 34);
  expect(part).toBe('kube-sideload.invalid/t4y1q2abcdef:12-34');
  expect([isPart(part), isPart(stage), isPart(`${part}x`), isPart('app:1-a')]).toEqual([true, false, false, false]);
  expect([stageName(part), stageName(stage)]).toEqual(Array(2).fill('kube-sideload.invalid/t4y1q2abcdef'));
});

describe('abandoned are', () => {
  it('the references of this run, and of runs that must be over', async () => {
    const own = await runIdAt(NOW_MS);
    const running = await runIdAt(NOW_MS - 4 * DAY_MS);
    const over = await runIdAt(NOW_MS - 6 * DAY_MS);
    const references = [own, running, over].flatMap(id => [stageReference(id, 0), stageReference(id, 1)]);
    expect(abandonedReferences(references, own, NOW_MS)).toEqual([
      stageReference(own, 0),
      stageReference(own, 1),
      stageReference(over, 0),
      stageReference(over, 1),
    ]);
  });

  it.each([
    'kube-sideload.invalid/',
    'kube-sideload.invalid/:0',
    'kube-sideload.invalid/something-else:1',
    'docker.io/library/app:1',
    'registry.example/team/t4y1q2abcdef:0',
    // At the place where the ID of a run would be, in a name that is somebody’s own.
    'registry.example/12345/000001abcdef:0',
  ])('not %s', async reference => {
    expect(abandonedReferences([reference], await runIdAt(NOW_MS), NOW_MS)).toEqual([]);
  });
});

import { expect, it } from 'vitest';
import { lostPods } from '../../../src/smoke/lost.ts';
import type { Pod } from '../../../src/smoke/objects.ts';

const OURS = 'tp8w8w742ca8';
const OTHER = 'tp8w0aabbccd';

function pod(name: string, run: string | undefined, createdAt: string, more: Partial<Pod> = {}): Pod {
  const labels: Record<string, string> = run === undefined ? {} : { 'kube-sideload/run': run };
  return {
    metadata: { name, uid: name, creationTimestamp: createdAt, labels },
    spec: { activeDeadlineSeconds: 120 },
    ...more,
  };
}

function lost(others: readonly Pod[], lostRuns: readonly string[] = []): readonly string[] {
  const pods = [pod('ours', OURS, '2026-11-29T04:00:00Z'), ...others];
  return lostPods(pods, OURS, new Set(lostRuns)).map(({ metadata }) => metadata.name);
}

it('leaves the pods of this run and of runs that may be alive', () => {
  expect(lost([pod('young', OTHER, '2026-11-29T03:59:00Z'), pod('at its end', OTHER, '2026-11-29T03:57:00Z')])).toEqual(
    [],
  );
});

it('takes the pods of a run that has lost its locks, however young', () => {
  expect(lost([pod('young', OTHER, '2026-11-29T04:00:01Z')], [OTHER])).toEqual(['young']);
  expect(lost([], [OURS])).toEqual([]);
});

it('takes a pod that the kubelet has ended after its time', () => {
  expect(lost([pod('ended', OTHER, '2026-11-29T03:59:59Z', { status: { reason: 'DeadlineExceeded' } })])).toEqual([
    'ended',
  ]);
});

it('takes a pod whose time is long up by the API server’s clock, as on a node without a kubelet', () => {
  expect(lost([pod('old', OTHER, '2026-11-29T03:56:59Z')])).toEqual(['old']);
});

it('knows no time when this run has no pod any more, and leaves pods without a run or a deadline', () => {
  expect(lostPods([pod('old', OTHER, '2020-01-01T00:00:00Z')], OURS, new Set())).toEqual([]);
  expect(lost([pod('foreign', undefined, '2020-01-01T00:00:00Z')])).toEqual([]);
  expect(lost([pod('endless', OTHER, '2020-01-01T00:00:00Z', { spec: {} })])).toEqual([]);
});

import type { Pod } from './objects.ts';
import { RUN_LABEL } from './pod.ts';

/** Longer than a run may take to delete its pods when the last of them has its verdict. */
const MARGIN_SECONDS = 60;

export function runOfPod({ metadata }: Pod): string | undefined {
  return metadata.labels?.[RUN_LABEL];
}

/**
 * The pods of other runs that nobody will delete any more: those of runs that have lost their locks, and those that the kubelet has
 * ended, or should have, as their time is up. No run keeps a pod for so long. What time it is the API server says, by
 * when it made the pods of this run: clocks of runners differ.
 */
export function lostPods(pods: readonly Pod[], runId: string, lostRuns: ReadonlySet<string>): readonly Pod[] {
  const createdAtMs = ({ metadata }: Pod) => Date.parse(metadata.creationTimestamp ?? '');
  const nowMs = Math.max(...pods.filter(pod => runOfPod(pod) === runId).map(createdAtMs));
  return pods.filter(pod => {
    const run = runOfPod(pod);
    const deadlineSeconds = pod.spec?.activeDeadlineSeconds ?? Number.POSITIVE_INFINITY;
    const isLate = nowMs - createdAtMs(pod) > (deadlineSeconds + MARGIN_SECONDS) * 1000;
    return (
      run !== undefined && run !== runId && (lostRuns.has(run) || pod.status?.reason === 'DeadlineExceeded' || isLate)
    );
  });
}

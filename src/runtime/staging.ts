import { startOfRun } from '../run.ts';

/**
 * Images arrive on a node under a name of their own, and the name that pods use moves only when every node has verified
 * them. `.invalid` can never be a real registry (RFC 2606).
 */
export const STAGE_PREFIX = 'kube-sideload.invalid/';

/** After this a run is over, whatever became of it: GitHub ends jobs on self-hosted runners after five days at most. */
const STALE_AFTER_MS = 5 * 24 * 3600 * 1000;

export function stageReference(runId: string, number: number): string {
  return `${STAGE_PREFIX}${runId}:${number}`;
}

/** A stage reference without its number. */
export function stageName(reference: string): string {
  return reference.replace(/:\d+$/, '');
}

/** The run whose stage reference this is. */
export function runOf(reference: string): string {
  return stageName(reference).slice(STAGE_PREFIX.length);
}

/** Where a runtime that reads no stream has an archive unpacked: this, the run, and something random. */
export const UNPACKED = '/var/tmp/kube-sideload.';

/** Of the stage references on a node those that this run or a run that must be over has left behind. */
export function abandonedReferences(references: readonly string[], runId: string, nowMs: number): readonly string[] {
  return references.filter(reference => {
    if (!reference.startsWith(STAGE_PREFIX)) {
      return false; // Somebody's own image.
    }
    const owner = runOf(reference);
    const start = startOfRun(owner);
    return owner === runId || (start !== undefined && nowMs - start.getTime() > STALE_AFTER_MS);
  });
}

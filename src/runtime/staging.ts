import { startOfRun } from '../run.ts';
import { PROCESSES } from './processes.ts';

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

/** The name of a part of a staged image, while the rest of it is on its way. */
export function partReference(stage: string, part: number): string {
  return `${stage}-${part}`;
}

export function isPart(reference: string): boolean {
  return /:\d+-\d+$/.test(reference);
}

/** A stage reference without its number. */
export function stageName(reference: string): string {
  return reference.replace(/:\d+(?:-\d+)?$/, '');
}

/** The run whose stage reference, or name of something kept, this is. */
export function runOf(reference: string): string {
  return reference.slice(STAGE_PREFIX.length).replace(/[:/].*/, '');
}

/** Where a runtime that reads no stream has an archive unpacked: this, the run, and something random. */
export const UNPACKED = '/var/tmp/kube-sideload.';

/** Of our references on a node the stage references of this run, and all that a run that must be over has left behind. */
export function abandonedReferences(references: readonly string[], runId: string, nowMs: number): readonly string[] {
  return references.filter(reference => {
    if (!reference.startsWith(STAGE_PREFIX)) {
      return false; // Somebody's own image.
    }
    const owner = runOf(reference);
    const start = startOfRun(owner);
    // What this run has kept goes when it has been put back, or is not needed any more.
    const isKept = reference.startsWith(`${STAGE_PREFIX}${owner}/`);
    return (owner === runId && !isKept) || (start !== undefined && nowMs - start.getTime() > STALE_AFTER_MS);
  });
}

/**
 * A function for scripts on nodes with {@link UNPACKED} archives: `let_imports_end NAME DIRECTORY`.
 * An import of a run that is over stops reading at once, but what skopeo or podman have begun to store they finish:
 * killed at that moment they leave an image without its manifest, and CRI-O can list no images any more.
 */
export const LET_IMPORTS_END = `${PROCESSES}
let_imports_end() {
  for process in $(ours "$2"); do
    about "$process" && [ "$name" = tar ] || continue
    kill "$process" 2>/dev/null || as_root kill "$process" 2>/dev/null
  done
  attempt=0
  while [ $attempt -lt 250 ]; do
    [ -n "$(ours "\${1%:*}")" ] || return 0
    attempt=$((attempt + 1))
    sleep 0.2
  done
  echo 'an import of this run does not come to its end' >&2
  exit 1
}`;

import { randomBytes } from 'node:crypto';
import { mkdtemp, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { rmRF } from '@actions/io';
import type { Host } from './host/host.ts';

/** One run of the tool: what belongs to it on the runner, on the nodes and in the cluster carries its ID. */
export interface Run {
  /** Lower case letters and digits: valid in labels, pod names and image references. Begins with the time. */
  readonly id: string;
  /** A directory of this run alone (0700) on the runner. */
  readonly scratch: string;
  /** Aborted when the job is cancelled. */
  readonly signal: AbortSignal;
}

export async function startRun(host: Host, signal: AbortSignal): Promise<Run> {
  const id = `${Math.floor(Date.now() / 1000).toString(36)}${randomBytes(3).toString('hex')}`;
  const scratch = await mkdtemp(join(host.temporaryDirectory, `kube-sideload-${id}-`));
  host.saveState('run', id);
  host.saveState('scratch', scratch);
  return { id, scratch, signal };
}

/** Removes everything of a run from the runner. */
export async function endRun(run: Pick<Run, 'scratch'>): Promise<void> {
  await rmRF(run.scratch);
}

/** When the run of this ID began; `undefined` for a text that is no ID. */
export function startOfRun(id: string): Date | undefined {
  return /^[0-9a-z]{12,13}$/.test(id) ? new Date(Number.parseInt(id.slice(0, -6), 36) * 1000) : undefined;
}

/** Writes a file that only this user can read; it goes with the run. */
export async function writeSecret(run: Run, name: string, content: string): Promise<string> {
  const file = join(run.scratch, name);
  await writeFile(file, content, { mode: 0o600, flag: 'wx' });
  return file;
}

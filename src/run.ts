import { randomBytes } from 'node:crypto';
import { lstat, mkdtemp, readdir, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { rmRF } from '@actions/io';
import { SideloadError } from './errors.ts';
import type { Host } from './host/host.ts';
import { judgePath } from './private-path.ts';
import { hasEnded, PROCESS, thisProcess } from './process.ts';
import { endLeftClients } from './ssh/openssh.ts';

/** One run of the tool: what belongs to it on the runner, on the nodes and in the cluster carries its ID. */
export interface Run {
  /** Lower case letters and digits: valid in labels, pod names and image references. Begins with the time. */
  readonly id: string;
  /** A directory of this run alone (0700) on the runner. */
  readonly scratch: string;
  /** Aborted when the job is cancelled. */
  readonly signal: AbortSignal;
}

/**
 * Makes the directory of a run.
 * @throws SideloadError INPUT_INVALID when there is no place where nobody else can write
 */
export async function startRun(host: Host, signal: AbortSignal): Promise<Run> {
  const id = `${Math.floor(Date.now() / 1000).toString(36)}${randomBytes(3).toString('hex')}`;
  const scratch = await mkdtemp(join(temporaryDirectory(host), `kube-sideload-${id}-${thisProcess()}-`));
  host.saveState('run', id);
  host.saveState('scratch', scratch);
  return { id, scratch, signal };
}

const SCRATCH_NAME = new RegExp(`^kube-sideload-[0-9a-z]+-(${PROCESS})-`);
/** Of a process that cannot be asked for, such as one of another container with the same directory. */
const LEFT_AFTER_MS = 24 * 3600 * 1000;

/** Removes what runs of this user that were killed have left: keys in files, and clients that hold connections. */
export async function sweepLeftRuns(host: Pick<Host, 'temporaryDirectory'>): Promise<void> {
  for (const place of placesOf(host)) await sweep(place);
}

async function sweep(place: string): Promise<void> {
  for (const name of await readdir(place).catch(() => [])) {
    const owner = SCRATCH_NAME.exec(name)?.[1];
    const path = join(place, name);
    const info = owner === undefined ? undefined : await lstat(path).catch(() => undefined);
    if (owner === undefined || info?.isDirectory() !== true || info.uid !== process.getuid?.()) {
      continue; // Anybody may make something of this name.
    }
    if (hasEnded(owner) ?? Date.now() - info.mtimeMs > LEFT_AFTER_MS) {
      await endLeftClients(path);
      await endRun({ scratch: path }).catch(() => {});
    }
  }
}

/**
 * Where keys and layers of a run may lie. In a container that belongs to a job (`container:` on GitHub) the CI system's own
 * directory is another user's, who could put another in the place of ours; the machine's is sticky there.
 */
function temporaryDirectory(host: Host): string {
  const judged = placesOf(host).map(place => judgePath(place, { mayBeSticky: true }));
  const safe = judged.find(({ exposure }) => exposure === undefined);
  const why = judged[0]?.exposure;
  if (safe === undefined) {
    throw new SideloadError('INPUT_INVALID', `there is no safe place for the files of this run: ${why}`, {
      hint: 'Set TMPDIR (on GitHub: RUNNER_TEMP) to a directory that only this user can write to, and whose parents only this user or root can.',
    });
  }
  if (why !== undefined) host.warning(`the files of this run lie in ${safe.path}: ${why}`);
  return safe.path;
}

function placesOf({ temporaryDirectory }: Pick<Host, 'temporaryDirectory'>): readonly string[] {
  return [...new Set([temporaryDirectory, tmpdir(), '/var/tmp'])];
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

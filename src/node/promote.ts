import { SideloadError, toSideloadError } from '../errors.ts';
import { faultOf } from '../plan.ts';
import type { Run } from '../run.ts';
import { runtimeOf } from '../runtime/detect.ts';
import { type Kept, keepScript, keptNames, parseKept, restoreScript } from '../runtime/kept.ts';
import type { Settings } from '../settings.ts';
import { removeByCri } from '../smoke/cri.ts';
import type { SshTransport } from '../ssh/transport.ts';
import { type Refusal, renewLocks, takeLocks } from './lock.ts';
import { type Node, type NodeImage, nameOf, noteError, notingError, ready } from './node.ts';
import { unpinOf } from './pin.ts';
import { forgetNoted } from './retention.ts';
import { CHANGE_MS, runScript } from './script.ts';
import { forgetKept, freeNamesOn, insistOn, inspect, removeStaged } from './steps.ts';

/**
 * Makes the final references name what was staged, removes the stage references, and has the CRI confirm the result.
 * What they named before stays on the node, to be put back, unless `atomic` is false.
 * @param stageAgain sends images that the node had, and that another job has moved away since
 */
export async function promoteImages(
  node: Node,
  { atomic }: Pick<Settings, 'atomic'>,
  run: Run,
  stageAgain: (images: readonly NodeImage[]) => Promise<void>,
): Promise<void> {
  const references = node.images.map(({ reference }) => reference);
  await move(node, atomic, run);
  let held = await inspect(node, references, run.signal);
  const isAway = ({ stage, reference, image }: NodeImage) =>
    stage === undefined && faultOf(held.get(reference), image) !== undefined;
  if (node.images.some(isAway)) {
    await stageAgain(node.images.filter(isAway));
    await move(node, atomic, run);
    held = await inspect(node, references, run.signal);
  }
  for (const image of node.images) {
    await notingError(node, image, async () => {
      const fault = faultOf(held.get(image.reference), image.image);
      if (fault !== undefined) {
        throw new SideloadError('VERIFY_FAILED', `${nameOf(image)} in the end: ${fault}`);
      }
      image.seenAtMs = Date.now();
    });
    image.isPinned = held.get(image.reference)?.isPinned === true;
    if (image.stage !== undefined) {
      image.outcome = 'sent';
    }
  }
}

/** Notes before anything moves what a failure would have to put back. */
async function move(node: Node, atomic: boolean, run: Run): Promise<void> {
  const moving = node.images.flatMap(({ stage, reference, hasMoved }) =>
    stage === undefined || hasMoved ? [] : [{ stage, reference }],
  );
  if (moving.length === 0) {
    return;
  }
  const { connection, facts } = ready(node);
  const runtime = runtimeOf(facts.runtime.name);
  const names = runtime.names(facts);
  const moves = moving.flatMap(({ stage, reference }) => {
    const kept = keptNames(run.id, reference);
    return kept === undefined ? [] : [{ ...kept, stage }];
  });
  if (atomic && names !== undefined) {
    node.kept = [...node.kept, ...moves];
    await runScript(connection, keepScript(names, facts, moves), run.signal, 'keeping what is there', CHANGE_MS);
  }
  for (const image of node.images) {
    image.hasMoved = image.stage !== undefined;
  }
  const pairs = moving.map(({ stage, reference }) => ({ from: stage, to: reference }));
  await runScript(connection, runtime.tag(facts, pairs), run.signal, 'moving the references', CHANGE_MS);
  await removeStaged(node, run.id, run.signal);
}

/**
 * Puts all references of a node that this run may have moved back to what they named before, and notes with each image
 * what became of it. Never throws: it runs when the job has failed already.
 */
export async function restoreImages(
  node: Node,
  settings: Settings,
  ssh: SshTransport,
  runId: string,
  log: (line: string) => void,
): Promise<void> {
  const { label } = node.settings;
  const moved = node.images.filter(({ hasMoved }) => hasMoved);
  if (node.kept.length === 0 && moved.length === 0 && !node.hasPinned && node.noted === undefined) {
    return;
  }
  if (node.facts !== undefined && runtimeOf(node.facts.runtime.name).names(node.facts) === undefined) {
    log(`${label}: nothing is put back: the user may load images there, and can move or remove no name`);
    return;
  }
  const kept = new Set(node.kept.map(({ reference }) => reference));
  const failed = new Map<string, string>();
  let taken: ReadonlyMap<string, string> = new Map();
  try {
    await insistOn(node, settings, ssh, async signal => {
      failed.clear();
      await removeSmoked(node, settings, runId, signal);
      const lost = await renewLocks(node, runId, signal);
      const own = node.kept.filter(one => lost.every(({ reference }) => reference !== one.reference));
      taken = await takenByOthers(node, own, signal);
      const restored = await restoreKept(
        node,
        own.filter(({ reference }) => !taken.has(reference)),
        signal,
        log,
      );
      for (const [reference, fault] of [...restored, ...lost.map(takenOver)]) failed.set(reference, fault);
      if (node.hasPinned) {
        await unpinOf(node, runId, runId, signal);
      }
      await forgetNoted(node, reference => !(failed.has(reference) || taken.has(reference)), signal);
      if (failed.size === 0) {
        for (const { reference } of await forgetKept(node, signal)) {
          log(`${label}: a container still uses what ${reference} named meanwhile: it stays without a name`);
        }
      }
    });
  } catch (thrown) {
    for (const { reference } of moved) failed.set(reference, toSideloadError(thrown).message);
  }
  for (const image of moved) {
    const now = taken.get(image.reference);
    if (now !== undefined) {
      const message = `${image.reference} is not put back: it names ${now}, which somebody else has put there meanwhile`;
      image.outcome = 'changed';
      const changed = new SideloadError('CHANGED_SINCE', message, { node: label });
      image.error ??= changed;
      noteError(node, changed);
      log(`${label}: ${message}`);
      continue;
    }
    const fault =
      failed.get(image.reference) ?? (kept.has(image.reference) ? undefined : 'its name is too long to be kept');
    if (fault === undefined) {
      image.outcome = 'restored';
    } else {
      const message = `${image.reference} still names the new image, or none: ${fault}`;
      const before = image.error;
      image.error = new SideloadError('RESTORE_FAILED', message, { node: label });
      for (const error of [before, image.error].filter(one => one !== undefined)) noteError(node, error);
      log(`${label}: ${message}`);
    }
  }
  // Names that could not be put back are left to a person.
  node.kept = [];
}

/**
 * The kubelet takes away the containers of a pod that is gone with its next collection, a minute later at most, and podman and
 * Docker keep what is in use until then. Who may do more than what a sudoers file of ours says does not wait for that.
 */
async function removeSmoked(
  node: Node,
  { smoke }: Pick<Settings, 'smoke'>,
  runId: string,
  signal: AbortSignal,
): Promise<void> {
  const { connection, facts } = ready(node);
  if (smoke?.by === 'pod' && facts.runtime.name !== 'containerd' && !facts.isNarrow) {
    // What stays is told when its image does.
    await removeByCri(connection, facts, runId, signal).catch(() => {});
  }
}

/**
 * The references that name neither what this run has moved there nor what was there before, and what they name: that is
 * somebody else's, and newer.
 */
async function takenByOthers(
  node: Node,
  kept: readonly Kept[],
  signal: AbortSignal,
): Promise<ReadonlyMap<string, string>> {
  const names = kept.flatMap(({ reference, before, absent }) => [reference, before, absent]);
  const held = kept.length === 0 ? new Map() : await inspect(node, names, signal);
  const idOf = (name: string) => held.get(name)?.imageId;
  return new Map(
    kept.flatMap(({ reference, before, absent }) => {
      const now = idOf(reference);
      const own = node.images.find(image => image.reference === reference)?.image.imageId;
      const isKept = idOf(before) !== undefined || idOf(absent) !== undefined;
      return isKept && now !== undefined && now !== own && now !== idOf(before) ? [[reference, now]] : [];
    }),
  );
}

/**
 * What a run that was killed has kept on a node is put back, or, once it had ended well, let go. What another run has
 * locked since is left to that one.
 */
export async function settleLeft(
  node: Node,
  runId: string,
  isSettled: boolean,
  signal: AbortSignal,
  log: (line: string) => void,
): Promise<void> {
  const found = keptOn(node).filter(one => one.runId === runId);
  const own = [...new Map(found.map(({ kept }) => [kept.reference, kept])).values()];
  const references = own.map(({ reference }) => reference);
  const { refusals } = own.length === 0 ? { refusals: [] } : await takeLocks(node, references, runId, signal);
  for (const refusal of refusals) {
    log(`${node.settings.label}: ${refusal.reference} is not put back: ${takenOver(refusal)[1]}`);
  }
  node.kept = own.filter(one => refusals.every(({ reference }) => reference !== one.reference));
  if (!isSettled) {
    throwFailed(await restoreKept(node, node.kept, signal, log));
  }
  await forgetKept(node, signal);
}

/**
 * Puts back what other runs have kept of references that this run has locked: they are gone, and nobody knows whether
 * what they moved there runs.
 * @param locked references, and the runs whose locks had run out
 */
export async function settleOthers(
  node: Node,
  locked: ReadonlyMap<string, string | undefined>,
  run: Run,
  log: (line: string) => void,
): Promise<void> {
  const left = keptOn(node).filter(({ runId, kept }) => runId !== run.id && locked.has(kept.reference));
  const orphans = [...locked].flatMap(([reference, runId]) => {
    const kept = runId === undefined ? undefined : keptNames(runId, reference);
    return runId === undefined || kept === undefined ? [] : [{ runId, kept }];
  });
  for (const runId of [...left.map(one => one.runId), ...locked.values()]) {
    if (runId !== undefined) node.lostRuns.add(runId);
  }
  const all = [...new Map([...left, ...orphans].map(one => [one.kept.before, one])).values()];
  for (const runId of new Set(all.map(one => one.runId))) {
    const kept = all.filter(one => one.runId === runId).map(one => one.kept);
    // Most often it has ended well since this run has asked the node, and nothing is there any more.
    let isOrphaned = false;
    const say = (line: string) => {
      isOrphaned = true;
      log(`${line}: run ${runId} has ended without a verdict`);
    };
    throwFailed(await restoreKept(node, kept, run.signal, say));
    if (isOrphaned) {
      await unpinOf(node, runId, run.id, run.signal);
    }
    await freeNamesOn(
      node,
      kept.flatMap(({ before, absent }) => [before, absent]),
      run.signal,
    );
  }
}

function keptOn(node: Node) {
  return ready(node).facts.staged.flatMap(name => parseKept(name) ?? []);
}

function takenOver({ reference, run }: Refusal): readonly [reference: string, fault: string] {
  return [reference, `run ${run} has locked it since`];
}

function throwFailed(failed: ReadonlyMap<string, string>): void {
  if (failed.size > 0) {
    const lines = [...failed].map(([reference, fault]) => `${reference}: ${fault}`);
    throw new SideloadError('RESTORE_FAILED', lines.join('\n'));
  }
}

/** @returns by reference, why it is not what it was. */
async function restoreKept(
  node: Node,
  kept: readonly Kept[],
  signal: AbortSignal,
  log: (line: string) => void,
): Promise<ReadonlyMap<string, string>> {
  const { connection, facts } = ready(node);
  const names = runtimeOf(facts.runtime.name).names(facts);
  const failed = new Map<string, string>();
  if (kept.length === 0 || names === undefined) {
    return failed;
  }
  const said = await runScript(
    connection,
    restoreScript(names, facts, kept),
    signal,
    'putting back the references',
    CHANGE_MS,
  );
  const marked = [...kept.entries()].map(([number, one]) => ({ ...one, state: said.get(`restored ${number}`) ?? '' }));
  const asked = marked.filter(({ state }) => state === 'before' || state === 'absent');
  const held = await inspect(
    node,
    asked.flatMap(({ reference, before, state }) => (state === 'absent' ? [reference] : [reference, before])),
    signal,
    new Map(),
  );
  for (const { reference, before, state } of marked) {
    const imageId = held.get(reference)?.imageId;
    // Nothing is there under the name that was not kept, as nothing was before.
    if (state !== 'unmarked' && (state === '' || imageId !== held.get(before)?.imageId)) {
      failed.set(reference, state === 'absent' ? 'it cannot be removed' : `what it named before is kept as ${before}`);
    } else if (state !== 'unmarked') {
      const now =
        state === 'absent' ? 'gone again, as before' : `again ${imageId ?? 'what it was, which the CRI does not know'}`;
      log(`${node.settings.label}: ${reference} is ${now}`);
    }
  }
  return failed;
}

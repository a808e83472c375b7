import { SideloadError, toSideloadError } from '../errors.ts';
import { faultOf } from '../plan.ts';
import type { Run } from '../run.ts';
import { runtimeOf } from '../runtime/detect.ts';
import { type Kept, keepScript, keptNames, parseKept, restoreScript } from '../runtime/kept.ts';
import type { Settings } from '../settings.ts';
import type { SshTransport } from '../ssh/transport.ts';
import { type Node, notingError, ready } from './node.ts';
import { runScript } from './script.ts';
import { CLEAN_UP_MS, forgetKept, inspect, removeStaged, tryingTwice } from './steps.ts';

/**
 * Makes the final references name what was staged, removes the stage references, and has the CRI confirm the result.
 * What they named before stays on the node, to be put back, unless `atomic` is false.
 */
export async function promoteImages(node: Node, { atomic }: Pick<Settings, 'atomic'>, run: Run): Promise<void> {
  const moving = node.images.flatMap(({ stage, reference }) => (stage === undefined ? [] : [{ stage, reference }]));
  if (moving.length > 0) {
    await move(node, moving, atomic, run);
  }
  const held = await inspect(
    node,
    node.images.map(image => image.reference),
    run.signal,
  );
  for (const image of node.images) {
    await notingError(node, image, async () => {
      const fault = faultOf(held.get(image.reference), image.image);
      if (fault !== undefined) {
        throw new SideloadError('VERIFY_FAILED', `${image.reference} in the end: ${fault}`);
      }
    });
    if (image.stage !== undefined) {
      image.outcome = 'sent';
    }
  }
}

/** Notes before anything moves what a failure would have to put back. */
async function move(
  node: Node,
  moving: readonly { readonly stage: string; readonly reference: string }[],
  atomic: boolean,
  run: Run,
): Promise<void> {
  const { connection, facts } = ready(node);
  const runtime = runtimeOf(facts.runtime.name);
  const names = runtime.names(facts);
  const moves = moving.flatMap(({ stage, reference }) => {
    const kept = keptNames(run.id, reference);
    return kept === undefined ? [] : [{ ...kept, stage }];
  });
  if (atomic && names !== undefined) {
    node.kept = moves;
    await runScript(connection, keepScript(names, facts, moves), run.signal);
  }
  for (const image of node.images) {
    image.hasMoved = image.stage !== undefined;
  }
  const pairs = moving.map(({ stage, reference }) => ({ from: stage, to: reference }));
  await runScript(connection, runtime.tag(facts, pairs), run.signal);
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
  log: (line: string) => void,
): Promise<void> {
  const { label } = node.settings;
  const moved = node.images.filter(({ hasMoved }) => hasMoved);
  if (node.kept.length === 0 && moved.length === 0) {
    return;
  }
  if (node.facts !== undefined && runtimeOf(node.facts.runtime.name).names(node.facts) === undefined) {
    log(`${label}: nothing is put back: the user may load images there, and can move or remove no name`);
    return;
  }
  const kept = new Set(node.kept.map(({ reference }) => reference));
  const failed = new Map<string, string>();
  try {
    const signal = AbortSignal.timeout(CLEAN_UP_MS);
    await tryingTwice(node, settings, ssh, signal, async () => {
      failed.clear();
      const restored = await restoreKept(node, node.kept, signal, log);
      for (const [reference, fault] of restored) failed.set(reference, fault);
    });
    if (failed.size === 0) {
      await forgetKept(node, signal);
    }
  } catch (thrown) {
    for (const { reference } of moved) failed.set(reference, toSideloadError(thrown).message);
  }
  for (const image of moved) {
    const fault =
      failed.get(image.reference) ?? (kept.has(image.reference) ? undefined : 'its name is too long to be kept');
    if (fault === undefined) {
      image.outcome = 'restored';
    } else {
      const message = `${image.reference} still names the new image, or none: ${fault}`;
      image.error = new SideloadError('RESTORE_FAILED', message, { node: label });
      node.error ??= image.error;
      log(`${label}: ${message}`);
    }
  }
  // Names that could not be put back are left to a person.
  node.kept = [];
}

/** What a run that was killed has kept on a node is put back, or, once it had ended well, let go. */
export async function settleLeft(
  node: Node,
  runId: string,
  isSettled: boolean,
  signal: AbortSignal,
  log: (line: string) => void,
): Promise<void> {
  const found = ready(node).facts.staged.flatMap(name => parseKept(name) ?? []);
  const own = new Map(found.filter(one => one.runId === runId).map(({ kept }) => [kept.reference, kept]));
  node.kept = [...own.values()];
  if (!isSettled) {
    const failed = await restoreKept(node, node.kept, signal, log);
    if (failed.size > 0) {
      const lines = [...failed].map(([reference, fault]) => `${reference}: ${fault}`);
      throw new SideloadError('RESTORE_FAILED', lines.join('\n'));
    }
  }
  await forgetKept(node, signal);
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
  const said = await runScript(connection, restoreScript(names, facts, kept), signal);
  const marked = [...kept.entries()].map(([number, one]) => ({ ...one, state: said.get(`restored ${number}`) ?? '' }));
  const asked = marked.filter(({ state }) => state === 'before' || state === 'absent');
  const held = await inspect(
    node,
    asked.flatMap(({ reference, before, state }) => (state === 'absent' ? [reference] : [reference, before])),
    signal,
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

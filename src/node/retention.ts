import { messageOf, SideloadError, toSideloadError } from '../errors.ts';
import { repositoryOf } from '../image/reference.ts';
import { decide } from '../retention.ts';
import type { Run } from '../run.ts';
import { containers, usedImages } from '../runtime/containers.ts';
import { runtimeOf } from '../runtime/detect.ts';
import { forget } from '../runtime/forget.ts';
import { findNames, foundNames, type Names } from '../runtime/names.ts';
import { type Node, ready } from './node.ts';
import { unpinImages } from './pin.ts';
import { changeRecord, READ_RECORD, type RecordEntry, readRecord } from './record.ts';
import { CHANGE_MS, runScript } from './script.ts';
import { inspect } from './steps.ts';

/** How much longer it may take for each release that is removed. */
const REMOVE_ONE_MS = 60_000;
/** What is done with the record, for whoever waits. */
const READING = 'reading what is ours';
const NOTING = 'noting what is ours';

/**
 * Writes into the node's record what this run has put there. A reference that was there already is ours only when the
 * record says so; it then counts as put anew.
 * @returns why there is no record, where the user may not write one; else `undefined`
 */
export async function noteImages(node: Node, run: Run): Promise<string | undefined> {
  const { connection, facts } = ready(node);
  if (facts.privilege === 'user') {
    return 'the user may not write it';
  }
  try {
    const recorded = readRecord(await runScript(connection, READ_RECORD, run.signal, READING));
    const isRecorded = ({ reference, imageId }: Pick<RecordEntry, 'reference' | 'imageId'>) =>
      recorded.some(one => one.reference === reference && one.imageId === imageId);
    const placedAt = Math.floor(Date.now() / 1000);
    const added = node.images
      .filter(({ isSandbox, outcome }) => !isSandbox && outcome !== 'none')
      .map(({ reference, image, outcome }) => ({ reference, imageId: image.imageId, outcome }))
      .filter(one => one.outcome === 'sent' || isRecorded(one))
      .map(({ reference, imageId }) => ({ reference, imageId, placedAt, run: run.id, isPinned: node.hasPinned }));
    if (added.length > 0) {
      const isReplaced = (old: RecordEntry) => added.some(({ reference }) => reference === old.reference);
      node.noted = { added, replaced: recorded.filter(isReplaced) };
      await runScript(connection, changeRecord(added), run.signal, NOTING);
    }
    return undefined;
  } catch (thrown) {
    const error = toSideloadError(thrown);
    if (error.code !== 'REMOTE_COMMAND_FAILED') {
      throw error;
    }
    return error.message;
  }
}

/**
 * Makes the record say again what it said before {@link noteImages}.
 * @param isOurs whether a reference is still as this run has left it, or put back
 */
export async function forgetNoted(
  node: Node,
  isOurs: (reference: string) => boolean,
  signal: AbortSignal,
): Promise<void> {
  const { added = [], replaced = [] } = node.noted ?? {};
  const own = (entries: readonly RecordEntry[]) => entries.filter(({ reference }) => isOurs(reference));
  if (own(added).length > 0) {
    await runScript(ready(node).connection, changeRecord(own(replaced), own(added)), signal, NOTING);
  }
  node.noted = undefined;
}

/**
 * Takes away what we have put on the node, what is older than the newest `keep` releases of its repository, and what no
 * container was made from. The node's `retention` has what became of each reference.
 * @param repositories `undefined` for all that are in the record
 */
export async function retainImages(
  node: Node,
  { keep, repositories, isDryRun }: RetentionOptions,
  run: Run,
): Promise<void> {
  const { connection, facts } = ready(node);
  const recorded = readRecord(await runScript(connection, READ_RECORD, run.signal, READING));
  const entries = recorded.filter(({ reference }) => repositories?.has(repositoryOf(reference)) ?? true);
  if (entries.length === 0) {
    node.retention = [];
    return;
  }
  const references = entries.map(({ reference }) => reference);
  const used = usedOf(
    node,
    await runScript(connection, containers(facts), run.signal, 'reading what its containers are made from'),
  );
  const named = [...used.names].filter(name => !references.includes(name));
  const held = await inspect(node, [...references, ...named], run.signal);
  const unread = references.filter(name => held.get(name) === undefined);
  const unreadable = await namesOn(node, unread, run.signal);
  if (unreadable.length > 0) {
    throw new SideloadError('REMOTE_COMMAND_FAILED', `named, and nobody can say what: ${unreadable.join(', ')}`);
  }
  // A container may have been made from another name of the same image.
  const ids = [...used.names].flatMap(name => held.get(name)?.imageId ?? []);
  const fates = decide(entries, held, { names: used.names, ids: new Set([...used.ids, ...ids]) }, keep);
  const noted = (isGone: (reference: string) => boolean) =>
    fates.map(({ entry: { reference, imageId, placedAt }, fate }) => ({
      reference,
      imageId,
      placedAt: new Date(placedAt * 1000).toISOString(),
      fate: fate !== 'remove' ? fate : isGone(reference) ? ('removed' as const) : ('removable' as const),
    }));
  node.retention = noted(() => false);
  if (isDryRun) {
    return;
  }
  const old = fates.filter(({ fate }) => fate === 'remove').map(({ entry }) => entry);
  if (old.length > 0) {
    const names = old.map(({ reference }) => reference);
    const pinned = old.filter(({ isPinned }) => isPinned).map(({ reference }) => reference);
    await unpinImages(node, pinned, run.id, run.signal);
    const [forgotten] = await Promise.allSettled([
      runScript(
        connection,
        forget(namesOf(node), facts, names),
        run.signal,
        'removing old releases',
        CHANGE_MS + names.length * REMOVE_ONE_MS,
      ),
    ]);
    const still = await namesOn(node, names, run.signal).catch((thrown: unknown) => {
      throw forgotten.status === 'rejected' ? forgotten.reason : thrown;
    });
    // Also of a removal that stopped half-way it is known what went.
    node.retention = noted(reference => !still.includes(reference));
    if (forgotten.status === 'rejected') {
      throw forgotten.reason;
    }
    if (still.length > 0) {
      throw new SideloadError('REMOTE_COMMAND_FAILED', `removed, and there all the same: ${still.join(', ')}`);
    }
  }
  const dropped = fates.filter(({ fate }) => fate === 'remove' || fate === 'gone' || fate === 'changed');
  if (dropped.length > 0) {
    const script = changeRecord(
      [],
      dropped.map(({ entry }) => entry),
    );
    await runScript(connection, script, run.signal, NOTING);
  }
}

/** Which of these names the node's runtime has, in its own words: its silence is no answer. */
async function namesOn(node: Node, references: readonly string[], signal: AbortSignal): Promise<readonly string[]> {
  if (references.length === 0) {
    return [];
  }
  const { connection, facts } = ready(node);
  return foundNames(
    await runScript(connection, findNames(namesOf(node), facts, references), signal, 'reading which names it has'),
    references,
  );
}

function namesOf(node: Node): Names {
  const { facts } = ready(node);
  const names = runtimeOf(facts.runtime.name).names(facts);
  if (names === undefined) {
    throw new SideloadError('REMOTE_COMMAND_FAILED', 'the user may load images there, and can remove no name');
  }
  return names;
}

export interface RetentionOptions {
  /** How many releases of a repository stay, at least 1. */
  readonly keep: number;
  readonly repositories: ReadonlySet<string> | undefined;
  readonly isDryRun: boolean;
}

function usedOf(node: Node, sections: Awaited<ReturnType<typeof runScript>>) {
  try {
    return usedImages(sections);
  } catch (thrown) {
    throw new SideloadError('REMOTE_COMMAND_FAILED', messageOf(thrown), { node: node.settings.label });
  }
}

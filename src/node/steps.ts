import { follow, pause, within } from '../abort.ts';
import { SideloadError } from '../errors.ts';
import { referencesOf, type SourceImage } from '../image/image.ts';
import { planNode } from '../plan.ts';
import type { Run } from '../run.ts';
import { runtimeOf } from '../runtime/detect.ts';
import { type Kept, parseKept } from '../runtime/kept.ts';
import { freeNames, stayingImages } from '../runtime/names.ts';
import type { HeldImage } from '../runtime/runtime.ts';
import { abandonedReferences, stageReference } from '../runtime/staging.ts';
import type { Settings } from '../settings.ts';
import type { SshTransport } from '../ssh/transport.ts';
import { parseFacts, parseMachine } from './facts.ts';
import { askLayers } from './layers.ts';
import { releaseLocks } from './lock.ts';
import { type Node, type NodeImage, ready } from './node.ts';
import { probe } from './probe.ts';
import { becomeRoot } from './root.ts';
import { CHANGE_MS, runScript } from './script.ts';
import { askShortNames, namesOn, type Written } from './short-names.ts';

/** How long nodes may take to be put in order once the job has been cancelled. */
const CLEAN_UP_MS = 60_000;
/** And how long locks may take to go on a node where nothing else could be done. */
const LET_GO_MS = 10_000;

const RETRY_AFTER_MS = { first: 1000, most: 30_000 };

/** How long to wait for a node that has failed so many times in a row after the first. */
export function retryAfterMs(failures: number): number {
  return Math.min(RETRY_AFTER_MS.most, RETRY_AFTER_MS.first * 2 ** failures);
}

/** Connects to a node and asks it for its facts. The connection outlives a cancellation, to clean up over it. */
export async function prepareNode(
  node: Node,
  settings: Settings,
  ssh: SshTransport,
  signal: AbortSignal,
): Promise<void> {
  signal.throwIfAborted();
  const lifetime = follow(signal);
  try {
    node.connection = await ssh.connect(node.settings, lifetime.signal);
    const { sudo } = node.settings;
    node.connection = await becomeRoot(node.connection, { sudo, password: settings.ssh.sudoPassword }, signal);
  } finally {
    lifetime.release();
  }
  const sections = await probe(node.connection, node.settings.criSocket ?? settings.criSocket, signal);
  node.machine = parseMachine(sections, node.settings.label);
  const facts = parseFacts(sections, node.settings.label);
  // By now the CRI may have made names of what this run has brought.
  node.facts = { ...facts, imageIds: node.facts?.imageIds ?? facts.imageIds };
}

/**
 * Finds out which references the node lacks, and which layers of them, with those of `sandboxes`, which are sent along.
 * Those of one image, aliases say, share a stage reference: it is sent once.
 */
export async function planImages(
  node: Node,
  images: readonly SourceImage[],
  sandboxes: readonly SourceImage[],
  settings: Pick<Settings, 'delta' | 'smoke'>,
  run: Run,
): Promise<void> {
  const written = images.flatMap(image => writtenNames(image, settings));
  const { names, faults } = namesOn(
    written,
    await askShortNames(
      node,
      written.flatMap(({ spellings }) => spellings),
      run.signal,
    ),
  );
  node.nameFaults = faults;
  const spelled = new Map(names.map(({ reference, spelling }) => [reference, spelling]));
  const wanted = [
    ...names.map(({ image, reference }) => ({ ...image, reference })),
    ...sandboxes.flatMap(image => referencesOf(image).map(reference => ({ ...image, reference }))),
  ];
  const held = await inspect(
    node,
    wanted.map(image => image.reference),
    run.signal,
  );
  const plans = planNode(wanted, ready(node).facts, held);
  const imageIds = [...new Set(plans.map(({ image }) => image.imageId))];
  node.images = plans.map(({ reference, image, action }) => ({
    reference,
    spelling: spelled.get(reference) ?? reference,
    image,
    isSandbox: sandboxes.some(sandbox => sandbox.reference === reference),
    stage: action === 'send' ? stageReference(run.id, imageIds.indexOf(image.imageId)) : undefined,
    held: [],
    isWhole: false,
    estimate: { bytes: 0, isExact: true },
    hasMoved: false,
    isPinned: false,
    outcome: action === 'send' ? 'none' : 'present',
    bytesSent: 0,
    smoke: undefined,
  }));
  await askLayers(
    node,
    node.images.filter(({ stage }) => stage !== undefined),
    settings,
    run,
  );
}

/** Has images sent after all which the node had when it was asked. */
export async function planAgain(
  node: Node,
  away: readonly NodeImage[],
  settings: Pick<Settings, 'delta'>,
  run: Run,
): Promise<void> {
  const imageIds = [...new Set(node.images.map(({ image }) => image.imageId))];
  node.images = node.images.map(image =>
    away.includes(image)
      ? { ...image, stage: stageReference(run.id, imageIds.indexOf(image.image.imageId)), outcome: 'none' }
      : image,
  );
  const isNew = ({ stage, hasMoved }: NodeImage) => stage !== undefined && !hasMoved;
  await askLayers(node, node.images.filter(isNew), settings, run);
}

/**
 * Takes away what a failed or cancelled run has staged on the node and its locks there, and closes the connection. The node may be
 * unreachable for a while.
 */
export async function leaveNode(node: Node, settings: Settings, ssh: SshTransport, runId: string): Promise<void> {
  try {
    const hasLeases =
      settings.mode === 'push' && node.error === undefined && node.facts !== undefined && node.facts.leases.length > 0;
    if (node.staged.size > 0 || node.kept.length > 0 || node.lock !== undefined || hasLeases) {
      await insistOn(node, settings, ssh, async signal => {
        if (node.staged.size > 0 || node.kept.length > 0 || hasLeases) {
          await removeStaged(node, runId, signal);
          await forgetKept(node, signal);
        }
        await releaseLocks(node, runId, signal);
      });
    }
  } catch (thrown) {
    // A runtime that hangs holds up what was staged there; who waits for the locks is not to wait with it.
    if (node.facts !== undefined) {
      await within(LET_GO_MS, undefined, signal => releaseLocks(node, runId, signal)).catch(() => {});
    }
    throw thrown;
  } finally {
    await node.connection?.close();
  }
}

/**
 * Does something on a node that must not be left undone, for a while: a cancelled job has to end. When it fails it is tried
 * over a new connection, at once and then as often as a transfer: a node that has lost its power takes a while to come back.
 */
export async function insistOn(
  node: Node,
  settings: Settings,
  ssh: SshTransport,
  act: (signal: AbortSignal) => Promise<void>,
): Promise<void> {
  const late = () => new SideloadError('NODE_SILENT', `it could not be put in order within ${CLEAN_UP_MS / 1000} s`);
  const insist = async (signal: AbortSignal) => {
    for (let failures = 0; ; failures += 1) {
      try {
        if (failures > 0) {
          await node.connection?.close();
          await prepareNode(node, settings, ssh, signal);
        }
        return await act(signal);
      } catch (thrown) {
        if (signal.aborted || failures > settings.retries) {
          throw thrown;
        }
        if (failures > 0) {
          await pause(retryAfterMs(failures - 1), signal).catch(() => {
            throw thrown; // there is no time left
          });
        }
      }
    }
  };
  await within(CLEAN_UP_MS, undefined, insist, late);
}

/** Removes the stage references of this run, and of those that ended without doing so, with the leases that these have left. */
export async function removeStaged(node: Node, runId: string, signal: AbortSignal): Promise<void> {
  const { connection, facts } = ready(node);
  const runtime = runtimeOf(facts.runtime.name);
  const references = [...new Set([...node.staged.keys(), ...abandonedReferences(facts.staged, runId, Date.now())])];
  const staged = references.filter(reference => parseKept(reference) === undefined);
  if (staged.length > 0 || facts.leases.length > 0) {
    await runScript(connection, runtime.remove(facts, staged), signal, 'removing what was staged', CHANGE_MS);
    node.facts = { ...facts, leases: [] };
  }
  await freeNamesOn(
    node,
    references.filter(reference => !staged.includes(reference)),
    signal,
  );
  node.staged.clear();
}

/** Takes away the names of what this run has kept. @returns those of which the image stays, as a container uses it. */
export async function forgetKept(node: Node, signal: AbortSignal): Promise<readonly Kept[]> {
  const { kept } = node;
  const staying = await freeNamesOn(
    node,
    kept.flatMap(({ before, absent }) => [before, absent]),
    signal,
  );
  node.kept = [];
  return kept.filter(({ absent }) => staying.includes(absent));
}

/** Takes away names that this tool has given. @returns those of which the image stays without a name. */
export async function freeNamesOn(
  node: Node,
  references: readonly string[],
  signal: AbortSignal,
): Promise<readonly string[]> {
  const { connection, facts } = ready(node);
  const names = runtimeOf(facts.runtime.name).names(facts);
  if (references.length === 0 || names === undefined) {
    return [];
  }
  const script = freeNames(names, facts, references);
  return stayingImages(await runScript(connection, script, signal, 'taking away names', CHANGE_MS), references);
}

/** The names of an image as the user's own pods, his inputs or the archive write them, in this order. */
function writtenNames<T extends Pick<SourceImage, 'reference' | 'aliases' | 'spellings'>>(
  image: T,
  { smoke }: Pick<Settings, 'smoke'>,
): readonly Written<T>[] {
  const containers = smoke?.template?.containers ?? [];
  return referencesOf(image).map(reference => {
    const pods = containers.filter(container => container.reference === reference).map(({ spelling }) => spelling);
    return { image, reference, spellings: [...new Set([...pods, image.spellings?.get(reference) ?? reference])] };
  });
}

/**
 * What the node holds under each of the references.
 * @param spellings by reference, what pods write for it: CRI-O is asked for that
 */
export async function inspect(
  node: Node,
  references: readonly string[],
  signal: AbortSignal,
  spellings: ReadonlyMap<string, string> = spellingsOn(node),
): Promise<ReadonlyMap<string, HeldImage | undefined>> {
  const { connection, facts } = ready(node);
  const runtime = runtimeOf(facts.runtime.name);
  const asked = runtime.inspect(facts, references, spellings);
  return runtime.held(await runScript(connection, asked, signal, 'reading which images it holds'), references);
}

function spellingsOn({ images }: Node): ReadonlyMap<string, string> {
  return new Map(images.map(({ reference, spelling }) => [reference, spelling]));
}

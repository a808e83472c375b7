import { SideloadError, toSideloadError } from '../errors.ts';
import { referencesOf, type SourceImage, type StoredBlob } from '../image/image.ts';
import { layoutArchive } from '../image/layout.ts';
import { faultOf, planNode } from '../plan.ts';
import type { Progress } from '../report/progress.ts';
import { formatBytes } from '../report/units.ts';
import type { Run } from '../run.ts';
import { runtimeOf } from '../runtime/detect.ts';
import type { HeldImage } from '../runtime/runtime.ts';
import { abandonedReferences, stageReference } from '../runtime/staging.ts';
import type { Settings } from '../settings.ts';
import { connect } from '../ssh/connect.ts';
import { parseFacts, parseMachine } from './facts.ts';
import { startHeartbeat } from './heartbeat.ts';
import { type Node, type NodeImage, ready } from './node.ts';
import { probe } from './probe.ts';
import { runScript } from './script.ts';

/** How long the removal of staged images may take once the job has been cancelled. */
const CLEAN_UP_MS = 60_000;

/** Connects to a node and asks it for its facts. The connection outlives a cancellation, to clean up over it. */
export async function prepareNode(node: Node, settings: Settings, signal: AbortSignal): Promise<void> {
  const lifetime = new AbortController();
  const abandon = () => lifetime.abort(signal.reason);
  signal.throwIfAborted();
  signal.addEventListener('abort', abandon);
  try {
    node.connection = await connect(node.settings, { ...settings.ssh, signal: lifetime.signal });
  } finally {
    signal.removeEventListener('abort', abandon);
  }
  const sections = await probe(node.connection, node.settings.criSocket ?? settings.criSocket, signal);
  node.machine = parseMachine(sections, node.settings.label);
  node.facts = parseFacts(sections, node.settings.label);
}

/** Finds out which references the node lacks. Those of one image, aliases say, share a stage reference: it is sent once. */
export async function planImages(node: Node, images: readonly SourceImage[], run: Run): Promise<void> {
  const wanted = images.flatMap(image => referencesOf(image).map(reference => ({ ...image, reference })));
  const held = await inspect(
    node,
    wanted.map(image => image.reference),
    run.signal,
  );
  const plans = planNode(wanted, ready(node).facts, held);
  const imageIds = [...new Set(plans.map(({ image }) => image.imageId))];
  node.images = plans.map(({ reference, image, action }) => ({
    reference,
    image,
    stage: action === 'send' ? stageReference(run.id, imageIds.indexOf(image.imageId)) : undefined,
    outcome: action === 'send' ? 'none' : 'present',
    bytesSent: 0,
    smoke: undefined,
  }));
}

/** Sends what the node lacks into its runtime, under stage references, and has the runtime confirm it. */
export async function stageImages(node: Node, run: Run, progress: Progress): Promise<void> {
  const missing = new Map(
    node.images.flatMap(image => (image.stage === undefined ? [] : [[image.stage, image] as const])),
  );
  if (missing.size === 0) {
    return;
  }
  for (const [stage, image] of missing) {
    await notingError(node, image, () => sendImage(node, image, stage, run, progress));
  }
  const held = await inspect(node, [...missing.keys()], run.signal);
  for (const [stage, image] of missing) {
    await notingError(node, image, async () => assertHeld(held.get(stage), image, 'after the import'));
  }
}

/** What goes wrong with one image is noted with it: a node has several. */
async function notingError(node: Node, image: NodeImage, act: () => Promise<void>): Promise<void> {
  try {
    await act();
  } catch (thrown) {
    image.error = toSideloadError(thrown, node.settings.label);
    throw image.error;
  }
}

async function sendImage(node: Node, target: NodeImage, stage: string, run: Run, progress: Progress): Promise<void> {
  const { connection, facts } = ready(node);
  const { image } = target;
  const blobs: StoredBlob[] = await Promise.all(image.layers.map(layer => layer.store(run.signal)));
  const archive = layoutArchive({ reference: stage, image, blobs });
  // The content store keeps the blobs as they are sent; the snapshots are at least as large as the layers were.
  const neededBytes = archive.sizeBytes + image.layers.reduce((sum, layer) => sum + layer.sourceSizeBytes, 0);
  if (neededBytes > facts.disk.freeBytes) {
    throw new SideloadError(
      'DISK_FULL',
      `${target.reference} needs ${formatBytes(neededBytes)} on ${facts.disk.path} of the node, and ${formatBytes(facts.disk.freeBytes)} are free`,
    );
  }
  node.isStaged = true;
  const transfer = progress.start(node.settings.label, archive.sizeBytes);
  const endHeartbeat = startHeartbeat(connection);
  let end: 'done' | 'failed' = 'failed';
  try {
    const result = await connection.run(runtimeOf(facts.runtime.name).importArchive(facts, stage, image.platform), {
      stdin: archive.stream(),
      signal: run.signal,
      onStdinBytes: sentBytes => {
        target.bytesSent = sentBytes;
        transfer.advance(sentBytes);
      },
    });
    if (result.code !== 0) {
      const said = (result.stderr.trim() || result.stdout.trim()).slice(-2000);
      throw new SideloadError('IMPORT_FAILED', `the import ended with exit code ${result.code}: ${said}`);
    }
    end = 'done';
  } finally {
    transfer.end(end);
    await endHeartbeat();
  }
}

/** Makes the final references name what was staged, removes the stage references, and has the CRI confirm the result. */
export async function promoteImages(node: Node, run: Run): Promise<void> {
  const { connection, facts } = ready(node);
  const runtime = runtimeOf(facts.runtime.name);
  const pairs = node.images.flatMap(({ stage, reference }) =>
    stage === undefined ? [] : [{ from: stage, to: reference }],
  );
  if (pairs.length > 0) {
    await runScript(connection, runtime.tag(facts, pairs), run.signal);
    await removeStaged(node, run.id, run.signal);
  }
  const held = await inspect(
    node,
    node.images.map(image => image.reference),
    run.signal,
  );
  for (const image of node.images) {
    await notingError(node, image, async () => assertHeld(held.get(image.reference), image, 'in the end'));
    if (image.stage !== undefined) {
      image.outcome = 'sent';
    }
  }
}

/**
 * Takes away what a failed or cancelled run has staged on the node, and closes the connection. When the connection is
 * lost a new one is tried, once: the node may be back already.
 */
export async function leaveNode(node: Node, settings: Settings, runId: string): Promise<void> {
  try {
    if (node.isStaged) {
      const signal = AbortSignal.timeout(CLEAN_UP_MS);
      await removeStaged(node, runId, signal).catch(async () => {
        await node.connection?.close();
        await prepareNode(node, settings, signal);
        await removeStaged(node, runId, signal);
      });
    }
  } finally {
    await node.connection?.close();
  }
}

/** Removes the stage references of this run, and of those that ended without doing so. */
export async function removeStaged(node: Node, runId: string, signal: AbortSignal): Promise<void> {
  const { connection, facts } = ready(node);
  const own = node.images.flatMap(image => image.stage ?? []);
  const references = new Set([...own, ...abandonedReferences(facts.staged, runId, Date.now())]);
  if (references.size > 0) {
    await runScript(connection, runtimeOf(facts.runtime.name).remove(facts, [...references]), signal);
  }
  node.isStaged = false;
}

async function inspect(
  node: Node,
  references: readonly string[],
  signal: AbortSignal,
): Promise<ReadonlyMap<string, HeldImage | undefined>> {
  const { connection, facts } = ready(node);
  const runtime = runtimeOf(facts.runtime.name);
  return runtime.held(await runScript(connection, runtime.inspect(facts, references), signal), references);
}

function assertHeld(held: HeldImage | undefined, { reference, image }: NodeImage, when: string): void {
  const fault = faultOf(held, image);
  if (fault !== undefined) {
    throw new SideloadError('VERIFY_FAILED', `${reference} ${when}: ${fault}`);
  }
}

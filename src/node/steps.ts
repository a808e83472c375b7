import { setTimeout as delay } from 'node:timers/promises';
import { type ErrorCode, SideloadError, toSideloadError } from '../errors.ts';
import { chainIds } from '../image/chain-id.ts';
import {
  type BlobDescriptor,
  type PlatformImage,
  referencesOf,
  type SourceImage,
  type StoredBlob,
} from '../image/image.ts';
import { layoutArchive } from '../image/layout.ts';
import { faultOf, missingLayers, planLayers, planNode, sentBytes, unpackedBytes } from '../plan.ts';
import type { Progress } from '../report/progress.ts';
import type { Run } from '../run.ts';
import { runtimeOf } from '../runtime/detect.ts';
import type { AskedLayer, HeldImage } from '../runtime/runtime.ts';
import { abandonedReferences, stageReference } from '../runtime/staging.ts';
import type { Settings } from '../settings.ts';
import { connect } from '../ssh/connect.ts';
import { parseFacts, parseMachine } from './facts.ts';
import { startHeartbeat } from './heartbeat.ts';
import { describeImage, type Node, type NodeImage, ready } from './node.ts';
import { probe } from './probe.ts';
import { runScript } from './script.ts';
import { assertRoom } from './space.ts';
import type { throttleOf } from './throttle.ts';

/** About what config, manifest, index and the headers of an archive take. */
const METADATA_BYTES = 8 * 1024;

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

/**
 * Finds out which references the node lacks, and which layers of them, with those of `sandboxes`, which are sent along.
 * Those of one image, aliases say, share a stage reference: it is sent once.
 */
export async function planImages(
  node: Node,
  images: readonly SourceImage[],
  sandboxes: readonly SourceImage[],
  settings: Pick<Settings, 'delta'>,
  run: Run,
): Promise<void> {
  const wanted = [...images, ...sandboxes].flatMap(image =>
    referencesOf(image).map(reference => ({ ...image, reference })),
  );
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
    isSandbox: sandboxes.some(sandbox => sandbox.reference === reference),
    stage: action === 'send' ? stageReference(run.id, imageIds.indexOf(image.imageId)) : undefined,
    held: [],
    estimate: { bytes: 0, isExact: true },
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

/** Asks the node which layers it has of the images that it lacks. */
async function askLayers(
  node: Node,
  images: readonly NodeImage[],
  { delta }: Pick<Settings, 'delta'>,
  run: Run,
): Promise<void> {
  if (images.length === 0) {
    return;
  }
  const { connection, facts } = ready(node);
  const runtime = runtimeOf(facts.runtime.name);
  const asked = await Promise.all(images.map(({ image }) => askedLayers(image)));
  const sections = delta ? await runScript(connection, runtime.layers(facts, asked.flat()), run.signal) : new Map();
  for (const [index, target] of images.entries()) {
    target.held = delta ? planLayers(target.image, runtime.heldLayers(sections, asked[index] ?? [])) : [];
    const blobs = missingLayers(target).map(({ diffId }) => asked[index]?.find(layer => layer.diffId === diffId)?.blob);
    target.estimate = {
      bytes: METADATA_BYTES + sentBytes(target, blobs),
      isExact: !blobs.includes(undefined),
    };
  }
}

async function askedLayers({ layers }: PlatformImage): Promise<readonly AskedLayer[]> {
  const chain = chainIds(layers.map(({ diffId }) => diffId));
  const blobs = await Promise.all(layers.map(async layer => describe(await layer.known())));
  return layers.map(({ diffId }, index) => ({ diffId, chainId: chain[index] ?? diffId, blob: blobs[index] }));
}

/** A blob without its bytes: what is left out of an archive is told from what is sent by that. */
function describe(blob: StoredBlob | undefined): BlobDescriptor | undefined {
  return blob && { digest: blob.digest, sizeBytes: blob.sizeBytes, compression: blob.compression };
}

/** What sending needs besides the node. */
export interface Sending {
  readonly settings: Settings;
  readonly run: Run;
  readonly progress: Progress;
  readonly throttle: ReturnType<typeof throttleOf>;
  readonly log: (line: string) => void;
}

/** After these the node may be there again, or the runner may have the layer again. */
const TRANSIENT: ReadonlySet<ErrorCode> = new Set(['SSH_LOST', 'SSH_UNREACHABLE']);
const RETRY_AFTER_MS = { first: 1000, most: 30_000 };

/**
 * Sends what the node lacks into its runtime, under stage references, and has the runtime confirm it. When the
 * connection breaks off a new one is tried, and the node is asked again for what it has.
 */
export async function stageImages(node: Node, sending: Sending): Promise<void> {
  const { settings, run, log } = sending;
  const { label } = node.settings;
  const missing = new Map(
    node.images.flatMap(image => (image.stage === undefined ? [] : [[image.stage, image] as const])),
  );
  for (let attempt = 0; missing.size > 0; attempt += 1) {
    try {
      if (attempt > 0) {
        await resume(node, missing, sending);
      }
      await stageAll(node, missing, sending);
    } catch (thrown) {
      const error = toSideloadError(thrown, label);
      if (run.signal.aborted || !TRANSIENT.has(error.code) || attempt >= settings.retries) {
        throw error;
      }
      const waitMs = Math.min(RETRY_AFTER_MS.most, RETRY_AFTER_MS.first * 2 ** attempt);
      log(`${label}: ${error.message}; trying again in ${waitMs / 1000} s (${attempt + 1} of ${settings.retries})`);
      await delay(waitMs, undefined, { signal: run.signal });
    }
  }
}

/** Stages one image after the other, and takes each off the list when it is there. */
async function stageAll(node: Node, missing: Map<string, NodeImage>, sending: Sending): Promise<void> {
  let isFirst = true;
  for (const [stage, image] of missing) {
    if (!isFirst) {
      // The image before may have brought layers of this one.
      await askLayers(node, [image], sending.settings, sending.run);
    }
    isFirst = false;
    await stageImage(node, image, stage, sending);
    missing.delete(stage);
  }
}

/** Connects again, ends the imports that broke off, and asks what has arrived nevertheless. */
async function resume(
  node: Node,
  missing: ReadonlyMap<string, NodeImage>,
  { settings, run, log }: Sending,
): Promise<void> {
  await node.connection?.close();
  await prepareNode(node, settings, run.signal);
  const { connection, facts } = ready(node);
  await runScript(connection, runtimeOf(facts.runtime.name).remove(facts, [...missing.keys()]), run.signal);
  await askLayers(node, [...missing.values()], settings, run);
  for (const image of missing.values()) {
    log(`${node.settings.label}: connected again; ${describeImage(image)}`);
  }
}

/**
 * Sends one image. What the node said it has it may have lost since, or not be able to use: then the whole image is
 * sent, once.
 */
async function stageImage(node: Node, target: NodeImage, stage: string, sending: Sending): Promise<void> {
  const { connection, facts } = ready(node);
  const runtime = runtimeOf(facts.runtime.name);
  const isThin = missingLayers(target).length < target.image.layers.length;
  const refusal = await sendImage(node, target, stage, sending);
  const fault = refusal ?? (await faultAt(node, target, stage, sending.run.signal));
  if (fault === undefined) {
    return;
  }
  if (!isThin || (refusal !== undefined && !runtime.lacksContent(refusal))) {
    throw refusal === undefined
      ? new SideloadError('VERIFY_FAILED', `${target.reference} after the import: ${fault}`)
      : new SideloadError('IMPORT_FAILED', refusal);
  }
  sending.log(
    `${node.settings.label}: the layers that the node has were not enough (${fault}); ${target.reference} is sent whole`,
  );
  await runScript(connection, runtime.remove(facts, [stage]), sending.run.signal);
  target.held = [];
  await stageImage(node, target, stage, sending);
}

/** @returns what the importer said when it failed */
async function sendImage(
  node: Node,
  target: NodeImage,
  stage: string,
  { run, progress, throttle }: Sending,
): Promise<string | undefined> {
  const { connection, facts } = ready(node);
  const { image, held } = target;
  const missing = missingLayers(target);
  const known = await Promise.all(missing.map(layer => layer.known()));
  const archiveBytes = METADATA_BYTES + sentBytes(target, known);
  assertRoom(facts, target.reference, { archiveBytes, layersBytes: unpackedBytes([target]) });
  const blobs = image.layers.map((layer, index) => held[index] ?? layer.store(run.signal));
  const archive = layoutArchive({ reference: stage, image, blobs });
  node.isStaged = true;
  const transfer = progress.start(node.settings.label, archiveBytes);
  const endHeartbeat = startHeartbeat(connection);
  const sentBefore = target.bytesSent;
  try {
    const command = [...facts.politeness, ...runtimeOf(facts.runtime.name).importArchive(facts, stage, image.platform)];
    const result = await connection.run(command, {
      stdin: throttle(archive.stream(), run.signal),
      signal: run.signal,
      onStdinBytes: sentBytes => {
        target.bytesSent = sentBefore + sentBytes;
        transfer.advance(sentBytes);
      },
    });
    const said = (result.stderr.trim() || result.stdout.trim()).slice(-2000);
    return result.code === 0 ? undefined : `the import ended with exit code ${result.code}: ${said}`;
  } finally {
    transfer.end();
    await endHeartbeat();
  }
}

async function faultAt(
  node: Node,
  { image }: NodeImage,
  reference: string,
  signal: AbortSignal,
): Promise<string | undefined> {
  return faultOf((await inspect(node, [reference], signal)).get(reference), image);
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
    const fault = faultOf(held.get(image.reference), image.image);
    if (fault !== undefined) {
      throw new SideloadError('VERIFY_FAILED', `${image.reference} in the end: ${fault}`);
    }
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

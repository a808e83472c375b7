import { follow, pause, within } from '../abort.ts';
import { type ErrorCode, SideloadError, toSideloadError } from '../errors.ts';
import type { BlobDescriptor, Layer, PlatformImage } from '../image/image.ts';
import { type LayoutBlob, layoutArchive } from '../image/layout.ts';
import { partOf } from '../image/part.ts';
import { faultOf, missingLayers, sentBytes, unpackedBytes } from '../plan.ts';
import type { Progress, Transfer } from '../report/progress.ts';
import { formatDuration } from '../report/units.ts';
import type { Run } from '../run.ts';
import { runtimeOf } from '../runtime/detect.ts';
import { INSTANCE, isCutOff } from '../runtime/instance.ts';
import { isPart, partReference } from '../runtime/staging.ts';
import type { Settings } from '../settings.ts';
import type { SshTransport } from '../ssh/transport.ts';
import { withHeartbeat } from './heartbeat.ts';
import { askLayers, describe, METADATA_BYTES } from './layers.ts';
import { describeImage, type Node, type NodeImage, notingError, ready } from './node.ts';
import { CHANGE_MS, runScript } from './script.ts';
import { assertRoom } from './space.ts';
import { inspect, prepareNode, retryAfterMs } from './steps.ts';
import type { throttleOf } from './throttle.ts';

/** What sending needs besides the node. */
export interface Sending {
  readonly settings: Settings;
  readonly ssh: SshTransport;
  readonly run: Run;
  readonly progress: Progress;
  readonly throttle: ReturnType<typeof throttleOf>;
  readonly log: (line: string) => void;
}

/** After these the node, or its runtime, may be there again. */
const TRANSIENT: ReadonlySet<ErrorCode> = new Set([
  'SSH_LOST',
  'SSH_UNREACHABLE',
  'RUNTIME_LOST',
  'RUNTIME_NOT_RUNNING',
]);
/** What a node that has just been started answers: its sshd is there before its runtime, and sockets before its kubelet. */
const STARTING: ReadonlySet<ErrorCode> = new Set(['RUNTIME_NOT_FOUND', 'RUNTIME_NOT_RUNNING', 'RUNTIME_AMBIGUOUS']);

/**
 * Sends what the node lacks into its runtime, under stage references, and has the runtime confirm it. When the
 * connection breaks off, or the runtime goes away, a new one is tried, and the node is asked again for what it has.
 */
export async function stageImages(node: Node, sending: Sending): Promise<void> {
  const { settings, run, log } = sending;
  const { label } = node.settings;
  const missing = new Map(
    node.images.flatMap(image => (image.stage === undefined || image.hasMoved ? [] : [[image.stage, image] as const])),
  );
  let failure: SideloadError | undefined;
  for (let attempt = 0; missing.size > 0; attempt += 1) {
    try {
      if (attempt > 0) {
        await resume(node, missing, sending);
      }
      await stageAll(node, missing, sending);
    } catch (thrown) {
      const error = toSideloadError(thrown, label);
      const isStarting = failure !== undefined && STARTING.has(error.code);
      // What the job tells is why the node was lost.
      if (!isStarting) failure = error;
      const mayPass = isStarting || TRANSIENT.has(error.code);
      if (run.signal.aborted || !mayPass || attempt >= settings.retries) {
        throw failure;
      }
      const waitMs = retryAfterMs(attempt);
      log(`${label}: ${error.message}; trying again in ${waitMs / 1000} s (${attempt + 1} of ${settings.retries})`);
      await pause(waitMs, run.signal);
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
    await notingError(node, image, () => stageImage(node, image, stage, sending));
    missing.delete(stage);
  }
}

/** Connects again, ends the imports that broke off, and asks what has arrived nevertheless. */
async function resume(
  node: Node,
  missing: ReadonlyMap<string, NodeImage>,
  { settings, ssh, run, log }: Sending,
): Promise<void> {
  await node.connection?.close();
  await prepareNode(node, settings, ssh, run.signal);
  const { connection, facts } = ready(node);
  const end = runtimeOf(facts.runtime.name).remove(facts, [...missing.keys()]);
  await runScript(connection, end, run.signal, 'ending the imports that broke off', CHANGE_MS);
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
  const refusal = await sendImage(node, target, stage, sending);
  const fault = refusal ?? (await faultAt(node, target, stage, sending.run.signal));
  if (fault === undefined) {
    return;
  }
  const isThin = missingLayers(target).length < target.image.layers.length;
  if (!isThin || (refusal !== undefined && !runtime.lacksContent(refusal))) {
    throw refusal === undefined
      ? new SideloadError('VERIFY_FAILED', `${target.reference} after the import: ${fault}`)
      : await importError(node, refusal, sending.run.signal);
  }
  sending.log(
    `${node.settings.label}: the layers that the node has were not enough (${fault}); ${target.reference} is sent whole`,
  );
  const remove = runtime.remove(facts, [...node.staged.keys()]);
  await runScript(connection, remove, sending.run.signal, 'removing what was staged', CHANGE_MS);
  target.held = [];
  target.isWhole = true;
  await stageImage(node, target, stage, sending);
}

/**
 * Sends the missing layers in parts, lowest first: each part is an image of its own, so that what has come through stays
 * on the node when the connection breaks off, and is unpacked while the rest is on its way.
 * @returns what the importer said when it failed
 */
async function sendImage(node: Node, target: NodeImage, stage: string, sending: Sending): Promise<string | undefined> {
  const { facts } = ready(node);
  const { image } = target;
  const missing = missingLayers(target);
  const known = new Map<Layer, BlobDescriptor | undefined>(
    await Promise.all(missing.map(async layer => [layer, await layer.known()] as const)),
  );
  const totalBytes = () =>
    METADATA_BYTES +
    sentBytes(
      target,
      missing.map(layer => known.get(layer)),
    );
  const archiveBytes = totalBytes();
  assertRoom(facts, target.reference, { archiveBytes, layersBytes: unpackedBytes([target]) });
  const transfer = sending.progress.start(node.settings.label, archiveBytes);
  const failing = follow(sending.run.signal);
  const { signal } = failing;
  const store = (layer: Layer) => {
    const storing = layer.store(signal);
    const note = (stored: BlobDescriptor) => {
      known.set(layer, stored);
      transfer.expect(totalBytes());
    };
    storing.then(note, () => {}); // the archive that it is for fails
    return storing;
  };
  for (const layer of missing) store(layer).catch(() => {}); // all at once: the parts that want them wait for each
  const { canOverlap } = runtimeOf(facts.runtime.name);
  const held = [...target.held];
  let end: 'done' | 'failed' = 'failed';
  const imports: Promise<string | undefined>[] = [];
  try {
    for await (const count of partsOf(target, facts.privilege !== 'user', signal)) {
      const isLast = count === image.layers.length;
      const part = isLast ? image : partOf(image, count);
      const reference = isLast ? stage : partReference(stage, node.staged.size + 1);
      node.staged.set(reference, part.imageId);
      const blobs = part.layers.map((layer, index) => held[index] ?? store(layer));
      const { sent, imported } = importPart(node, target, { image: part, reference, blobs, signal }, sending, transfer);
      imports.push(imported);
      await (canOverlap ? Promise.race([sent, imported]) : imported);
      for (const [index, layer] of part.layers.entries()) held[index] ??= describe(await layer.store(signal));
    }
    const refusal = (await Promise.all(imports)).find(said => said !== undefined);
    end = refusal === undefined ? 'done' : 'failed';
    return refusal;
  } finally {
    failing.abort(new SideloadError('CANCELLED', 'another part of the image has failed'));
    await Promise.allSettled(imports);
    transfer.end(end);
  }
}

/** What an import has failed of. One that was cut off, as the runtime ended or was started anew, was not refused. */
async function importError(node: Node, said: string, signal: AbortSignal): Promise<SideloadError> {
  if (/no space left on device/i.test(said)) {
    return new SideloadError('DISK_FULL', said);
  }
  const { connection, facts } = ready(node);
  const body = `${INSTANCE}\nsection instance; instance_of "$RUNTIME" "$SOCKET"`;
  const variables = { RUNTIME: facts.runtime.name, SOCKET: facts.criSocket };
  const now =
    (await runScript(connection, { body, variables }, signal, 'reading when its runtime began')).get('instance') ?? '';
  return isCutOff(said) || now !== facts.instance
    ? new SideloadError('RUNTIME_LOST', `the runtime went away during the import: ${said}`)
    : new SideloadError('IMPORT_FAILED', said);
}

/** Less than this, compressed, is not worth an import of its own, which takes about half a second. */
const PART_BYTES = 32_000_000;

/** Up to how many layers each part reaches; the last one is the image itself. */
async function* partsOf(
  { image, held, isWhole }: NodeImage,
  mayDivide: boolean,
  signal: AbortSignal,
): AsyncGenerator<number> {
  const missing = [...image.layers.entries()].filter(([index]) => held[index] === undefined);
  let bytes = 0;
  for (const [index, layer] of isWhole || !mayDivide ? [] : missing.slice(0, -1)) {
    bytes += (await layer.store(signal)).sizeBytes;
    if (bytes >= PART_BYTES) {
      bytes = 0;
      yield index + 1;
    }
  }
  yield image.layers.length;
}

/** How long an import may give no sign of life: it takes no byte, and its heartbeat, every ten seconds, is not heard. */
const SIGN_MS = 2 * 60_000;
/** How long it may take none of the bytes that are there for it; when it has them all, to its end. */
const IMPORT_MS = 5 * 60_000;
/** And how much longer, by what it unpacks: a disk that is slower than this is none for images. */
const SLOWEST_BYTES_PER_MS = 1000;

/** An image, or its lower layers, on the way to a node. */
interface Part {
  readonly image: PlatformImage;
  readonly reference: string;
  readonly blobs: readonly LayoutBlob[];
  readonly signal: AbortSignal;
}

/** Starts one import; tells when everything is on its way, and in the end what the importer said when it failed. */
function importPart(
  node: Node,
  target: NodeImage,
  { image, reference, blobs, signal }: Part,
  { throttle }: Sending,
  transfer: Transfer,
): { readonly sent: Promise<void>; readonly imported: Promise<string | undefined> } {
  const { connection, facts } = ready(node);
  const stdin = throttle(layoutArchive({ reference, image, blobs }).stream(), signal);
  const sent = new Promise<void>(resolve => {
    stdin.once('close', () => resolve());
  });
  const command = [
    ...facts.politeness,
    ...runtimeOf(facts.runtime.name).importArchive(facts, reference, image.platform),
  ];
  let sentBytes = 0;
  // The parts so far, and this one: they are of no use to a node whose runner does not come back.
  const parts = [...node.staged].filter(([staged]) => isPart(staged));
  const abandoned = parts.flatMap(part => runtimeOf(facts.runtime.name).removeOne(facts, ...part));
  const limitMs = IMPORT_MS + unpackedBytes([target]) / SLOWEST_BYTES_PER_MS;
  const late = (ms: number, what: string) => () =>
    new SideloadError('NODE_SILENT', `importing ${target.reference}: ${what} for ${formatDuration(ms, 0)}`);
  const silent = late(SIGN_MS, 'no sign of life');
  const stuck = late(limitMs, 'no progress');
  const running = within(
    SIGN_MS,
    signal,
    (alive, sign) =>
      within(
        limitMs,
        alive,
        (limit, progress) =>
          connection.run(withHeartbeat(command, abandoned), {
            stdin,
            signal: limit,
            endsWithInput: true,
            onPrinted: () => {
              sign(SIGN_MS, silent);
              // What waits for the runner's own bytes makes none.
              if (stdin.readableLength === 0 && !stdin.readableEnded) progress(limitMs, stuck);
            },
            onStdinBytes: totalBytes => {
              sign(SIGN_MS, silent);
              progress(limitMs, stuck);
              target.bytesSent += totalBytes - sentBytes;
              sentBytes = totalBytes;
              transfer.advance(target.bytesSent);
            },
          }),
        stuck,
      ),
    silent,
  );
  const imported = running.then(({ code, stdout, stderr }) => {
    const said = (stderr.trim() || stdout.trim()).slice(-2000);
    return code === 0 ? undefined : `the import ended with exit code ${code}: ${said}`;
  });
  imported.catch(() => {}); // awaited by whoever has started it
  return { sent, imported };
}

async function faultAt(
  node: Node,
  { image }: NodeImage,
  reference: string,
  signal: AbortSignal,
): Promise<string | undefined> {
  return faultOf((await inspect(node, [reference], signal)).get(reference), image);
}

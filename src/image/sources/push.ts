import { connect } from 'node:net';
import { follow, within } from '../../abort.ts';
import { messageOf, SideloadError } from '../../errors.ts';
import { parseConfig } from '../config.ts';
import { type Digest, hexOf, parseDigest } from '../digest.ts';
import { type ArchiveEntries, type ArchiveFile, memoryFile, readMetadata } from '../entries.ts';
import { asObject, parseJson } from '../json.ts';
import { runProgram } from '../program.ts';
import type { ReceiverStore } from '../received.ts';
import { openReceiver, type PushedManifest, type Receiver } from '../receiver.ts';
import type { Scratch } from '../scratch.ts';
import { ask, lastLine, type SaveCommand } from './engine.ts';

/** Marks the repositories of this tool: whatever carries it and has no server any more is a leftover. */
const REPOSITORY_PREFIX = 'kube-sideload';
const TAG = 'pushed';
const UNTAG_WITHIN_MS = 20_000;
/** An engine may compress a large layer for minutes; and then nobody waits for it any more, but has the image saved. */
const PUSH_WITHIN_MS = 60 * 60_000;

/** A command line that makes an engine push one image to a registry on this machine. */
export interface PushCommand extends Pick<SaveCommand, 'engine' | 'program' | 'reference'> {
  /** What must have arrived: the digest of the config, or of the manifest or index. */
  readonly id: string;
  /** The arguments for a destination, as in `127.0.0.1:PORT/REPOSITORY:TAG`. */
  push(destination: string): readonly string[];
  /** For an engine that pushes nothing but its own tags. */
  readonly tags?: {
    add(destination: string): readonly string[];
    remove(destination: string): readonly string[];
    /** Prints those that match a pattern, one a line. */
    list(pattern: string): readonly string[];
  };
}

/**
 * Has an engine push one image to a receiver that lives as long as this takes. The engine leaves out the layers that
 * the store has; the result is an image layout with all of them.
 * @throws SideloadError SOURCE_UNAVAILABLE when the engine does not push, or something else than its image arrives;
 * DISK_FULL, CANCELLED
 */
export async function readPushed(
  command: PushCommand,
  store: ReceiverStore,
  signal: AbortSignal,
): Promise<ArchiveEntries> {
  const receiver = await openReceiver(REPOSITORY_PREFIX, store, signal).catch((error: unknown) => {
    throw refused(command, messageOf(error));
  });
  try {
    await push(command, receiver, signal);
    return await layoutOf(command, receiver);
  } finally {
    await receiver.close();
  }
}

/**
 * Has an engine push an image, or save it when it is not to push or does not.
 * @throws what `save` throws; what {@link readPushed} throws but SOURCE_UNAVAILABLE
 */
export async function readEither(
  push: PushCommand | undefined,
  save: () => Promise<ArchiveEntries>,
  scratch: Scratch,
  signal: AbortSignal,
  log: (line: string) => void,
): Promise<ArchiveEntries> {
  if (push !== undefined) {
    try {
      return await readPushed(push, scratch, signal);
    } catch (error) {
      if (signal.aborted || !(error instanceof SideloadError) || error.code !== 'SOURCE_UNAVAILABLE') throw error;
      log(`the whole image is saved: ${error.message}`);
    }
  }
  return await save();
}

async function push(command: PushCommand, receiver: Receiver, signal: AbortSignal): Promise<void> {
  const { program, tags } = command;
  const destination = `${receiver.host}/${receiver.repository}:${TAG}`;
  const until = follow(signal, receiver.failed);
  try {
    await removeLeftovers(command, signal);
    if (tags !== undefined) await must(command, await runProgram(program, tags.add(destination), until.signal));
    const pushed = (limit: AbortSignal) => runProgram(program, command.push(destination), limit);
    const late = () => refused(command, `it was not done within ${PUSH_WITHIN_MS / 60_000} minutes`);
    await must(command, await within(PUSH_WITHIN_MS, until.signal, pushed, late));
  } catch (error) {
    // The engine only sees that the server has failed; why, the server knows.
    if (receiver.failed.aborted && !signal.aborted) throw receiver.failed.reason;
    throw error;
  } finally {
    until.release();
    // Also when the job is cancelled, and when the tag was never made.
    if (tags !== undefined) {
      const untag = (limit: AbortSignal) => ask(program, tags.remove(destination), limit);
      await within(UNTAG_WITHIN_MS, undefined, untag).catch(() => {});
    }
  }
  if (receiver.requests() === 0) throw refused(command, 'it pushed to another machine');
}

async function must(command: PushCommand, exit: Awaited<ReturnType<typeof runProgram>>): Promise<void> {
  if (exit.code !== 0) throw refused(command, lastLine(exit.stderr) ?? exit.reason);
}

/**
 * Removes the tags of runs that were killed. Whether a run is still there its tag tells itself: it names the port on
 * which that run listens.
 */
async function removeLeftovers({ program, tags }: PushCommand, signal: AbortSignal): Promise<void> {
  if (tags === undefined) return;
  const listed = await ask(program, tags.list(`127.0.0.1:*/${REPOSITORY_PREFIX}-*/*`), signal);
  for (const name of listed.stdout.split('\n')) {
    const port = /^127\.0\.0\.1:(\d+)\/kube-sideload-[0-9a-f]{32}\//.exec(name)?.[1];
    if (port !== undefined && !(await listens(Number(port)))) await ask(program, tags.remove(name), signal);
  }
}

function listens(port: number): Promise<boolean> {
  return new Promise(resolve => {
    const socket = connect({ host: '127.0.0.1', port });
    const end = (answer: boolean) => {
      socket.destroy();
      resolve(answer);
    };
    socket.once('connect', () => end(true));
    socket.once('error', error => end((error as NodeJS.ErrnoException).code !== 'ECONNREFUSED'));
  });
}

/** What arrived, as the image layout that it is. */
async function layoutOf(command: PushCommand, { blobs, manifests, tags }: Receiver): Promise<ArchiveEntries> {
  const label = `what ${command.engine} pushed of ${command.reference}`;
  const files = new Map<string, ArchiveFile>([...blobs].map(([digest, file]) => [blobName(digest), file]));
  for (const { digest, bytes } of manifests.values()) files.set(blobName(digest), memoryFile(bytes));
  const pushed = manifests.get(tags.get(TAG) ?? ('' as Digest));
  if (pushed === undefined) throw refused(command, 'no manifest arrived');
  const config = configOf(pushed);
  // Others on this machine can read the name of the repository in the list of processes.
  if (pushed.digest !== command.id && config !== command.id) {
    throw refused(command, `${config ?? pushed.digest} arrived in place of ${command.id}`);
  }
  const configFile = config === undefined ? undefined : blobs.get(config);
  const platform =
    configFile === undefined
      ? undefined
      : parseConfig(await readMetadata(label, `the image config ${config}`, configFile), label).platform;
  const { mediaType, digest, bytes } = pushed;
  const index = {
    schemaVersion: 2,
    mediaType: 'application/vnd.oci.image.index.v1+json',
    manifests: [{ mediaType, digest, size: bytes.length, ...(platform === undefined ? {} : { platform }) }],
  };
  files.set('index.json', memoryFile(Buffer.from(JSON.stringify(index))));
  const sizeBytes = [...files.values()].reduce((sum, file) => sum + file.sizeBytes, 0);
  return { files, links: new Map(), label, sizeBytes, ended: true };
}

function configOf({ bytes }: PushedManifest): Digest | undefined {
  return parseDigest(asObject(asObject(parseJson(bytes, 'a pushed manifest')).config).digest);
}

function blobName(digest: Digest): string {
  return `blobs/sha256/${hexOf(digest)}`;
}

function refused({ engine, reference }: PushCommand, why: string): SideloadError {
  return new SideloadError('SOURCE_UNAVAILABLE', `${engine} did not push ${reference}: ${why}`);
}

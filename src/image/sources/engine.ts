import { within } from '../../abort.ts';
import { SideloadError } from '../../errors.ts';
import type { Digest } from '../digest.ts';
import type { ArchiveEntries } from '../entries.ts';
import type { Platform } from '../platform.ts';
import { type ProgramExit, runProgram, startProgram } from '../program.ts';
import type { Scratch } from '../scratch.ts';
import { readTarStream } from '../tar-pipe.ts';

/** What some engines tell of an image before it is read; enough to see that every node has it. */
export interface ImageFacts {
  /** Digest of the config; with docker's containerd store and in containerd only reading tells it. */
  readonly imageId?: Digest;
  readonly platform?: Platform;
  /** The user that the config names; empty for none. */
  readonly user?: string;
  /** Size of all layers, unpacked. */
  readonly sizeBytes?: number;
}

/** An image that an engine has. */
export interface FoundImage extends ImageFacts {
  /** `sha256:` and hexadecimal digits: a config's digest in docker's classic store and in podman, else a manifest's. */
  readonly id: string;
  /** The layers' diffIDs of this machine's platform; empty where the engine tells none. */
  readonly diffIds: readonly string[];
  /**
   * Has the engine write the image, or push what is not stored yet, and reads it.
   * @throws SideloadError SOURCE_UNAVAILABLE when the engine fails, also half-way; what reading an archive throws.
   */
  read(scratch: Scratch, signal: AbortSignal): Promise<ArchiveEntries>;
}

/** What an engine says about a name. */
export type EngineAnswer =
  | { readonly state: 'found'; readonly image: FoundImage }
  | { readonly state: 'absent' }
  | { readonly state: 'unavailable'; readonly reason: string };

/** A container engine on this machine, asked through its command line. */
export interface Engine {
  /** For messages, as in `docker engine`. */
  readonly name: string;
  find(reference: string, signal: AbortSignal): Promise<EngineAnswer>;
}

/** An engine that hangs is one that does not answer. */
const ANSWER_WITHIN_MS = 60_000;

/**
 * Runs a program of an engine that has only a little to say, and not for long.
 * @throws SideloadError CANCELLED
 */
export async function ask(
  program: string,
  args: readonly string[],
  signal: AbortSignal,
): Promise<ProgramExit & { readonly stdout: string }> {
  let isLate = false;
  const late = () => {
    isLate = true;
  };
  try {
    return await within(ANSWER_WITHIN_MS, signal, limit => runProgram(program, args, limit), late);
  } catch (error) {
    if (signal.aborted || !isLate) throw error;
    const reason = `no answer within ${ANSWER_WITHIN_MS / 1000} s`;
    return { code: undefined, missing: false, stdout: '', stderr: '', reason };
  }
}

/** Why an engine could not be asked, in one line. */
export function unavailable(engine: string, { missing, stderr, reason }: ProgramExit): EngineAnswer {
  return {
    state: 'unavailable',
    reason: missing ? `${engine} is not installed` : `${engine} does not answer: ${lastLine(stderr) ?? reason}`,
  };
}

/** A command line that makes an engine write one image to its standard output. */
export interface SaveCommand {
  /** For messages, as in `docker engine`. */
  readonly engine: string;
  readonly program: string;
  readonly args: readonly string[];
  /** What is saved, for messages. */
  readonly reference: string;
}

/**
 * Has an engine save one image, and reads it while it is written.
 * @throws SideloadError SOURCE_UNAVAILABLE when the engine fails, also half-way; as `readTarStream` for what it wrote.
 */
export async function readSaved(command: SaveCommand, scratch: Scratch, signal: AbortSignal): Promise<ArchiveEntries> {
  const late = () =>
    saveFailed(command, { stderr: '', reason: `it has written nothing for ${SILENT_MS / 60_000} minutes` });
  const read = async (limit: AbortSignal, again: (limitMs: number, why: typeof late) => void) => {
    try {
      return await readWriting(command, scratch, limit, () => again(SILENT_MS, late));
    } catch (error) {
      throw limit.aborted && !signal.aborted ? limit.reason : error;
    }
  };
  return await within(SILENT_MS, signal, read, late);
}

/** How long an engine may write nothing: docker puts a whole image on its own disk before the first byte comes. */
const SILENT_MS = 10 * 60_000;
const LOOK_EVERY_MS = 5000;

/** @param onBytes is called when some have come since it was looked last */
async function readWriting(
  command: SaveCommand,
  scratch: Scratch,
  signal: AbortSignal,
  onBytes: () => void,
): Promise<ArchiveEntries> {
  const child = startProgram(command.program, command.args, signal);
  child.stdin.end();
  let seenBytes = 0;
  const timer = setInterval(() => {
    if (child.outputBytes() > seenBytes) {
      seenBytes = child.outputBytes();
      onBytes();
    }
  }, LOOK_EVERY_MS);
  let outputEnded = false;
  child.stdout.once('end', () => {
    outputEnded = true;
  });
  const label = savedLabel(command);
  try {
    const entries = await readTarStream(child.stdout, () => child.stdout.destroy(), label, scratch, signal);
    const exit = await child.exit;
    if (exit.code !== 0) throw saveFailed(command, exit);
    return entries;
  } catch (error) {
    // A stream that broke off is a symptom when the engine failed: its own words say more.
    if (outputEnded && !signal.aborted) {
      const exit = await child.exit;
      if (exit.code !== 0) throw saveFailed(command, exit);
    }
    throw error;
  } finally {
    clearInterval(timer);
    child.stop();
    child.stdout.destroy();
    await child.exit;
  }
}

/** How that which an engine saved is called in messages. */
export function savedLabel({ engine, reference }: Pick<SaveCommand, 'engine' | 'reference'>): string {
  return `what ${engine} saved of ${reference}`;
}

/** The error for an engine that has the image and does not hand it out. */
export function saveFailed(
  { engine, reference }: Pick<SaveCommand, 'engine' | 'reference'>,
  { stderr, reason }: Pick<ProgramExit, 'stderr' | 'reason'>,
): SideloadError {
  return new SideloadError('SOURCE_UNAVAILABLE', `${engine} did not save ${reference}: ${lastLine(stderr) ?? reason}`, {
    hint: 'Look at the engine on the runner (free disk space, its log), and run the job again.',
  });
}

/** The last line that says something. */
export function lastLine(text: string): string | undefined {
  return text
    .split('\n')
    .findLast(line => line.trim() !== '')
    ?.trim();
}

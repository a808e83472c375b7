import { SideloadError } from '../../errors.ts';
import type { ArchiveEntries } from '../entries.ts';
import { type ProgramExit, startProgram } from '../program.ts';
import type { Scratch } from '../scratch.ts';
import { readTarStream } from '../tar-pipe.ts';

/** What an engine says about a name. */
export type EngineAnswer =
  | { readonly state: 'found'; readonly id: string }
  | { readonly state: 'absent' }
  | { readonly state: 'unavailable'; readonly reason: string };

/** A container engine on this machine, asked through its command line. */
export interface Engine {
  /** For messages, as in `docker engine`. */
  readonly name: string;
  readonly program: string;
  find(reference: string, signal: AbortSignal): Promise<EngineAnswer>;
  /** The arguments that make it write one image to its standard output. */
  saveArguments(reference: string): readonly string[];
}

/** Why an engine could not be asked, in one line. */
export function unavailable(engine: string, { missing, stderr, reason }: ProgramExit): EngineAnswer {
  return {
    state: 'unavailable',
    reason: missing ? `${engine} is not installed` : `${engine} does not answer: ${lastLine(stderr) ?? reason}`,
  };
}

/**
 * Has an engine save one image, and reads it while it is written.
 * @throws SideloadError SOURCE_UNAVAILABLE when the engine fails, also half-way; as `readTarStream` for what it wrote.
 */
export async function readSaved(
  engine: Engine,
  reference: string,
  scratch: Scratch,
  signal: AbortSignal,
): Promise<ArchiveEntries> {
  const child = startProgram(engine.program, engine.saveArguments(reference), signal);
  child.stdin.end();
  let outputEnded = false;
  child.stdout.once('end', () => {
    outputEnded = true;
  });
  const label = `what ${engine.name} saved of ${reference}`;
  try {
    const entries = await readTarStream(child.stdout, () => child.stdout.destroy(), label, scratch, signal);
    const exit = await child.exit;
    if (exit.code !== 0) throw saveFailed(engine, reference, exit);
    return entries;
  } catch (error) {
    // A stream that broke off is a symptom when the engine failed: its own words say more.
    if (outputEnded && !signal.aborted) {
      const exit = await child.exit;
      if (exit.code !== 0) throw saveFailed(engine, reference, exit);
    }
    throw error;
  } finally {
    child.stop();
    child.stdout.destroy();
    await child.exit;
  }
}

function saveFailed({ name }: Engine, reference: string, { stderr, reason }: ProgramExit): SideloadError {
  return new SideloadError('SOURCE_UNAVAILABLE', `${name} did not save ${reference}: ${lastLine(stderr) ?? reason}`, {
    hint: 'Look at the engine on the runner (free disk space, its log), and run the job again.',
  });
}

function lastLine(text: string): string | undefined {
  return text
    .split('\n')
    .findLast(line => line.trim() !== '')
    ?.trim();
}

import { SideloadError } from '../../errors.ts';
import type { ArchiveEntries } from '../entries.ts';
import { normalise } from '../reference.ts';
import type { Scratch } from '../scratch.ts';
import { ask, type Engine, type EngineAnswer, readSaved, type SaveCommand, unavailable } from './engine.ts';
import { readEither } from './push.ts';

/** How the two command lines of containerd are reached. */
export interface ContainerdOptions {
  readonly program: string;
  /** The namespace to look into; without it the tool's own (`CONTAINERD_NAMESPACE`, else `default`). */
  readonly namespace?: string | undefined;
}

const CONNECT_WITHIN = '5s';

/** containerd through nerdctl, which also finds a rootless one. */
export function nerdctlEngine({ program, namespace }: ContainerdOptions): Engine {
  const name = engineName('nerdctl', namespace);
  const own = namespace === undefined ? [] : ['--namespace', namespace];
  return {
    name,
    async find(reference, signal) {
      const full = normalise(reference);
      // Its `image inspect` says nothing and succeeds for what is not there (nerdctl: pkg/cmd/image/inspect.go); the
      // list prints the target's digest, once for each platform that is there whole.
      const result = await ask(program, [...own, 'images', '--no-trunc', '--quiet', full], signal);
      if (result.code !== 0) return unavailable(name, result);
      const id = /sha256:[0-9a-f]{64}/.exec(result.stdout)?.[0];
      const saves = [
        [...own, 'save', '--all-platforms', full],
        [...own, 'save', full],
      ];
      return found(id, (_, scratch, signal) => readFirst(commandsOf(name, program, reference, saves), scratch, signal));
    },
  };
}

/** containerd through its own `ctr`, for a machine with nothing else. */
export function ctrEngine({ program, namespace }: ContainerdOptions, log: (line: string) => void): Engine {
  const name = engineName('containerd', namespace);
  const own = [
    ...['--connect-timeout', CONNECT_WITHIN],
    ...(namespace === undefined ? [] : ['--namespace', namespace]),
  ];
  return {
    name,
    async find(reference, signal) {
      // containerd's names are full ones, except those of an import whose annotation was not.
      const names = [...new Set([normalise(reference), reference])];
      const filters = names.map(candidate => `name=="${candidate}"`);
      const result = await ask(program, [...own, 'images', 'list', ...filters], signal);
      if (result.code !== 0) return unavailable(name, result);
      // A table of REF, TYPE, DIGEST and more; exit code 0 when nothing is there.
      const rows = result.stdout.split('\n').map(line => line.split(/\s+/));
      const row = names.map(candidate => rows.find(([ref]) => ref === candidate)).find(match => match !== undefined);
      const stored = row?.[0] ?? reference;
      // containerd 2's default, through its transfer service, ends before a slow reader has everything, with exit code
      // 0 (docs/notes/sources.md). Older versions have no --local and need none; what they refuse is tried without.
      const exports = [['--local', '--all-platforms'], ['--local'], ['--all-platforms'], []].map(flags => [
        ...own,
        ...['images', 'export', ...flags, '-', stored],
      ]);
      const saves = commandsOf(name, program, reference, exports);
      // It fails where content of a platform is missing, and the exports have an answer to that.
      const push = (destination: string) => [...own, 'images', 'push', '--plain-http', destination, stored];
      return found(row?.[2], (id, scratch, signal) => {
        const save = () => readFirst(saves, scratch, signal);
        return readEither({ engine: name, program, reference, id, push }, save, scratch, signal, log);
      });
    },
  };
}

function engineName(tool: string, namespace: string | undefined): string {
  return namespace === undefined ? tool : `${tool} (namespace ${namespace})`;
}

function commandsOf(
  engine: string,
  program: string,
  reference: string,
  saves: readonly (readonly string[])[],
): readonly SaveCommand[] {
  return saves.map(args => ({ engine, program, args, reference }));
}

function found(
  id: string | undefined,
  read: (id: string, scratch: Scratch, signal: AbortSignal) => Promise<ArchiveEntries>,
): EngineAnswer {
  if (id === undefined) return { state: 'absent' };
  return { state: 'found', image: { id, diffIds: [], read: (scratch, signal) => read(id, scratch, signal) } };
}

/**
 * The first that succeeds: an export of all platforms fails when the index names one whose content is not there, and
 * one of this machine's platform succeeds then ("all images in a manifest list must be available", ctr images export).
 */
async function readFirst(
  commands: readonly SaveCommand[],
  scratch: Scratch,
  signal: AbortSignal,
): Promise<ArchiveEntries> {
  let failure: unknown;
  for (const command of commands) {
    try {
      return await readSaved(command, scratch, signal);
    } catch (error) {
      if (signal.aborted || !(error instanceof SideloadError) || error.code !== 'SOURCE_UNAVAILABLE') throw error;
      failure = error;
    }
  }
  throw failure;
}

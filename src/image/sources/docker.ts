import { parseDigest } from '../digest.ts';
import { formatReference, parseReference } from '../reference.ts';
import type { Scratch } from '../scratch.ts';
import { ask, type Engine, type FoundImage, readSaved, unavailable } from './engine.ts';
import { parseInspection } from './inspection.ts';
import { readInPlace } from './overlay-store.ts';
import { podmanReader } from './podman.ts';
import { type PushCommand, readEither } from './push.ts';

/** The Docker engine, through `docker`. That program may be podman's imitation (podman-docker), which answers alike. */
export function dockerEngine(program: string, log: (line: string) => void): Engine {
  const name = 'docker engine';
  return {
    name,
    async find(reference, signal) {
      const tagged = oneTag(reference);
      const result = await ask(program, ['image', 'inspect', tagged], signal);
      if (result.code !== 0) {
        return /no such image|image not known/i.test(result.stderr) ? { state: 'absent' } : unavailable(name, result);
      }
      const inspection = parseInspection(result.stdout);
      if (inspection === undefined) return unavailable(name, { ...result, stderr: '', reason: 'no JSON of an image' });
      const { isPodman, directories: _places, ...facts } = inspection;
      if (isPodman) {
        return { state: 'found', image: { ...facts, read: podmanReader(name, program, reference, inspection, log) } };
      }
      const save = { engine: name, program, args: ['save', tagged], reference };
      const push = pushCommand(name, program, reference, tagged, facts.id);
      const read: FoundImage['read'] = async (scratch, signal) => {
        const inPlace = await readInPlace(name, reference, inspection, log);
        if (inPlace !== undefined) return inPlace;
        const way = (await isWorthPushing(facts, scratch)) && (await isHere(program, signal, log)) ? push : undefined;
        return await readEither(way, () => readSaved(save, scratch, signal), scratch, signal, log);
      };
      return { state: 'found', image: { ...facts, read } };
    },
  };
}

function pushCommand(engine: string, program: string, reference: string, tagged: string, id: string): PushCommand {
  return {
    engine,
    program,
    reference,
    id,
    push: destination => ['push', '--quiet', destination],
    tags: {
      add: destination => ['tag', tagged, destination],
      remove: destination => ['image', 'rm', destination],
      list: pattern => ['image', 'ls', '--filter', `reference=${pattern}`, '--format', '{{.Repository}}:{{.Tag}}'],
    },
  };
}

/**
 * The classic store keeps layers unpacked. To push one that it never pushed or pulled it compresses it with gzip, which
 * takes two to three times as long as a save of everything, and never again: it remembers the digest. A layer that is
 * stored here already was there at an earlier run, and will be at the next one; an image of new layers alone is saved.
 * containerd's store has its layers compressed, and pushes and saves them as they are.
 */
async function isWorthPushing(
  { diffIds, imageId }: Pick<FoundImage, 'diffIds' | 'imageId'>,
  scratch: Scratch,
): Promise<boolean> {
  if (imageId === undefined) return true;
  for (const diffId of diffIds) {
    const digest = parseDigest(diffId);
    if (digest !== undefined && (await scratch.find(digest)) !== undefined) return true;
  }
  return false;
}

/** Whether the engine shares this machine's loopback interface, as far as its address tells. */
async function isHere(program: string, signal: AbortSignal, log: (line: string) => void): Promise<boolean> {
  const inspect = ['context', 'inspect', '--format', '{{.Endpoints.docker.Host}}'];
  const host = (await ask(program, inspect, signal)).stdout.trim();
  if (host.startsWith('unix://') && process.platform === 'linux') return true;
  log(`the whole image is saved: docker engine runs elsewhere (${host === '' ? 'no endpoint is known' : host})`);
  return false;
}

/** `docker save app` saves every tag of the repository (moby: image/tarexport), so the tag is spelled out. */
function oneTag(text: string): string {
  const reference = parseReference(text);
  const { tag, digest } = reference;
  return formatReference(tag === undefined && digest === undefined ? { ...reference, tag: 'latest' } : reference);
}

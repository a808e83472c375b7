import { formatReference, parseReference } from '../reference.ts';
import { ask, type Engine, readSaved, unavailable } from './engine.ts';
import { parseInspection } from './inspection.ts';

/** The Docker engine, through `docker`. That program may be podman's imitation (podman-docker), which answers alike. */
export function dockerEngine(program: string): Engine {
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
      const command = { engine: name, program, args: ['save', tagged], reference };
      return {
        state: 'found',
        image: { ...inspection, read: (scratch, signal) => readSaved(command, scratch, signal) },
      };
    },
  };
}

/** `docker save app` saves every tag of the repository (moby: image/tarexport), so the tag is spelled out. */
function oneTag(text: string): string {
  const reference = parseReference(text);
  const { tag, digest } = reference;
  return formatReference(tag === undefined && digest === undefined ? { ...reference, tag: 'latest' } : reference);
}

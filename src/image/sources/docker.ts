import { runProgram } from '../program.ts';
import { formatReference, parseReference } from '../reference.ts';
import { type Engine, unavailable } from './engine.ts';

/** The Docker engine, through `docker`. That program may be podman's imitation (podman-docker), which answers alike. */
export function dockerEngine(program: string): Engine {
  const name = 'docker engine';
  return {
    name,
    program,
    async find(reference, signal) {
      const inspect = ['image', 'inspect', '--format', '{{.Id}}', oneTag(reference)];
      const result = await runProgram(program, inspect, signal);
      if (result.code === 0) return { state: 'found', id: result.stdout.trim() };
      if (/no such image|image not known/i.test(result.stderr)) return { state: 'absent' };
      return unavailable(name, result);
    },
    saveArguments: reference => ['save', oneTag(reference)],
  };
}

/** `docker save app` saves every tag of the repository (moby: image/tarexport), so the tag is spelled out. */
function oneTag(text: string): string {
  const reference = parseReference(text);
  const { tag, digest } = reference;
  return formatReference(tag === undefined && digest === undefined ? { ...reference, tag: 'latest' } : reference);
}

import { ask, type Engine, readSaved, unavailable } from './engine.ts';
import { parseInspection } from './inspection.ts';

/** podman, which has no daemon: the images are those of the user that runs this job. buildah's are among them. */
export function podmanEngine(program: string): Engine {
  const name = 'podman';
  return {
    name,
    async find(reference, signal) {
      // 0 there, 1 not there, 125 for anything else (podman-image-exists(1)).
      const exists = await ask(program, ['image', 'exists', reference], signal);
      if (exists.code === 1) return { state: 'absent' };
      if (exists.code !== 0) return unavailable(name, exists);
      const inspect = await ask(program, ['image', 'inspect', reference], signal);
      const inspection = inspect.code === 0 ? parseInspection(inspect.stdout) : undefined;
      if (inspection === undefined) return unavailable(name, inspect);
      // Uncompressed and streaming from the start; its oci-archive is gzip and comes seconds later.
      const args = ['save', '--format', 'docker-archive', reference];
      const command = { engine: name, program, args, reference };
      return {
        state: 'found',
        image: { ...inspection, read: (scratch, signal) => readSaved(command, scratch, signal) },
      };
    },
  };
}

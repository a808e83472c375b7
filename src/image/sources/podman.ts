import { runProgram } from '../program.ts';
import { type Engine, unavailable } from './engine.ts';

/** podman, which has no daemon: the images are those of the user that runs this job. */
export function podmanEngine(program: string): Engine {
  const name = 'podman';
  return {
    name,
    program,
    async find(reference, signal) {
      // 0 there, 1 not there, 125 for anything else (podman-image-exists(1)).
      const exists = await runProgram(program, ['image', 'exists', reference], signal);
      if (exists.code === 1) return { state: 'absent' };
      if (exists.code !== 0) return unavailable(name, exists);
      const inspect = await runProgram(program, ['image', 'inspect', '--format', '{{.Id}}', reference], signal);
      return inspect.code === 0 ? { state: 'found', id: inspect.stdout.trim() } : unavailable(name, inspect);
    },
    // Uncompressed and streaming from the start; its oci-archive is gzip and comes seconds later.
    saveArguments: reference => ['save', '--format', 'docker-archive', reference],
  };
}

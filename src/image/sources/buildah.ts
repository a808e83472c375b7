import { join } from 'node:path';
import { runProgram } from '../program.ts';
import { readArchiveFile } from './archive.ts';
import { ask, type Engine, savedLabel, saveFailed, unavailable } from './engine.ts';
import { fullId } from './inspection.ts';

/** buildah without podman, as in its own container images. Where podman is installed too, both see one store. */
export function buildahEngine(program: string): Engine {
  const name = 'buildah';
  return {
    name,
    async find(reference, signal) {
      const inspect = ['inspect', '--type', 'image', '--format', '{{.FromImageID}}', reference];
      const result = await ask(program, inspect, signal);
      const id = result.stdout.trim();
      if (result.code !== 0 || !/^[0-9a-f]{64}$/.test(id)) {
        return /image not known/i.test(result.stderr) ? { state: 'absent' } : unavailable(name, result);
      }
      return {
        state: 'found',
        image: {
          id: fullId(id),
          diffIds: [],
          async read(scratch, signal) {
            // It writes to a file or a pipe that it opens itself, and Node's stdout is neither (it is a socket).
            const path = join(scratch.directory, `buildah-${id}.tar`);
            const push = await runProgram(program, ['push', '--quiet', id, `docker-archive:${path}`], signal);
            if (push.code !== 0) throw saveFailed({ engine: name, reference }, push);
            return {
              ...(await readArchiveFile(path, scratch, signal)),
              label: savedLabel({ engine: name, reference }),
            };
          },
        },
      };
    },
  };
}

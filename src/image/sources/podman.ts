import { parseReference } from '../reference.ts';
import { ask, type Engine, type FoundImage, readSaved, unavailable } from './engine.ts';
import { type Inspection, parseInspection } from './inspection.ts';
import { readInPlace } from './overlay-store.ts';
import { readEither } from './push.ts';

/** podman, which has no daemon: the images are those of the user that runs this job. buildah's are among them. */
export function podmanEngine(program: string, log: (line: string) => void): Engine {
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
      const { isPodman: _podman, directories: _places, ...facts } = inspection;
      return { state: 'found', image: { ...facts, read: podmanReader(name, program, reference, inspection, log) } };
    },
  };
}

/**
 * The same for a name of Docker's hub under which podman has nothing: what was built by a short name, `app:1`, podman has as
 * `localhost/app:1`, and a pod may have to write it in full.
 */
export function podmanShortEngine(program: string, log: (line: string) => void): Engine {
  const engine = podmanEngine(program, log);
  return {
    name: engine.name,
    async find(reference, signal) {
      const { registry, repository, tag, digest } = parseReference(reference);
      if (registry !== 'docker.io' || digest !== undefined) return { state: 'absent' };
      const built = `localhost/${repository.replace(/^library\//, '')}:${tag ?? 'latest'}`;
      const answer = await engine.find(built, signal);
      if (answer.state === 'found') log(`podman has ${reference} as ${built}`);
      return answer;
    },
  };
}

/**
 * How podman hands out an image, also under docker's name. A push is never slower than a save, since podman compresses
 * with as many threads as there are processors; and it asks for layers by their diffID.
 */
export function podmanReader(
  engine: string,
  program: string,
  reference: string,
  image: Inspection,
  log: (line: string) => void,
): FoundImage['read'] {
  // Uncompressed and streaming from the start; its oci-archive is gzip and comes seconds later.
  const save = { engine, program, args: ['save', '--format', 'docker-archive', reference], reference };
  // A layer may be there in another form than zstd: naming a format alone would forbid that.
  const form = ['--compression-format', 'zstd', '--compression-level', '1', '--force-compression=false'];
  const push = {
    engine,
    program,
    reference,
    id: image.id,
    push: (destination: string) => [
      'push',
      '--quiet',
      '--tls-verify=false',
      ...form,
      reference,
      `docker://${destination}`,
    ],
  };
  return async (scratch, signal) => {
    const inPlace = await readInPlace(engine, reference, image, log);
    if (inPlace !== undefined) return inPlace;
    const remote =
      process.platform !== 'linux' || [process.env.CONTAINER_HOST, process.env.CONTAINER_CONNECTION].some(Boolean);
    if (remote) log(`the whole image is saved: ${engine} runs elsewhere`);
    return await readEither(remote ? undefined : push, () => readSaved(save, scratch, signal), scratch, signal, log);
  };
}

import { SideloadError } from '../../errors.ts';
import { buildahEngine } from './buildah.ts';
import { ctrEngine, nerdctlEngine } from './containerd.ts';
import { dockerEngine } from './docker.ts';
import type { Engine, EngineAnswer, FoundImage } from './engine.ts';
import { podmanEngine, podmanShortEngine } from './podman.ts';

/** The engines that an image can be taken from. */
export type EngineName = 'docker' | 'podman' | 'buildah' | 'nerdctl' | 'containerd';

/** The programs to ask, by name or path. */
export interface EngineOptions {
  readonly docker?: string | undefined;
  readonly podman?: string | undefined;
  readonly buildah?: string | undefined;
  readonly nerdctl?: string | undefined;
  readonly ctr?: string | undefined;
  /** The containerd namespace that nerdctl and ctr look into; without it the tool's own. */
  readonly containerdNamespace?: string | undefined;
}

/** Where an image was found. */
export interface Found {
  readonly engine: string;
  readonly image: FoundImage;
  /** Who else has an image of this name that must turn out to be the same one, with its ID. */
  readonly rival?: { readonly engine: string; readonly id: string };
}

/**
 * Whom to ask, in rounds; a later round is asked when nobody in an earlier one has the image. docker and podman are
 * asked together: a name that both have with different images is nobody's guess. What lies in containerd is often
 * older than the build (a runner may be a node itself), so it never competes with them.
 */
const ROUNDS: Readonly<Record<EngineName | 'auto', readonly (readonly (EngineName | 'podman-short')[])[]>> = {
  auto: [['docker', 'podman'], ['podman-short'], ['buildah'], ['nerdctl'], ['containerd']],
  docker: [['docker']],
  podman: [['podman'], ['podman-short']],
  // One store, and podman streams out of it.
  buildah: [['podman'], ['podman-short'], ['buildah']],
  nerdctl: [['nerdctl']],
  containerd: [['containerd']],
};

function engineOf(name: EngineName | 'podman-short', options: EngineOptions, log: (line: string) => void): Engine {
  const { docker = 'docker', podman = 'podman', buildah = 'buildah', nerdctl = 'nerdctl', ctr = 'ctr' } = options;
  const namespace = options.containerdNamespace;
  return {
    docker: () => dockerEngine(docker, log),
    podman: () => podmanEngine(podman, log),
    'podman-short': () => podmanShortEngine(podman, log),
    buildah: () => buildahEngine(buildah),
    nerdctl: () => nerdctlEngine({ program: nerdctl, namespace }),
    containerd: () => ctrEngine({ program: ctr, namespace }, log),
  }[name]();
}

/**
 * Finds the engine that has an image, and says in the log where it looked and which one it takes.
 * @throws SideloadError IMAGE_NOT_FOUND, IMAGE_AMBIGUOUS, SOURCE_UNAVAILABLE when nobody could be asked, CANCELLED
 */
export async function findImage(
  source: EngineName | 'auto',
  reference: string,
  options: EngineOptions,
  log: (line: string) => void,
  signal: AbortSignal,
): Promise<Found> {
  const absent = new Set<string>();
  const reasons = new Set<string>();
  for (const round of ROUNDS[source]) {
    const answers = await Promise.all(
      round.map(async name => {
        const engine = engineOf(name, options, log);
        return { name, engine: engine.name, answer: await engine.find(reference, signal) };
      }),
    );
    for (const { name, engine, answer } of answers) {
      if (answer.state === 'absent' && name !== 'podman-short') absent.add(engine);
      if (answer.state === 'unavailable') reasons.add(answer.reason);
    }
    const [first, second] = answers.flatMap(({ engine, answer }) => found(engine, answer));
    if (first !== undefined) {
      log(
        [
          `${reference} is taken from ${first.engine}`,
          ...[...absent].filter(name => name !== first.engine).map(name => `${name} lacks it`),
          ...reasons,
        ].join('; '),
      );
      return second === undefined ? first : compare(reference, first, second);
    }
  }
  if (absent.size === 0) {
    throw new SideloadError('SOURCE_UNAVAILABLE', `nobody can be asked for ${reference}: ${[...reasons].join('; ')}`);
  }
  throw new SideloadError(
    'IMAGE_NOT_FOUND',
    [`no image ${reference} in ${[...absent].join(', ')}`, ...reasons].join('; '),
    {
      hint: `Compare the name with \`docker images\`, \`podman images\` or \`nerdctl images\` on the runner; images that another user built, or that lie in another containerd namespace, are not seen.`,
    },
  );
}

function found(engine: string, answer: EngineAnswer): readonly Found[] {
  return answer.state === 'found' ? [{ engine, image: answer.image }] : [];
}

/** The first one when both hold the same image, or when only reading it can show whether they do. */
function compare(reference: string, first: Found, second: Found): Found {
  if (first.image.id === second.image.id) return first;
  // With Docker's containerd store its ID is a manifest's digest, which equals nothing that podman says. Images with
  // other layers are others in any case.
  const layers = [first, second].map(({ image }) => image.diffIds.join());
  if (layers[0] !== '' && layers[1] !== '' && layers[0] !== layers[1]) throw ambiguous(reference, first, second);
  return { ...first, rival: { engine: second.engine, id: second.image.id } };
}

/** The error for a name that two engines have with different images. */
export function ambiguous(reference: string, first: Found, second: Found | NonNullable<Found['rival']>): SideloadError {
  const other = 'image' in second ? second.image.id : second.id;
  const both = [
    [first.engine, first.image.id],
    [second.engine, other],
  ].map(([engine, id = '']) => `${engine} (${id.replace('sha256:', '').slice(0, 12)})`);
  return new SideloadError('IMAGE_AMBIGUOUS', `${both.join(' and ')} have different images ${reference}`, {
    hint: 'Set `source` to `docker` or `podman`, or remove the old one.',
  });
}

import { SideloadError } from '../errors.ts';
import { asList, asObject, isMapping } from '../image/json.ts';
import { normalise } from '../image/reference.ts';
import type { NodeFacts } from '../node/facts.ts';
import type { Script, Sections } from '../node/script.ts';
import { parseJson, variables } from './cri.ts';

/** What containers of any state were made from, by full name and by image ID. */
export interface UsedImages {
  readonly names: ReadonlySet<string>;
  readonly ids: ReadonlySet<string>;
}

/**
 * Asks for the images of all containers, running or not: the CRI for those of pods, and the runtime's own clients, since
 * people start containers beside it. A question without an answer ends the script with an error: it must not look like
 * a node without containers.
 */
const CONTAINERS = `
section cri
[ -z "$CRICTL" ] || as_root $CRICTL --timeout 20s --runtime-endpoint "unix://$SOCKET" ps -a -o json 2>/dev/null || exit 1
section ctr
[ "$RUNTIME" != containerd ] || as_root $CTR --address "$SOCKET" --namespace k8s.io containers ls || exit 1
section docker
[ "$RUNTIME" != docker ] || as_root $DOCKER ps --all --no-trunc --format '{{.Image}}' || exit 1
section podman
[ "$RUNTIME" != cri-o ] || [ -z "$PODMAN" ] ||
  as_root $PODMAN ps --all --external --no-trunc --format '{{.ImageID}} {{.Image}}' || exit 1`;

export function containers(facts: NodeFacts): Script {
  return { body: CONTAINERS, variables: { ...variables(facts, []), RUNTIME: facts.runtime.name } };
}

/**
 * The answer to {@link containers}.
 * @throws SideloadError REMOTE_COMMAND_FAILED when it is none
 */
export function usedImages(sections: Sections): UsedImages {
  const answer = sections.get('cri') ?? '';
  const parsed = parseJson(answer);
  const containers = asObject(parsed).containers ?? [];
  if (answer !== '' && !(isMapping(parsed) && Array.isArray(containers))) {
    throw new SideloadError('REMOTE_COMMAND_FAILED', 'crictl ps -a -o json: the answer is no list of containers');
  }
  const said = [
    ...asList(containers).flatMap(container => {
      const { image, imageRef, imageId } = asObject(container);
      return [asObject(image).image, asObject(image).userSpecifiedImage, imageRef, imageId];
    }),
    // CONTAINER IMAGE RUNTIME, below a line of headings.
    ...lines(sections, 'ctr')
      .slice(1)
      .map(line => line.split(/\s+/)[1]),
    ...lines(sections, 'docker'),
    ...lines(sections, 'podman').flatMap(line => line.split(' ')),
  ].filter(text => typeof text === 'string');
  const names = new Set<string>();
  const ids = new Set<string>();
  for (const text of said) {
    // cri-dockerd: `docker://sha256:…`, `docker-pullable://NAME@sha256:…`.
    const plain = text.replace(/^docker(?:-pullable)?:\/\//, '');
    const id = /^(?:sha256:)?([0-9a-f]{64})$/.exec(plain)?.[1];
    if (id !== undefined) {
      ids.add(`sha256:${id}`);
      continue;
    }
    try {
      names.add(normalise(plain));
    } catch {
      // A container without an image, or one that was mounted from a directory.
    }
  }
  return { names, ids };
}

function lines(sections: Sections, name: string): readonly string[] {
  return (sections.get(name) ?? '').split('\n').filter(line => line !== '');
}

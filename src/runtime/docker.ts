import type { BlobDescriptor } from '../image/image.ts';
import { asList, asObject } from '../image/json.ts';
import type { NodeFacts } from '../node/facts.ts';
import type { Script, Sections } from '../node/script.ts';
import {
  asRoot,
  builtFor,
  CRI,
  criImageId,
  eachPair,
  eachReference,
  flatPairs,
  heldBy,
  NO_SUCH_IMAGE,
  parseJson,
  variables,
} from './cri.ts';
import { freeEach } from './names.ts';
import type { AskedLayer, HeldImage, Runtime, TagPair } from './runtime.ts';

/** Docker behind cri-dockerd: `docker load`, and the CRI's word where the node has crictl. */
export const docker: Runtime = {
  importArchive,
  inspect,
  held: heldBy(heldAt),
  layers,
  heldLayers,
  removeOne: (facts, reference) => [
    [...asRoot(facts), ...(facts.tools.docker ?? ['docker']), 'image', 'rm', reference],
  ],
  canOverlap: false,
  lacksContent: said => /no such file or directory/.test(said),
  tag,
  names: () => NAMES,
  pins: () => undefined,
  remove,
};

function importArchive(facts: NodeFacts): readonly string[] {
  return [...asRoot(facts), ...(facts.tools.docker ?? ['docker']), 'load', '--quiet'];
}

/** It leaves in `$said` what docker says of the image. */
const HAS_NAME = `${CRI}
has_name() { answer '${NO_SUCH_IMAGE}' as_root $DOCKER image inspect "$1"; }`;

const INSPECT = `${HAS_NAME}${eachReference(`  has_name "$reference" && {
    section "image $number"; printf '%s' "$said"
    inspect_by_cri "$number" "$reference"
  }`)}`;

function inspect(facts: NodeFacts, references: readonly string[]): Script {
  return { body: INSPECT, variables: variables(facts, references) };
}

function heldAt(sections: Sections, number: number): HeldImage | undefined {
  const images = parseJson(sections.get(`image ${number}`));
  const image = asObject(asList(images)[0]);
  const answer = criImageId(sections, number);
  const imageId = answer === 'unasked' ? image.Id : answer;
  if (asList(images).length === 0 || typeof imageId !== 'string' || imageId === 'absent') {
    return undefined;
  }
  // The classic image store applies each layer as it loads it.
  return {
    imageId,
    ...builtFor({ os: image.Os, architecture: image.Architecture }),
    unpacked: true,
    witness: answer === 'unasked' ? 'docker' : 'crictl',
  };
}

/** The layers of every image, lowest first, a line each. With Docker's containerd store, which loads otherwise, none. */
const LAYERS = `
section chains
case $(as_root $DOCKER info --format '{{json .DriverStatus}}') in *io.containerd.snapshotter*) ;; *)
  ids=$(as_root $DOCKER image ls --all --quiet --no-trunc | sort -u)
  [ -z "$ids" ] || as_root $DOCKER image inspect --format '{{json .RootFS.Layers}}' $ids | grep -F "$WANTED" ;;
esac`;

function layers(facts: NodeFacts, asked: readonly AskedLayer[]): Script {
  return {
    body: asked.length === 0 ? '' : LAYERS,
    variables: { ...variables(facts, []), WANTED: asked.map(({ diffId }) => diffId).join('\n') },
  };
}

/**
 * A layer is found again on top of the same layers only (moby: image/tarexport, by chain ID). A docker-archive names it
 * by a path, so any name for the blob will do: that of the plain tar, with no size.
 */
function heldLayers(sections: Sections, asked: readonly AskedLayer[]): readonly (readonly BlobDescriptor[])[] {
  const diffIds = asked.map(({ diffId }) => diffId);
  const depths = (sections.get('chains') ?? '').split('\n').map(line => {
    const chain = parseJson(line);
    const differs = diffIds.findIndex((diffId, index) => !Array.isArray(chain) || chain[index] !== diffId);
    return differs < 0 ? diffIds.length : differs;
  });
  const depth = depths.reduce((deepest, one) => Math.max(deepest, one), 0);
  return diffIds.map((digest, index) => (index < depth ? [{ digest, sizeBytes: 0, compression: 'none' }] : []));
}

/**
 * Docker refuses to take the last name of an image that a container uses; by force it takes the name alone. `docker image ls
 * NAME` finds nothing for a name that begins with `docker.io`.
 */
const NAMES = `${HAS_NAME}
give_name() { as_root $DOCKER image tag "$1" "$2"; }
take_name() { as_root $DOCKER image rm "$1"; }
free_name() { take_name "$1" || as_root $DOCKER image rm --force "$1"; }`;

function tag(facts: NodeFacts, pairs: readonly TagPair[]): Script {
  return {
    body: `${NAMES}${eachPair('  give_name "$1" "$2" >&2')}`,
    variables: variables(facts, flatPairs(pairs)),
  };
}

function remove(facts: NodeFacts, references: readonly string[]): Script {
  return {
    body: `${NAMES}${freeEach('  end_imports "$reference"\n')}`,
    variables: variables(facts, references),
  };
}

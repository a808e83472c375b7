import type { NodeFacts } from '../node/facts.ts';
import type { Script, Sections } from '../node/script.ts';
import { asRoot, CRI, criImageId, eachPair, eachReference, flatPairs, heldBy, parseJson, variables } from './cri.ts';
import type { HeldImage, Runtime, TagPair } from './runtime.ts';

/** Docker behind cri-dockerd: `docker load`, and the CRI's word where the node has crictl. */
export const docker: Runtime = { importArchive, inspect, held: heldBy(heldAt), tag, remove };

function importArchive(facts: NodeFacts): readonly string[] {
  return [...asRoot(facts), ...(facts.tools.docker ?? ['docker']), 'load', '--quiet'];
}

const INSPECT = `${CRI}${eachReference(`  image=$(as_root $DOCKER image inspect "$reference" 2>/dev/null) && {
    section "image $number"; printf '%s' "$image"
    inspect_by_cri "$number" "$reference"
  }`)}`;

function inspect(facts: NodeFacts, references: readonly string[]): Script {
  return { body: INSPECT, variables: variables(facts, references) };
}

function heldAt(sections: Sections, number: number): HeldImage | undefined {
  const images = parseJson(sections.get(`image ${number}`));
  const [image] = Array.isArray(images) ? (images as { Id?: unknown; Os?: unknown; Architecture?: unknown }[]) : [];
  const answer = criImageId(sections, number);
  const imageId = answer === 'unasked' ? image?.Id : answer;
  if (image === undefined || typeof imageId !== 'string' || imageId === 'absent') {
    return undefined;
  }
  // The classic image store applies each layer as it loads it.
  return {
    imageId,
    os: String(image.Os),
    architecture: String(image.Architecture),
    unpacked: true,
    witness: answer === 'unasked' ? 'docker' : 'crictl',
  };
}

function tag(facts: NodeFacts, pairs: readonly TagPair[]): Script {
  return {
    body: eachPair('  as_root $DOCKER image tag "$1" "$2" >&2'),
    variables: variables(facts, flatPairs(pairs)),
  };
}

function remove(facts: NodeFacts, references: readonly string[]): Script {
  return {
    body: `${CRI}${eachReference(`  end_imports "$reference"
  [ -z "$(as_root $DOCKER image ls --quiet "$reference")" ] || as_root $DOCKER image rm "$reference" >&2 || exit 1`)}`,
    variables: variables(facts, references),
  };
}

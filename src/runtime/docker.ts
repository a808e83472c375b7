import type { NodeFacts } from '../node/facts.ts';
import type { Script, Sections } from '../node/script.ts';
import { asRoot, CRI, criImageId, parseJson, variables } from './cri.ts';
import type { HeldImage, Runtime } from './runtime.ts';

/** Docker behind cri-dockerd: `docker load`, and the CRI's word where the node has crictl. */
export const docker: Runtime = { importArchive, inspect, held, tag, remove };

function importArchive(facts: NodeFacts): readonly string[] {
  return [...asRoot(facts), ...(facts.tools.docker ?? ['docker']), 'load', '--quiet'];
}

const INSPECT = `${CRI}
number=0
for reference in $REFERENCES; do
  image=$(as_root $DOCKER image inspect "$reference" 2>/dev/null) && {
    section "image $number"; printf '%s' "$image"
    inspect_by_cri "$number" "$reference"
  }
  number=$((number + 1))
done`;

function inspect(facts: NodeFacts, references: readonly string[]): Script {
  return { body: INSPECT, variables: variables(facts, references) };
}

function held(sections: Sections, references: readonly string[]): ReadonlyMap<string, HeldImage | undefined> {
  return new Map(references.map((reference, number) => [reference, heldAt(sections, number)]));
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

function tag(facts: NodeFacts, pairs: readonly { readonly from: string; readonly to: string }[]): Script {
  return {
    body: `set -e
set -- $REFERENCES
while [ $# -gt 1 ]; do as_root $DOCKER image tag "$1" "$2" >&2; shift 2; done`,
    variables: variables(
      facts,
      pairs.flatMap(({ from, to }) => [from, to]),
    ),
  };
}

function remove(facts: NodeFacts, references: readonly string[]): Script {
  return {
    body: `${CRI}
for reference in $REFERENCES; do
  end_imports "$reference"
  [ -z "$(as_root $DOCKER image ls --quiet "$reference")" ] || as_root $DOCKER image rm "$reference" >&2 || exit 1
done`,
    variables: variables(facts, references),
  };
}

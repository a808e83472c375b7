import { parseDigest } from '../image/digest.ts';
import type { BlobDescriptor } from '../image/image.ts';
import { isMapping } from '../image/json.ts';
import type { NodeFacts } from '../node/facts.ts';
import type { Script, Sections } from '../node/script.ts';
import {
  asRoot,
  builtFor,
  CRI,
  criImageId,
  criPinned,
  EXIT_CODE_1,
  eachPair,
  eachReference,
  flatPairs,
  heldBy,
  NO_SUCH_IMAGE,
  parseJson,
  variables,
} from './cri.ts';
import { CRIO_PINS } from './crio-pins.ts';
import { freeEach } from './names.ts';
import { CONFIG_BY_PODMAN, heldByPodman, podmanLoad, spelled } from './podman-load.ts';
import type { AskedLayer, HeldImage, Runtime, TagPair } from './runtime.ts';
import { LET_IMPORTS_END, runOf, UNPACKED } from './staging.ts';

/**
 * CRI-O sees what is in root's containers-storage: skopeo, else podman, puts it there under the name that we say.
 * `docs/notes/crio.md` has what was measured.
 */
export const crio: Runtime = {
  importArchive: (facts, ...rest) => commandsFor(facts).importArchive(facts, ...rest),
  inspect: (facts, ...rest) => commandsFor(facts).inspect(facts, ...rest),
  held: heldBy(heldAt),
  layers,
  heldLayers,
  removeOne: (facts, reference) => [
    [
      ...asRoot(facts),
      ...(facts.tools.podman === undefined
        ? [...(facts.tools.crictl ?? ['crictl']), '--image-endpoint', `unix://${facts.criSocket}`, 'rmi']
        : [...facts.tools.podman, 'image', 'rm']),
      reference,
    ],
  ],
  canOverlap: false,
  lacksContent: said => /blobs\/sha256\/[0-9a-f]+: no such file/.test(said),
  tag: (facts, pairs) => commandsFor(facts).tag(facts, pairs),
  names: ({ privilege }) => (privilege === 'user' ? undefined : NAMES),
  pins: () => CRIO_PINS,
  remove: (facts, references) => commandsFor(facts).remove(facts, references),
};

function commandsFor({ privilege }: NodeFacts): typeof podmanLoad {
  return privilege === 'user' ? podmanLoad : { importArchive, inspect, tag, remove };
}

/**
 * skopeo reads no archive from a pipe, so the archive is unpacked below /var/tmp and read from there. The layers that
 * skopeo and podman unpack on the way lie in the same directory: they leave them behind when they are killed. It goes
 * with the command; what a killed one leaves is found by its name.
 */
function importArchive(facts: NodeFacts, stage: string): readonly string[] {
  const { skopeo, podman = ['podman'] } = facts.tools;
  const root = [...asRoot(facts), ''].join(' ');
  // "$@" is the client, whose path the node has told, and "$0" the stage reference.
  const store =
    skopeo !== undefined
      ? `${root}"$@" --tmpdir $d copy --quiet oci:$d/oci containers-storage:$0`
      : `i=$(${root}env TMPDIR=$d "$@" pull --quiet oci:$d/oci) && ${root}"$@" tag $i $0`;
  const script = [
    `d=$(mktemp -d ${UNPACKED}${runOf(stage)}.XXXXXX) || exit`,
    `trap "rm -rf $d 2>/dev/null || ${root}rm -rf $d" EXIT`,
    'trap "exit 1" HUP INT TERM',
    // Half an image would make CRI-O list none at all: neither a hang-up nor a reader that has gone may end what stores it.
    `mkdir $d/oci && tar -xf - -C $d/oci && { (trap "" HUP INT; ${store}) >$d/said 2>&1 || { cat $d/said >&2; exit 1; }; }`,
  ];
  return ['sh', '-c', script.join('; '), stage, ...(skopeo ?? podman)];
}

/**
 * The config comes from the storage itself: the CRI's answer has no architecture. What the storage does not have the CRI
 * is not asked for, which is waited for. It is asked by the name that pods write, so that its rules for short names are proven.
 */
const INSPECT = `${CRI}
set -- $SPELLINGS
${eachReference(`  spelling=$1
  shift
  if [ -n "$SKOPEO" ]; then config=$(as_root $SKOPEO inspect --config "containers-storage:$reference" 2>/dev/null)
  else config=$(${CONFIG_BY_PODMAN})
  fi
  if [ -n "$config" ]; then
    section "config $number"; printf '%s' "$config"
    inspect_by_cri "$number" "$spelling"
  fi`)}`;

function inspect(facts: NodeFacts, references: readonly string[], spellings?: ReadonlyMap<string, string>): Script {
  return { body: INSPECT, variables: { ...variables(facts, references), ...spelled(references, spellings) } };
}

function heldAt(sections: Sections, number: number): HeldImage | undefined {
  const config = parseJson(sections.get(`config ${number}`));
  const imageId = criImageId(sections, number);
  if (imageId === 'unasked') {
    return heldByPodman(sections, number);
  }
  if (!isMapping(config) || imageId === 'absent') {
    return undefined;
  }
  // containers-storage applies each layer as it stores it.
  return {
    imageId,
    ...builtFor(config),
    unpacked: true,
    isPinned: criPinned(sections, number),
    witness: 'crictl',
  };
}

/**
 * The storage's own list, an object per layer (containers-storage: `layers.json`); the storage has no command that
 * prints it for images of others.
 */
const LAYERS = `
section layers
as_root cat "$LIST" 2>/dev/null | tr '{' '\\n' | grep -F "$WANTED"`;

/** The file with the storage's own list of layers. */
export function layerListOf({ imageRoot }: Pick<NodeFacts, 'imageRoot'>): string {
  return `${imageRoot.replace(/-images$/, '-layers')}/layers.json`;
}

function layers(facts: NodeFacts, asked: readonly AskedLayer[]): Script {
  return {
    // Root's list is not for everybody to read: such a user sends whole images.
    body: asked.length === 0 || facts.privilege === 'user' ? '' : LAYERS,
    variables: {
      LIST: layerListOf(facts),
      WANTED: asked.map(({ diffId }) => diffId).join('\n'),
    },
  };
}

/** Under the digest of the plain tar the storage finds a layer again, whatever it was compressed with when it came. */
function heldLayers(sections: Sections, asked: readonly AskedLayer[]): readonly (readonly BlobDescriptor[])[] {
  const held = new Map<string, BlobDescriptor>();
  for (const line of (sections.get('layers') ?? '').split('\n')) {
    const digest = parseDigest(/"diff-digest":"([^"]*)"/.exec(line)?.[1]);
    const size = /"diff-size":(\d+)/.exec(line)?.[1];
    if (digest !== undefined && size !== undefined) {
      held.set(digest, { digest, sizeBytes: Number(size), compression: 'none' });
    }
  }
  return asked.map(({ diffId }) => {
    const layer = held.get(diffId);
    return layer === undefined ? [] : [layer];
  });
}

/**
 * podman takes away a name, and the image with its last one, which it does not while a container uses it; then
 * `podman untag` takes the name alone. `skopeo delete` would take the image with all its names.
 */
const NAMES = `${CRI}
cri() { as_root $CRICTL --image-endpoint "unix://$SOCKET" "$@"; }
has_name() {
  if [ -n "$PODMAN" ]; then answer '${EXIT_CODE_1}' as_root $PODMAN image exists "$1"
  else answer '${NO_SUCH_IMAGE}' cri inspecti "$1"
  fi
}
give_name() {
  if [ -n "$PODMAN" ]; then as_root $PODMAN tag "$1" "$2"
  else as_root $SKOPEO copy --quiet "containers-storage:$1" "containers-storage:$2"
  fi
}
take_name() {
  if [ -n "$PODMAN" ]; then as_root $PODMAN image rm "$1"
  else cri rmi "$1"
  fi
}
free_name() { take_name "$1" || { [ -n "$PODMAN" ] && as_root $PODMAN untag "$1" "$1"; }; }`;

function tag(facts: NodeFacts, pairs: readonly TagPair[]): Script {
  return {
    body: `${NAMES}${eachPair('  give_name "$1" "$2" >&2')}`,
    variables: variables(facts, flatPairs(pairs)),
  };
}

function remove(facts: NodeFacts, references: readonly string[]): Script {
  return {
    // What was staged may be in a container already, put there by an earlier job under another name that has moved since.
    body: `${LET_IMPORTS_END}${NAMES}${freeEach(`  run=\${reference%:*}
  unpacked=${UNPACKED}\${run##*/}.
  let_imports_end "$reference" "$unpacked"
  for directory in "$unpacked"*; do
    [ ! -e "$directory" ] || rm -rf "$directory" 2>/dev/null || as_root rm -rf "$directory"
  done
`)}`,
    variables: variables(facts, references),
  };
}

import { asObject, isMapping } from '../image/json.ts';
import type { NodeFacts } from '../node/facts.ts';
import type { Script, Sections } from '../node/script.ts';
import { builtFor, CRI, eachPair, eachReference, flatPairs, parseJson, variables } from './cri.ts';
import type { HeldImage, Runtime, TagPair } from './runtime.ts';
import { LET_IMPORTS_END, runOf, STAGE_PREFIX, UNPACKED } from './staging.ts';

/**
 * CRI-O for a user whom sudo lets run `podman load` and `podman image inspect`, and no more. It is what
 * `podman image scp NAME root@localhost::` does (podman: `transferRootless`), without a copy in a store of the user's own.
 *
 * Nothing in root's store can be renamed or removed this way. So an image arrives without a name: `podman load` of a
 * directory gives none, and says the ID of what it has stored. The directory stays, without its big files, until the
 * references move: then an archive of it, with the final name in place of the stage name, is loaded once more. The layers
 * that it lacks are in the store (`docs/notes/thin.md`).
 */
export const podmanLoad: Pick<Runtime, 'importArchive' | 'inspect' | 'tag' | 'remove'> = {
  importArchive,
  inspect,
  tag,
  remove,
};

/** Files of up to this many blocks of 512 bytes are kept for the archive with the final name: a config is far smaller. */
const KEPT_BLOCKS = 4096;

/** Where the archive of a stage reference has been unpacked; mktemp adds to it. */
function unpackedAt(stage: string): string {
  return `${UNPACKED}${runOf(stage)}.${stage.slice(stage.lastIndexOf(':') + 1)}-`;
}

function importArchive(facts: NodeFacts, stage: string): readonly string[] {
  const script = [
    'umask 077',
    `d=$(mktemp -d ${unpackedAt(stage)}XXXXXX) || exit`,
    'kept=; trap "[ -n \\"\\$kept\\" ] || rm -rf $d" EXIT',
    'trap "exit 1" HUP INT TERM',
    `mkdir $d/oci && tar -xf - -C $d/oci && sudo -n "$@" load --quiet --input $d/oci >$d/loaded` +
      ` && find $d/oci -type f -size +${KEPT_BLOCKS} -exec rm -f {} + && kept=yes`,
  ];
  return ['sh', '-c', script.join('; '), 'sh', ...(facts.tools.podman ?? ['podman'])];
}

/** What podman is asked of an image, as {@link heldByPodman} reads it. */
export const PODMAN_FORMAT = '{"os":"{{.Os}}","architecture":"{{.Architecture}}","id":"{{.Id}}"}';

/** What podman knows of `$reference`. */
export const CONFIG_BY_PODMAN = `as_root $PODMAN image inspect --format '${PODMAN_FORMAT}' "$reference" 2>/dev/null`;

/** What was staged is as podman said when it stored it; what has a final name is asked for. */
const INSPECT = `${CRI}
set -- $SPELLINGS
${eachReference(`  spelling=$1
  shift
  case $reference in
  "$STAGE_PREFIX"*)
    run=\${reference#"$STAGE_PREFIX"}
    for unpacked in "$UNPACKED\${run%:*}.\${run##*:}"-*; do
      loaded=$(sed -n 's/.*sha256:\\([0-9a-f]\\{64\\}\\).*/\\1/p' "$unpacked/loaded" 2>/dev/null)
      section "loaded $number"; printf '%s' "$loaded"
      section "config $number"; cat "$unpacked/oci/blobs/sha256/$loaded" 2>/dev/null
    done ;;
  *)
    config=$(${CONFIG_BY_PODMAN}) && {
      section "config $number"; printf '%s' "$config"
      inspect_by_cri "$number" "$spelling"
    } ;;
  esac`)}`;

function inspect(facts: NodeFacts, references: readonly string[], spellings?: ReadonlyMap<string, string>): Script {
  return {
    body: INSPECT,
    variables: { ...variables(facts, references), ...spelled(references, spellings), STAGE_PREFIX, UNPACKED },
  };
}

/** What pods write for each of the references, for a script that asks CRI-O. */
export function spelled(
  references: readonly string[],
  spellings: ReadonlyMap<string, string> = new Map(),
): Readonly<Record<string, string>> {
  return { SPELLINGS: references.map(reference => spellings.get(reference) ?? reference).join('\n') };
}

/** The image ID by podman alone, root's: of a staged image, or of one on a node whose CRI the user may not ask. */
export function heldByPodman(sections: Sections, number: number): HeldImage | undefined {
  const config = parseJson(sections.get(`config ${number}`));
  const id = sections.get(`loaded ${number}`) ?? asObject(config).id;
  if (!isMapping(config) || typeof id !== 'string' || !/^[0-9a-f]{64}$/.test(id)) {
    return undefined;
  }
  return {
    imageId: `sha256:${id}`,
    ...builtFor(config),
    unpacked: true,
    witness: 'podman',
  };
}

function tag(facts: NodeFacts, pairs: readonly TagPair[]): Script {
  return {
    body: eachPair(`  run=\${1#"$STAGE_PREFIX"}
  for unpacked in "$UNPACKED\${run%:*}.\${run##*:}"-*; do
    [ -f "$unpacked/index.json" ] || mv "$unpacked/oci/index.json" "$unpacked/index.json"
    sed "s|\\"$1\\"|\\"$2\\"|" "$unpacked/index.json" >"$unpacked/oci/index.json"
    rm -f "$unpacked/oci/manifest.json"
    tar -cf "$unpacked/named.tar" -C "$unpacked/oci" .
    as_root $PODMAN load --quiet --input "$unpacked/named.tar" >&2
  done`),
    variables: { ...variables(facts, flatPairs(pairs)), STAGE_PREFIX, UNPACKED },
  };
}

function remove(facts: NodeFacts, references: readonly string[]): Script {
  return {
    // All that there is belongs to the user. What root's podman has stored stays, without a name.
    body: `as_root() { "$@"; }
${LET_IMPORTS_END}${eachReference(`  run=\${reference%:*}
  unpacked=${UNPACKED}\${run##*/}.
  let_imports_end "$unpacked" "$unpacked"
  rm -rf "$unpacked"*`)}`,
    variables: variables(facts, references),
  };
}

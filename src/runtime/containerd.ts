import { parseDigest } from '../image/digest.ts';
import type { BlobDescriptor } from '../image/image.ts';
import type { Platform } from '../image/platform.ts';
import type { NodeFacts } from '../node/facts.ts';
import type { Script, Sections } from '../node/script.ts';
import {
  asRoot,
  builtFor,
  CRI,
  criImageId,
  criPinned,
  eachPair,
  eachReference,
  flatPairs,
  heldBy,
  NEVER,
  parseObject,
  variables,
} from './cri.ts';
import { importWithLease, SETTLE_LEASES } from './leases.ts';
import { freeEach, LATE } from './names.ts';
import type { AskedLayer, HeldImage, Runtime, TagPair } from './runtime.ts';
import { STAGE_PREFIX, stageName } from './staging.ts';

/** The containerd namespace of Kubernetes (containerd: `constants.K8sContainerdNamespace`). */
const NAMESPACE = 'k8s.io';
const DEFAULT_SNAPSHOTTER = 'overlayfs';

/**
 * containerd through its own client `ctr`, and the CRI through `crictl` where the node has it.
 * `docs/notes/containerd.md` has what was measured of both, by version.
 */
export const containerd: Runtime = {
  importArchive,
  inspect,
  held: heldBy(heldAt),
  layers,
  heldLayers,
  // The CRI gives each image its ID for a name besides.
  removeOne: (facts, reference, imageId) => [reference, imageId].map(name => [...ctrOf(facts), 'images', 'rm', name]),
  canOverlap: true,
  lacksContent: said => /content digest sha256:[0-9a-f]+: not found/.test(said),
  tag,
  names: () => NAMES,
  pins: () => PINS,
  remove,
};

function importArchive(facts: NodeFacts, stage: string, platform: Platform): readonly string[] {
  return importWithLease(ctrOf(facts), asRoot(facts), {
    // The archive may create references below this name and no others.
    stageName: stageName(stage),
    // Never --all-platforms: an index that names more than it carries would fail.
    platform: `${platform.os}/${platform.architecture}`,
    flags: unpackFlags(facts),
  });
}

function ctrOf(facts: NodeFacts): readonly string[] {
  const ctr = facts.tools.ctr ?? ['ctr'];
  return [...asRoot(facts), ...ctr, '--address', facts.criSocket, '--namespace', NAMESPACE];
}

/**
 * The transfer service, which containerd 2 imports by otherwise, takes an archive in through a window of 64 KiB, at less
 * than half of the speed, and unpacks for its configured snapshotter alone (docs/notes/containerd.md).
 */
export function unpackFlags({
  snapshotter = DEFAULT_SNAPSHOTTER,
  importFlags,
}: Pick<NodeFacts, 'snapshotter' | 'importFlags'>): readonly string[] {
  return [
    ...(importFlags.has('--local') ? ['--local'] : []),
    ...(snapshotter === DEFAULT_SNAPSHOTTER ? [] : ['--snapshotter', snapshotter]),
  ];
}

/** `find_manifest NAME` puts the digest that a name has into `$manifest`: nothing for a name that is not there. */
const CTR = `${CRI}
ctr() { as_root $CTR --address "$SOCKET" --namespace ${NAMESPACE} "$@"; }
find_manifest() {
  answer '${NEVER}' ctr images ls "name==$1"
  manifest=$(printf '%s\\n' "$said" | sed -n '2s/^[^ ]* *[^ ]* *\\(sha256:[0-9a-f]*\\) .*/\\1/p')
}`;
/** What `ctr` says of content that the store has lost, and of an image without this platform. */
const NOT_FOUND = ': not found$';

/**
 * `ctr images ls` has the manifest, the manifest names the config, and `images check` says whether the snapshot of the
 * last layer is there.
 */
const INSPECT = `${CTR}
digest_of_config() { tr -d ' \\n\\t' | sed -n 's/.*"config":{[^}]*"digest":"\\(sha256:[0-9a-f]*\\)".*/\\1/p'; }
${eachReference(`  find_manifest "$reference"
  if [ -n "$manifest" ]; then
    section "manifest $number"; printf '%s' "$manifest"
    answer '${NOT_FOUND}' ctr images check --snapshotter "$SNAPSHOTTER" "name==$reference"
    section "check $number"; printf '%s\\n' "$said" | sed -n 2p
    answer '${NOT_FOUND}' ctr content get "$manifest"
    config=$(printf '%s' "$said" | digest_of_config)
    section "config-digest $number"; printf '%s' "$config"
    if [ -n "$config" ]; then
      answer '${NOT_FOUND}' ctr content get "$config"
      section "config $number"; printf '%s' "$said"
    fi
    inspect_by_cri "$number" "$reference"
  fi`)}`;

function inspect(facts: NodeFacts, references: readonly string[]): Script {
  const { snapshotter = DEFAULT_SNAPSHOTTER } = facts;
  return { body: INSPECT, variables: { ...variables(facts, references), SNAPSHOTTER: snapshotter } };
}

function heldAt(sections: Sections, number: number): HeldImage | undefined {
  if (!sections.has(`manifest ${number}`)) {
    return undefined;
  }
  const answer = criImageId(sections, number);
  // With crictl on the node its answer counts, and no other: an image that the CRI does not know is not held.
  const imageId = answer === 'unasked' ? sections.get(`config-digest ${number}`) : answer;
  if (imageId === undefined || imageId === '' || imageId === 'absent') {
    return undefined;
  }
  return {
    imageId,
    ...builtFor(parseObject(sections.get(`config ${number}`))),
    // The columns are REF TYPE DIGEST STATUS SIZE UNPACKED; the last one is a plain word.
    unpacked: /\strue\s*$/.test(sections.get(`check ${number}`) ?? ''),
    isPinned: criPinned(sections, number),
    witness: answer === 'unasked' ? 'ctr' : 'crictl',
  };
}

/**
 * The content store labels a blob with the diffID that it had when it was unpacked. Of a blob that we did not send the
 * compression shows in its first bytes, and `content ls` rounds sizes: both come from the blob's file.
 */
const LAYERS = `${CTR}
blob() { # its bytes, out of the store's own file where that is
  if as_root test -f "$CONTENT/blobs/sha256/\${1#sha256:}"; then as_root cat "$CONTENT/blobs/sha256/\${1#sha256:}"
  else ctr content get "$1" 2>/dev/null
  fi
}
section content
ctr content ls | grep -F "$WANTED" | while read -r digest labels; do
  printf '%s' "$digest"
  case " $BLOBS " in *" $digest "*) ;; *)
    printf ' %s %s %s' "$(blob "$digest" | wc -c)" "$(blob "$digest" | head -c 4 | od -An -tx1 | tr -d ' \\n')" "$labels" ;;
  esac
  echo
done
section snapshots
ctr snapshots --snapshotter "$SNAPSHOTTER" ls | grep -F "$CHAINS" | sed 's/ .*//'`;

/** The directory of the content store. */
export function contentOf({ imageRoot }: Pick<NodeFacts, 'imageRoot'>): string {
  return `${imageRoot.replace(/\/io\.containerd\.snapshotter\.v1\.[^/]*$/, '')}/io.containerd.content.v1.content`;
}

function layers(facts: NodeFacts, asked: readonly AskedLayer[]): Script {
  const { snapshotter = DEFAULT_SNAPSHOTTER } = facts;
  const blobs = asked.flatMap(({ blob }) => blob?.digest ?? []);
  return {
    body: asked.length === 0 ? '' : LAYERS,
    variables: {
      ...variables(facts, []),
      SNAPSHOTTER: snapshotter,
      CONTENT: contentOf(facts),
      WANTED: [...new Set([...asked.map(({ diffId }) => diffId), ...blobs])].join('\n'),
      BLOBS: blobs.join(' '),
      CHAINS: asked.map(({ chainId }) => chainId).join('\n'),
    },
  };
}

/** By what a blob begins with: RFC 8878, RFC 1952; anything else is taken for a plain tar only under its own diffID. */
const MAGICS: readonly (readonly [RegExp, BlobDescriptor['compression']])[] = [
  [/^28b52ffd/, 'zstd'],
  [/^1f8b/, 'gzip'],
];

function heldLayers(sections: Sections, asked: readonly AskedLayer[]): readonly (readonly BlobDescriptor[])[] {
  const snapshots = new Set((sections.get('snapshots') ?? '').split('\n'));
  const whole = new Set<string>();
  const foreign = new Map<string, BlobDescriptor[]>();
  for (const line of (sections.get('content') ?? '').split('\n')) {
    const [text = '', size = '', magic = ''] = line.split(' ');
    whole.add(text);
    const digest = parseDigest(text);
    const diffId = /[\s,]containerd\.io\/uncompressed=(sha256:[0-9a-f]{64})/.exec(line)?.[1];
    if (digest === undefined || diffId === undefined || !/^\d+$/.test(size)) continue;
    const compression = digest === diffId ? 'none' : MAGICS.find(([pattern]) => pattern.test(magic))?.[1];
    if (compression === undefined) continue;
    foreign.set(diffId, [...(foreign.get(diffId) ?? []), { digest, sizeBytes: Number(size), compression }]);
  }
  return asked.map(({ diffId, chainId, blob }) => [
    // With its snapshot there, a blob is not looked for: nodes may discard blobs once they are unpacked.
    ...(blob !== undefined && (whole.has(blob.digest) || snapshots.has(chainId)) ? [blob] : []),
    ...(foreign.get(diffId) ?? []),
  ]);
}

/** Pins are labels of a name, of which the second says that the pin is ours, and of which run. */
const PINNED = 'io.cri-containerd.pinned';
const PINNED_BY = 'kube-sideload.pinned-by';

/**
 * `images tag` takes labels along on 1.x, and not on 2.x. The CRI gives each image its ID for a name besides (`sha256:…`), by which it
 * stays when all other names have gone, and is listed without one: so the last one takes that with it, unless it was there
 * before (`$IMAGE_IDS`) and a container uses it, or may.
 */
const NAMES = `${CTR}
has_name() { find_manifest "$1"; [ -n "$manifest" ]; }
give_name() {
  ctr images tag --force "$1" "$2" || return
  answer '${NEVER}' ctr images ls "name==$1"
  pins=$(printf '%s' "$said" | tr ', ' '\\n\\n' | grep -E '^(${PINNED}|${PINNED_BY})=[0-9A-Za-z]+$') || return 0
  ctr images label "$2" $pins
}
take_name() { ctr images rm "$1"; }
free_name() { take_name "$1"; }
note_content() {
  freed="$freed $manifest"
  case $1 in */absent/* | */absent-at/*) dying="$dying $manifest" ;; esac
}
is_unused() {
  [ -n "$users" ] || users=$(as_root $CRICTL --timeout 10s --runtime-endpoint "unix://$SOCKET" ps -a -o json 2>/dev/null)
  case $users in *"$1"*) return 1 ;; *'"containers"'*) ;; *) return 1 ;; esac
}
free_content() {
  freed=$(printf '%s\\n' $freed | sort -u) users=
  [ -n "$freed" ] || return 0
  set --
  for one in $freed; do set -- "$@" "target.digest==$one"; done
  said=$(ctr images ls "$@" 2>/dev/null) || return 0
  for one in $freed; do
    ids=$(printf '%s\\n' "$said" | grep " $one " | sed 's/ .*//')
    [ -n "$ids" ] && ! printf '%s\\n' "$ids" | grep -qv '^sha256:' || continue
    for id in $ids; do
      case " $IMAGE_IDS " in *" $id "*)
        [ -n "$CRICTL" ] || continue
        until is_unused "$id"; do
          case " $dying " in *" $one "*) [ $late -lt ${LATE} ] || continue 2 ;; *) continue 2 ;; esac
          late=$((late + 1)) users=
          sleep 0.5
        done ;;
      esac
      take_name "$id" || :
    done
  done
}
freed= dying=`;

/** Who may not ask has pinned nothing. */
const REFUSED = '^(sudo|doas): ';

const PINS = `${CTR}
has_label() { answer '${REFUSED}' ctr images ls -q "name==$1,labels.\\"$2\\""; [ -n "$said" ]; }
pin() {
  for name in "$@"; do
    has_label "$name" ${PINNED} || ctr images label "$name" ${PINNED}=pinned "${PINNED_BY}=$RUN" >&2 || return
  done
}
unpin() {
  for name in "$@"; do
    ! has_label "$name" ${PINNED_BY} || ctr images label "$name" ${PINNED}= ${PINNED_BY}= >&2 || return
  done
}
unpin_of() {
  answer '${REFUSED}' ctr images ls -q "labels.\\"${PINNED_BY}\\"==$1"
  unpin $(printf '%s\\n' "$said" | grep -v '^${STAGE_PREFIX}' | grep -E '^[0-9A-Za-z][0-9A-Za-z._:/@-]*$')
}`;

function tag(facts: NodeFacts, pairs: readonly TagPair[]): Script {
  return {
    body: `${CTR}${eachPair('  ctr images tag --force "$1" "$2" >&2')}`,
    variables: variables(facts, flatPairs(pairs)),
  };
}

function remove(facts: NodeFacts, references: readonly string[]): Script {
  return {
    body: `${NAMES}${SETTLE_LEASES}${freeEach('  end_imports "$reference"\n')}
settle_leases`,
    variables: variables(facts, references),
  };
}

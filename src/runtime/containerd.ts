import { SideloadError } from '../errors.ts';
import type { Platform } from '../image/platform.ts';
import type { NodeFacts } from '../node/facts.ts';
import type { Script, Sections } from '../node/script.ts';
import type { HeldImage, Runtime } from './runtime.ts';
import { stageName } from './staging.ts';

/** The containerd namespace of Kubernetes (containerd: `constants.K8sContainerdNamespace`). */
const NAMESPACE = 'k8s.io';

/**
 * containerd through its own client `ctr`, and the CRI through `crictl` where the node has it.
 * `docs/notes/containerd.md` has what was measured of both, by version.
 */
export const containerd: Runtime = { importArchive, inspect, held, tag, remove };

function importArchive(facts: NodeFacts, stage: string, platform: Platform): readonly string[] {
  return [
    ...(facts.privilege === 'sudo' ? ['sudo', '-n'] : []),
    ...ctr(facts),
    'images',
    'import',
    // The archive may create references below this name and no others.
    '--base-name',
    stageName(stage),
    // Never --all-platforms: an index that names more than it carries would fail.
    '--platform',
    `${platform.os}/${platform.architecture}`,
    ...snapshotterFlags(facts),
    '-',
  ];
}

/** The transfer service of containerd 2 unpacks for its configured snapshotter alone; `--local` takes any. */
function snapshotterFlags({ snapshotter, importFlags }: NodeFacts): readonly string[] {
  if (snapshotter === undefined || snapshotter === 'overlayfs') {
    return [];
  }
  return [...(importFlags.has('--local') ? ['--local'] : []), '--snapshotter', snapshotter];
}

function ctr(facts: NodeFacts): readonly string[] {
  return [facts.ctr ?? 'ctr', '--address', facts.criSocket, '--namespace', NAMESPACE];
}

function variables(facts: NodeFacts, references: readonly string[]): Readonly<Record<string, string>> {
  return {
    CTR: facts.ctr ?? 'ctr',
    CRICTL: facts.crictl ?? '',
    SOCKET: facts.criSocket,
    SNAPSHOTTER: facts.snapshotter ?? 'overlayfs',
    REFERENCES: references.join('\n'),
  };
}

const CTR = `ctr() { as_root "$CTR" --address "$SOCKET" --namespace ${NAMESPACE} "$@"; }\n`;

/**
 * The CRI plugin learns of a new reference by an event, a moment after `ctr` has made it: its answer is waited for, not
 * its absence. `ctr images ls` has the manifest, the manifest names the config, and `images check` says whether the
 * snapshot of the last layer is there.
 */
const INSPECT = `${CTR}
digest_of_config() { tr -d ' \\n\\t' | sed -n 's/.*"config":{[^}]*"digest":"\\(sha256:[0-9a-f]*\\)".*/\\1/p'; }
number=0
for reference in $REFERENCES; do
  manifest=$(ctr images ls "name==$reference" | sed -n '2s/^[^ ]* *[^ ]* *\\(sha256:[0-9a-f]*\\) .*/\\1/p')
  if [ -n "$manifest" ]; then
    section "manifest $number"; printf '%s' "$manifest"
    section "check $number"; ctr images check --snapshotter "$SNAPSHOTTER" "name==$reference" 2>&1 | sed -n 2p
    config=$(ctr content get "$manifest" | digest_of_config)
    section "config-digest $number"; printf '%s' "$config"
    section "config $number"; [ -z "$config" ] || ctr content get "$config"
    if [ -n "$CRICTL" ]; then
      for attempt in 1 2 3 4 5 6 7 8 9 10; do
        status=$(as_root "$CRICTL" --runtime-endpoint "unix://$SOCKET" --image-endpoint "unix://$SOCKET" inspecti -o json "$reference" 2>&1) && break
        sleep 0.3
      done
      section "cri $number"; printf '%s' "$status"
    fi
  fi
  number=$((number + 1))
done`;

function inspect(facts: NodeFacts, references: readonly string[]): Script {
  return { body: INSPECT, variables: variables(facts, references) };
}

function held(sections: Sections, references: readonly string[]): ReadonlyMap<string, HeldImage | undefined> {
  return new Map(references.map((reference, number) => [reference, heldAt(sections, number)]));
}

function heldAt(sections: Sections, number: number): HeldImage | undefined {
  if (!sections.has(`manifest ${number}`)) {
    return undefined;
  }
  const config = parse(sections.get(`config ${number}`)) as { os?: unknown; architecture?: unknown } | undefined;
  const cri = sections.get(`cri ${number}`);
  const status = cri === undefined ? undefined : (parse(cri) as { status?: { id?: unknown } } | undefined)?.status;
  // With crictl on the node its answer counts, and no other: an image that the CRI does not know is not held.
  const imageId = cri === undefined ? sections.get(`config-digest ${number}`) : status?.id;
  if (typeof imageId !== 'string' || imageId === '') {
    return undefined;
  }
  return {
    imageId,
    os: String(config?.os),
    architecture: String(config?.architecture),
    // The columns are REF TYPE DIGEST STATUS SIZE UNPACKED; the last one is a plain word.
    unpacked: /\strue\s*$/.test(sections.get(`check ${number}`) ?? ''),
    witness: cri === undefined ? 'ctr' : 'crictl',
  };
}

function parse(text: string | undefined): unknown {
  try {
    return JSON.parse(text ?? '');
  } catch {
    return undefined;
  }
}

function tag(facts: NodeFacts, pairs: readonly { readonly from: string; readonly to: string }[]): Script {
  return {
    body: `${CTR}set -e
set -- $REFERENCES
while [ $# -gt 1 ]; do ctr images tag --force "$1" "$2" >&2; shift 2; done`,
    variables: variables(
      facts,
      pairs.flatMap(({ from, to }) => [from, to]),
    ),
  };
}

function remove(facts: NodeFacts, references: readonly string[]): Script {
  if (references.length === 0) {
    throw new SideloadError('INTERNAL', 'nothing to remove');
  }
  return {
    // When the runner disappears, sshd may wait for it for hours, and the import with it. Its command line has the name.
    // `ctr images rm` of several stops at the first that is missing; one that is missing is as good as removed.
    body: `${CTR}for reference in $REFERENCES; do
  for process in $(grep -lsaF "\${reference%:*}" /proc/[0-9]*/cmdline); do
    process=\${process#/proc/}
    as_root kill "\${process%/cmdline}" 2>/dev/null
  done
  [ -z "$(ctr images ls -q "name==$reference")" ] || ctr images rm "$reference" >&2 || exit 1
done`,
    variables: variables(facts, references),
  };
}

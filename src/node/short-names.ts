import {
  FILE_KINDS,
  FILE_MAX_BYTES,
  type FileKind,
  type ReadRules,
  type RulesFile,
  readRules,
} from '../image/registries-conf.ts';
import { crioCandidates, isShort } from '../image/short-names.ts';
import { CRI, eachReference, NO_SUCH_IMAGE, variables } from '../runtime/cri.ts';
import type { NodeFacts } from './facts.ts';
import { type Node, ready } from './node.ts';
import { runScript, type Sections } from './script.ts';

/** What decides on a node with CRI-O about the names that pods write short. */
export interface ShortNames extends ReadRules {
  /** By name, why CRI-O itself resolves it to nothing, or that it does; empty where the user may not ask it. */
  readonly answers: ReadonlyMap<string, { readonly refusal: string | undefined }>;
}

/** What a name is on one node. */
export type Meaning =
  | { readonly reference: string; readonly doubt?: string; readonly refused?: undefined }
  | { readonly refused: string };

/** No directory of drop-ins has as many. */
const FILES_MAX = 32;

/**
 * Prints every file that decides, and what CRI-O says of each name. What the user may not read is asked for as root, where
 * sudo allows it, unless it can be seen that it is not there: `absent`, `unread`, or `read` and its first bytes.
 */
const ASK = `${CRI}
number=0
may() { [ -z "$LIMITED" ] && { [ -z "$NARROW" ] || sudo -n -l "$@" >/dev/null 2>&1; }; }
is_away() { # whether the user can tell that there is no such file
  [ ! -e "$1" ] || return 1
  parent=\${1%/*}
  while [ -n "$parent" ] && [ ! -d "$parent" ]; do parent=\${parent%/*}; done
  [ -x "\${parent:-/}" ]
}
peek() {
  if is_away "$1"; then echo absent
  elif [ -f "$1" ] && [ -r "$1" ]; then echo read; head -c "$LIMIT" "$1"
  elif ! may cat "$1"; then echo unread
  elif why=$(as_root cat "$1" 2>&1 >/dev/null); then echo read; as_root cat "$1" | head -c "$LIMIT"
  else case $why in *'No such file'* | *'Not a directory'*) echo absent ;; *) echo unread ;; esac
  fi
}
tell() { # tell KIND FILE
  [ $number -lt $FILES_MAX ] || return 0
  section "file $number"
  printf '%s %s\\n' "$1" "$2"
  number=$((number + 1))
  [ $number -lt $FILES_MAX ] || { echo unread; return 0; }
  peek "$2"
}
tell_all() { # tell_all KIND DIRECTORY SUFFIX
  ! is_away "$2" || return 0
  if [ -r "$2" ]; then files=$(ls "$2" 2>/dev/null)
  elif ! may ls "$2"; then section "file $number"; printf '%s %s\\nunread' "$1" "$2"; number=$((number + 1)); return 0
  else files=$(as_root ls "$2" 2>/dev/null)
  fi
  while IFS= read -r file; do
    case $file in '') ;; *"$3") tell "$1" "$2/$file" </dev/null ;; esac
  done <<END
$files
END
}
tell system /etc/containers/registries.conf
tell own /root/.config/containers/registries.conf
tell answered /var/cache/containers/short-name-aliases.conf
tell crio /etc/crio/crio.conf
tell_all crio /etc/crio/crio.conf.d ''
tell_all own-drop-in /root/.config/containers/registries.conf.d .conf
tell_all system-drop-in /etc/containers/registries.conf.d .conf
[ -n "$CRICTL" ] || REFERENCES=
${eachReference(`  section "name $number"
  if ask_cri "$reference"; then echo held
  elif printf '%s' "$why" | grep -q '${NO_SUCH_IMAGE}'; then echo absent
  else printf 'refused %s' "$why"
  fi`)}`;

/** Asks a node with CRI-O what these names are there; names that are not short need no asking. */
export async function askShortNames(
  node: Node,
  names: readonly string[],
  signal: AbortSignal,
): Promise<ShortNames | undefined> {
  const { connection, facts } = ready(node);
  const short = [...new Set(names)].filter(isShort);
  if (facts.runtime.name !== 'cri-o' || short.length === 0) {
    return undefined;
  }
  const script = {
    body: ASK,
    variables: {
      ...variables(facts, short),
      LIMIT: String(FILE_MAX_BYTES + 1),
      FILES_MAX: String(FILES_MAX),
      NARROW: facts.isNarrow ? 'yes' : '',
      LIMITED: facts.privilege === 'user' ? 'yes' : '',
    },
  };
  return parseShortNames(
    await runScript(connection, script, signal, 'reading what short names are there'),
    short,
    facts,
  );
}

/** The answer to {@link askShortNames}'s script. */
export function parseShortNames(
  sections: Sections,
  names: readonly string[],
  { runtime }: Pick<NodeFacts, 'runtime'>,
): ShortNames {
  const files = [...sections].flatMap(([name, said]) => (name.startsWith('file ') ? (fileOf(said) ?? []) : []));
  const answers = names.flatMap((name, number) => {
    const said = sections.get(`name ${number}`);
    const refusal = said?.startsWith('refused') ? clean(said.slice('refused'.length)) : undefined;
    return said === undefined ? [] : [[name, { refusal }] as const];
  });
  return { ...readRules(files, runtime.version), answers: new Map(answers) };
}

function fileOf(said: string): RulesFile | undefined {
  const [head = '', state = '', ...text] = said.split('\n');
  const kind = FILE_KINDS.find((one): one is FileKind => head.startsWith(`${one} `));
  if (kind === undefined || state === 'absent') {
    return undefined;
  }
  return { kind, path: head.slice(kind.length + 1), text: state === 'read' ? text.join('\n') : undefined };
}

/** What CRI-O said, out of what crictl and gRPC put around it. */
function clean(said: string): string {
  const [line = ''] = said.trim().split('\n').slice(-1);
  return line
    .replace(/^.*desc = /, '')
    .replace(/"$/, '')
    .replaceAll('\\"', '"')
    .slice(0, 300);
}

/**
 * What a pod's name is on a node with CRI-O. It tries several candidates in their order, so what lies under the first counts.
 * Its own answer comes before what its files say: it may have been started with others.
 */
export function meaningOf(name: string, { rules, unread, answers }: ShortNames): Meaning {
  const answer = answers.get(name);
  if (answer?.refusal !== undefined) {
    return { refused: answer.refusal };
  }
  // CRI-O takes it for a name: its mode is known by that.
  const { candidates, refused, short } = crioCandidates(
    name,
    answer === undefined ? rules : { ...rules, mode: 'disabled' },
  );
  const [first] = candidates;
  if (first === undefined) {
    const said = refused ?? 'nobody knows which image it is';
    const beside = [
      ...(answer === undefined ? [] : ['CRI-O itself takes it for a name, by rules that are not in its files']),
      ...unread,
    ];
    return { refused: [said, ...beside].join('; ') };
  }
  const doubt = unread.join('; ');
  return short && doubt !== '' ? { reference: first, doubt } : { reference: first };
}

/** A name of an image, and how pods write it, each way once. */
export interface Written<T> {
  readonly image: T;
  readonly reference: string;
  readonly spellings: readonly string[];
}

/** A name that an image gets on one node, and what a pod has to write there to get it. */
export interface NodeName<T> {
  readonly image: T;
  readonly reference: string;
  readonly spelling: string;
}

/** What is wrong on one node with a name that pods write short. */
export interface NameFault {
  readonly spelling: string;
  /** The full name that it stands for elsewhere. */
  readonly reference: string;
  readonly why: string;
  /** `refused`: no pod gets the image by it; else its meaning is not certain, which CRI-O's answer in the end may prove. */
  readonly kind: 'refused' | 'doubtful' | 'unproven';
}

/**
 * Under which names a node needs each image. All runtimes but CRI-O complete a short name as {@link normalise} does. With
 * CRI-O an image gets the name that a short one means there besides the full one, which other pods may write.
 * @param shortNames `undefined` for another runtime, or when no name is short
 */
export function namesOn<T extends { readonly variants: readonly { readonly imageId: string }[] }>(
  written: readonly Written<T>[],
  shortNames: ShortNames | undefined,
): { readonly names: readonly NodeName<T>[]; readonly faults: readonly NameFault[] } {
  const names = new Map<string, NodeName<T>>();
  const faults: NameFault[] = [];
  for (const { image, reference, spellings } of written) {
    const spelling = shortNames === undefined ? spellings[0] : spellings.find(one => !isShort(one));
    names.set(reference, { image, reference, spelling: spelling ?? reference });
  }
  if (shortNames === undefined) {
    return { names: [...names.values()], faults };
  }
  for (const { image, reference, spellings } of written) {
    for (const spelling of spellings.filter(isShort)) {
      const meaning = meaningOf(spelling, shortNames);
      const other = meaning.refused === undefined ? names.get(meaning.reference)?.image : undefined;
      if (meaning.refused !== undefined || (other !== undefined && idsOf(other) !== idsOf(image))) {
        const why = meaning.refused ?? `it means ${meaning.reference} there, which is another image of this run`;
        faults.push({ spelling, reference, why, kind: 'refused' });
        continue;
      }
      names.set(meaning.reference, { image, reference: meaning.reference, spelling });
      if (meaning.doubt !== undefined) {
        const kind = shortNames.answers.has(spelling) ? 'doubtful' : 'unproven';
        faults.push({ spelling, reference, why: meaning.doubt, kind });
      }
    }
  }
  return { names: [...names.values()], faults };
}

function idsOf({ variants }: { readonly variants: readonly { readonly imageId: string }[] }): string {
  return variants
    .map(({ imageId }) => imageId)
    .toSorted()
    .join();
}

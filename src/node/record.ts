import { parseDigest } from '../image/digest.ts';
import { isA } from './grammar.ts';
import type { Script, Sections } from './script.ts';

/**
 * What this tool has put on a node, in a file there: a line for each reference, the one that was put last at the end. It
 * is the only proof that an image is ours; what has no line is never removed. CRI-O and Docker keep no labels on names.
 */
const DIRECTORY = '/var/lib/kube-sideload';

export interface RecordEntry {
  /** The full name. */
  readonly reference: string;
  /** What it named when we put it there. */
  readonly imageId: string;
  /** Seconds since 1970 by the runner's clock: for people. The order of the lines decides what is newer. */
  readonly placedAt: number;
  readonly run: string;
  /** Whether we have pinned it. */
  readonly isPinned?: boolean;
}

function formatEntry({ reference, imageId, placedAt, run, isPinned = false }: RecordEntry): string {
  return [reference, imageId, placedAt, run, ...(isPinned ? ['pinned'] : [])].join(' ');
}

/** Lines that are not of this form are nobody's: they prove nothing. */
function parseRecord(text: string): readonly RecordEntry[] {
  return text.split('\n').flatMap(line => {
    const [, reference = '', imageId = '', placedAt = '', run = '', pinned] =
      /^(\S+) (\S+) (\d{1,12}) ([0-9a-z]+)( pinned)?$/.exec(line) ?? [];
    const entry = { reference, imageId, placedAt: Number(placedAt), run };
    return !isA('reference', reference) || parseDigest(imageId) === undefined
      ? []
      : [{ ...entry, ...(pinned !== undefined && { isPinned: true }) }];
  });
}

/** Asks for the record; {@link readRecord} has the answer. A file that is there and cannot be read is an error. */
export const READ_RECORD: Script = {
  body: `section record
[ ! -e ${DIRECTORY}/images ] || cat ${DIRECTORY}/images 2>/dev/null || as_root cat ${DIRECTORY}/images || exit 1`,
};

export function readRecord(sections: Sections): readonly RecordEntry[] {
  return parseRecord(sections.get('record') ?? '');
}

/**
 * Changes the record: the added lines take the place of older ones for their references and go to the end; a dropped
 * line goes only as it stands, so that what another job has put there meanwhile stays. Readers see the old file or the
 * new one. Two jobs wait for each other where the node has `flock`. What root does are three commands that never differ.
 */
export function changeRecord(added: readonly RecordEntry[], dropped: readonly RecordEntry[] = []): Script {
  return {
    body: CHANGE,
    variables: {
      ADDED: added.map(formatEntry).join('\n'),
      REPLACED: added.map(({ reference }) => reference).join('\n'),
      DROPPED: dropped.map(formatEntry).join('\n'),
    },
  };
}

/** Whole lines are compared, between line breaks: no name has one. */
const CHANGE = `umask 022
[ -d ${DIRECTORY} ] || as_root mkdir -p ${DIRECTORY} || exit 1
if command -v flock >/dev/null; then exec 9<${DIRECTORY} && flock -w 30 9 || exit 1; fi
nl='
'
old=
[ ! -e ${DIRECTORY}/images ] || old=$(cat ${DIRECTORY}/images 2>/dev/null || as_root cat ${DIRECTORY}/images) || exit 1
{
  [ -z "$old" ] || while read -r line; do
    case "$nl$REPLACED$nl" in *"$nl\${line%% *}$nl"*) continue ;; esac
    case "$nl$DROPPED$nl" in *"$nl$line$nl"*) continue ;; esac
    printf '%s\\n' "$line"
  done <<END
$old
END
  [ -z "$ADDED" ] || printf '%s\\n' "$ADDED"
} | as_root tee ${DIRECTORY}/images.new >/dev/null && as_root mv -f ${DIRECTORY}/images.new ${DIRECTORY}/images || exit 1
`;

import type { Pins } from './cri.ts';
import { OF_THE_NODE, PROCESSES } from './processes.ts';

const DIRECTORY = '/etc/crio';
const FILE = `${DIRECTORY}/crio.conf.d/99-kube-sideload.conf`;

/** The lines of our file before the first name; the last one is `]`. */
export const PINS_HEAD: readonly string[] = [
  '# Images that kube-sideload has pinned, and by which run. It writes this file anew.',
  '[crio.image]',
  'pinned_images = [',
];

/** Lines of names, and of ours, as GNU find's `-fprintf` takes them; the shell's `format` does the same, and for others. */
export function formatOf(lines: readonly string[]): string {
  return lines
    .map(line => String.raw`${line.replaceAll(' ', String.raw`\040`).replaceAll('#', String.raw`\043`)}\n`)
    .join('');
}

/**
 * CRI-O has one list, and the last file that sets it counts (crio.conf.d(5)): ours repeats the list of the others, and has
 * a line for each name that we have pinned. It is replaced whole, and CRI-O reads it again on SIGHUP. Every file in that
 * directory counts, so the new one is written beside it. Whoever may write there what he likes is root, and sudo sees
 * arguments only: so the text is one, without spaces, and `find` writes it.
 */
export const CRIO_PINS: Pins = `${PROCESSES}
nl='
'
our_pins() { as_root cat ${FILE} 2>/dev/null | sed -n 's/^  "\\([^"]*\\)", # \\([0-9a-z]*\\)$/\\1 \\2/p'; }
theirs() {
  { echo crio.conf; as_root ls ${DIRECTORY}/crio.conf.d 2>/dev/null | sed 's|^|crio.conf.d/|'; } | while read -r name; do
    [ "${DIRECTORY}/$name" = ${FILE} ] || as_root cat "${DIRECTORY}/$name" 2>/dev/null </dev/null |
      sed "s/#[^\\"']*$//" | { tr '\\n' ' '; echo; } | sed -n 's/.*pinned_images *= *\\[\\([^]]*\\)\\].*/\\1/p'
  done | tail -n 1 | grep -oE "\\"[^\\"]*\\"|'[^']*'"
}
content() {
  printf '%s\\n' ${PINS_HEAD.map(line => `'${line}'`).join(' ')}
  theirs | sed 's/.*/  &,/'
  sed 's/^\\([^ ]*\\) \\(.*\\)$/  "\\1", # \\2/'
  echo ']'
}
format() { sed 's/[\\\\%]/&&/g; s/ /\\\\040/g; s/#/\\\\043/g; s/$/\\\\n/' | tr -d '\\n'; }
reload() {
  if command -v pkill >/dev/null; then as_root pkill -HUP ${OF_THE_NODE} -x crio; return; fi
  for process in $(grep -lsx crio /proc/[0-9]*/comm); do
    process=\${process#/proc/} process=\${process%/comm}
    about "$process" && [ "$uid" = 0 ] || continue
    as_root kill -HUP "$process" || return
  done
}
change() {
  wanted=$(cat) new=
  [ -z "$wanted" ] || new=$(printf '%s\\n' "$wanted" | content)
  [ "$new" != "$(as_root cat ${FILE} 2>/dev/null)" ] || return 0
  if [ -z "$new" ]; then as_root rm -f ${FILE}
  else
    as_root mkdir -p ${DIRECTORY}/crio.conf.d &&
      as_root find / -maxdepth 0 -fprintf ${DIRECTORY}/.kube-sideload "$(printf '%s\\n' "$new" | format)" &&
      as_root mv -f ${DIRECTORY}/.kube-sideload ${FILE}
  fi && reload >&2
}
pin() {
  old=$(our_pins)
  {
    [ -z "$old" ] || printf '%s\\n' "$old"
    for name in "$@"; do case $nl$old in *"$nl$name "*) ;; *) echo "$name $RUN" ;; esac; done
  } | change
}
unpin() { our_pins | while read -r name run; do case " $* " in *" $name "*) ;; *) echo "$name $run" ;; esac; done | change; }
unpin_of() { our_pins | grep -v " $1\\$" | change; }`;

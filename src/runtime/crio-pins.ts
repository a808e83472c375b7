import type { Pins } from './cri.ts';

const DIRECTORY = '/etc/crio';
const FILE = `${DIRECTORY}/crio.conf.d/99-kube-sideload.conf`;

/**
 * CRI-O has one list, and the last file that sets it counts (crio.conf.d(5)): ours repeats the list of the others, and has
 * a line for each name that we have pinned. It is replaced whole, and CRI-O reads it again on SIGHUP. Every file in that
 * directory counts, so the new one is written beside it.
 */
export const CRIO_PINS: Pins = `
nl='
'
ours() { as_root cat ${FILE} 2>/dev/null | sed -n 's/^  "\\([^"]*\\)", # \\([0-9a-z]*\\)$/\\1 \\2/p'; }
theirs() {
  { echo crio.conf; as_root ls ${DIRECTORY}/crio.conf.d 2>/dev/null | sed 's|^|crio.conf.d/|'; } | while read -r name; do
    [ "${DIRECTORY}/$name" = ${FILE} ] || as_root cat "${DIRECTORY}/$name" 2>/dev/null </dev/null |
      sed "s/#[^\\"']*$//" | { tr '\\n' ' '; echo; } | sed -n 's/.*pinned_images *= *\\[\\([^]]*\\)\\].*/\\1/p'
  done | tail -n 1 | grep -oE "\\"[^\\"]*\\"|'[^']*'"
}
content() {
  echo '# Images that kube-sideload has pinned, and by which run. It writes this file anew.'
  printf '[crio.image]\\npinned_images = [\\n'
  theirs | sed 's/.*/  &,/'
  sed 's/^\\([^ ]*\\) \\(.*\\)$/  "\\1", # \\2/'
  echo ']'
}
reload() {
  if [ -d /run/systemd/system ] && as_root systemctl reload crio; then return; fi
  for process in $(grep -lsx crio /proc/[0-9]*/comm); do
    process=\${process%/comm}
    as_root kill -HUP "\${process#/proc/}" || return
  done
}
change() {
  wanted=$(cat) new=
  [ -z "$wanted" ] || new=$(printf '%s\\n' "$wanted" | content)
  [ "$new" != "$(as_root cat ${FILE} 2>/dev/null)" ] || return 0
  if [ -z "$new" ]; then as_root rm -f ${FILE}
  else
    as_root mkdir -p ${DIRECTORY}/crio.conf.d &&
      printf '%s\\n' "$new" | as_root tee ${DIRECTORY}/.kube-sideload >/dev/null &&
      as_root mv -f ${DIRECTORY}/.kube-sideload ${FILE}
  fi && reload >&2
}
pin() {
  old=$(ours)
  {
    [ -z "$old" ] || printf '%s\\n' "$old"
    for name in "$@"; do case $nl$old in *"$nl$name "*) ;; *) echo "$name $RUN" ;; esac; done
  } | change
}
unpin() { ours | while read -r name run; do case " $* " in *" $name "*) ;; *) echo "$name $run" ;; esac; done | change; }
unpin_of() { ours | grep -v " $1\\$" | change; }`;

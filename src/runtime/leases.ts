import { STAGE_PREFIX } from './staging.ts';

/**
 * `ctr images import` puts all that it receives under a lease, which it deletes when it ends, however it fails. Ended by a signal,
 * or left alone by a runtime that is gone, it does not: then the lease holds whole layers and a partial one for a day
 * (containerd: `client.WithLease`). Its name is random, `ctr` can neither be given one nor say what a lease is for, and
 * somebody else's must never go. So an import is ended by its input, which a process of its own hands on to it; and its lease
 * is written down as a symbolic link, which a reboot leaves there: `lease-ID`, whose text is the run and the process of the import.
 */
export const LEASES = '/var/lib/kube-sideload';
const NOTE = `${LEASES}/lease-`;

/** So much is more than what pipes hold, and a sudo that logs what it runs: whoever has taken it in has made its lease before. */
const PROVING_PAGES = 50;

/**
 * Hands standard input on. When ctr has taken in more than what lies in pipes, the one new lease that nobody has written down is
 * its own: with several it is not known which, and none is written down. `dd` without `iflag` (POSIX) hands nothing on, and nothing
 * is written down either.
 */
const FEED = [
  'feed() { page=$(getconf PAGESIZE 2>/dev/null) || page=65536',
  `said=$(dd bs="$page" count=${PROVING_PAGES} iflag=fullblock 2>&1 >&3)`,
  `case $said in "${PROVING_PAGES}+0 records in"*) note "$@" ;; esac`,
  'exec cat >&3; }',
].join('; ');

/** Lines of `leases ls` are ID, CREATED AT as in RFC 3339, LABELS. */
const NOTE_LEASE = [
  `note() { set -- $("$@" leases ls 2>/dev/null </dev/null 3>&- | sed -n "s/^\\([0-9]*-[0-9A-Za-z_-]\\{4\\}\\) *\\([0-9]\\{4\\}\\)-\\(..\\)-\\(..\\)T\\(..\\):\\(..\\):\\(..\\).*/\\2\\3\\4\\5\\6\\7 \\1/p" |` +
    ` while read -r created id; do [ "$created" -lt "$began" ] || [ -h "${NOTE}$id" ] || printf "%s " "$id"; done)`,
  '[ $# = 1 ] || return 0',
  `{ [ -d ${LEASES} ] || $root mkdir -p ${LEASES}; $root ln -sT "\${stage##*/}.$$" "${NOTE}$1"; } >/dev/null 2>&1 </dev/null 3>&-; }`,
].join('; ');

/**
 * What hands on does not see that nobody takes it any more before there is something to hand on: it is ended as if it did, of which
 * a shell says nothing. "$0" is the stage name, by which
 * the processes are found; then come platform, flags and words for root, and the words of ctr.
 */
const IMPORT = [
  'stage=$0 platform=$1 flags=$2 root=$3',
  'shift 3',
  'began=$(date +%Y%m%d%H%M%S)',
  FEED,
  NOTE_LEASE,
  'feed "$@" 3>&1 | { "$@" images import --base-name "$stage" --platform "$platform" $flags -; code=$?',
  '[ $code = 0 ] || { read -r self rest </proc/self/stat; for stat in /proc/[0-9]*/stat; do' +
    ' { read -r process name state parent rest <"$stat"; } 2>/dev/null && [ "$parent" = $$ ] && [ "$process" != "$self" ] && kill -s PIPE "$process"; done; }' +
    ' 2>/dev/null',
  'exit $code; }',
  'code=$?',
  `for link in ${NOTE}*; do [ "$(readlink "$link" 2>/dev/null)" = "\${stage##*/}.$$" ] || continue` +
    `; if [ $code = 0 ]; then $root rm -f "$link"` +
    `; else { said=$("$@" leases delete "\${link#${NOTE}}" 2>&1) || case $said in *": not found"*) ;; *) false ;; esac && $root rm -f "$link"; }` +
    ' >/dev/null 2>&1 </dev/null & fi; done',
  'exit $code',
].join('; ');

/** The command that imports by `ctr`, given as its words, and takes care of its lease. */
export function importWithLease(
  ctr: readonly string[],
  root: readonly string[],
  {
    stageName,
    platform,
    flags,
  }: { readonly stageName: string; readonly platform: string; readonly flags: readonly string[] },
): readonly string[] {
  return ['sh', '-c', IMPORT, stageName, platform, flags.join(' '), root.join(' '), ...ctr];
}

/** What ctr says of a lease that is not there, and sudo to a user who may not delete any. */
const NO_LEASE = ': not found$|^(sudo|doas): ';

/**
 * A function for scripts: `settle_leases` deletes leases of imports that are over, of whichever run. An import that is not over
 * is a process with its run in its command line; where processes of others are hidden, nobody knows.
 */
export const SETTLE_LEASES = `
settle_leases() {
  for link in ${NOTE}*; do
    owner=$(readlink "$link") && [ -r /proc/1/cmdline ] || continue
    lease=\${link#${NOTE}}
    case $lease:$owner in *[!0-9A-Za-z_-]*:* | *:*[!0-9a-z.]*) continue ;; esac
    ! grep -qsaF "${STAGE_PREFIX}\${owner%.*}" "/proc/\${owner##*.}/cmdline" || continue
    answer '${NO_LEASE}' ctr leases delete "$lease" || case $why in *': not found'*) ;; *) continue ;; esac
    as_root rm -f "$link"
  done
}`;

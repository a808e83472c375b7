/** What makes pkill pass over processes that are not root's, and those of other PID and user namespaces. */
export const OF_THE_NODE = '-u 0 --ns 1 --nslist pid,user';

/** Begins the command lines of programs that sudo starts for us with containerd; an extended regular expression, with no space in it. */
export const OURS_BY_SUDO = '^([^[:space:]]*/)?(sudo|sh|ctr|k3s|k0s|microk8s)[[:space:]].*';

/**
 * Functions for scripts that look at processes of a node. Anybody can give a process any name and any command line, so
 * neither says whose it is. `about PID` reads what everybody may (proc(5)) into `$name`, `$uid` and `$euid`; it ends with 1
 * for a process of another PID namespace, which has a number in each one (`NSpid`), and for one in a container that the
 * first process is not in: cgroups of containers have the container's ID in their path, those of pods are below `kubepods`.
 * `login_of PID` prints as whom its session began, whatever it has become since: a user can start sudo under any name, and
 * have it wait for a password as root.
 * `ours TEXT` prints the IDs of processes that may be our imports: on the node itself, of root or of this user, of a program
 * that we start, and with TEXT in their command line.
 */
export const PROCESSES = `
containers_of() { sed -n -e 's/.*\\(kubepods\\).*/\\1/p' -e 's/.*\\([0-9a-f]\\{64\\}\\).*/\\1/p' "/proc/$1/cgroup" 2>/dev/null | sort -u; }
about() {
  name= uid= euid= inner=unknown
  { while read -r field first second rest; do
    case $field in Name:) name=$first ;; Uid:) uid=$first euid=$second ;; NSpid:) inner=$second; break ;; esac
  done <"/proc/$1/status"; } 2>/dev/null
  [ -n "$euid" ] && [ -z "$inner" ] && [ "$(containers_of "$1")" = "$(containers_of 1)" ]
}
login_of() {
  login=
  { read -r login <"/proc/$1/loginuid"; } 2>/dev/null # which ends without a line break
  printf '%s' "\${login#4294967295}"
}
ours() {
  me=$(id -u)
  for process in $(printf '%s\\n' "$1" | grep -lsaFf - /proc/[0-9]*/cmdline); do
    process=\${process#/proc/} process=\${process%/cmdline}
    about "$process" || continue
    case " 0 $me \${SUDO_UID:-0} " in *" $uid "*) ;; *) continue ;; esac
    case " 0 $me " in *" $euid "*) ;; *) continue ;; esac
    login=$(login_of "$process")
    case " 0 $me \${SUDO_UID:-0} " in *" \${login:-0} "*) ;; *) continue ;; esac
    case $name in sh | tar | skopeo | podman | ctr | docker | k3s | k0s | microk8s | sudo | doas | env | nice | ionice | timeout) printf '%s\\n' "$process" ;; esac
  done
}`;

/**
 * A script for `/bin/sh -c` with a name: prints the IDs of processes of this name that are root's on the node itself, and
 * `-` for each other one. What is believed is root of the node already, whatever it is called: it has the user ID, the
 * capabilities and the mapping of users of the first process. Everybody may see that; who runs this as root sees besides
 * that it has the same namespaces and root directory, and that no user has started it by a program with the set-user-ID bit.
 */
export const ROOTS = `${PROCESSES}
rights_of() { { sed -n 's/^CapEff://p' "/proc/$1/status"; cat "/proc/$1/uid_map"; } 2>/dev/null; }
is_roots() {
  about "$1" && [ "$uid $euid" = '0 0' ] && [ "$(rights_of "$1")" = "$(rights_of 1)" ] || return 1
  if [ "$(id -u)" != 0 ]; then login=$(login_of "$1"); [ "\${login:-0}" = 0 ]; return; fi
  for namespace in user pid; do
    [ "$(readlink "/proc/$1/ns/$namespace")" = "$(readlink "/proc/self/ns/$namespace")" ] || return 1
  done
  [ "/proc/$1/root/." -ef /. ] && [ -f "/proc/$1/exe" ] && [ ! -u "/proc/$1/exe" ]
}
for process in $(grep -lsx -e "$1" /proc/[0-9]*/comm); do
  process=\${process#/proc/} process=\${process%/comm}
  if is_roots "$process"; then printf '%s\\n' "$process"; else echo -; fi
done
exit 0`;

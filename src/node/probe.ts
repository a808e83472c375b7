import { INSTANCE } from '../runtime/instance.ts';
import { LEASES } from '../runtime/leases.ts';
import { PODMAN_FORMAT } from '../runtime/podman-load.ts';
import { PROCESSES, ROOTS } from '../runtime/processes.ts';
import { STAGE_PREFIX, UNPACKED } from '../runtime/staging.ts';
import type { SshConnection } from '../ssh/connect.ts';
import { distributionRows } from './distributions.ts';
import { runScript, type Sections } from './script.ts';

/**
 * The kubelet is found by its process name, its endpoint in its command line, else in the file behind `--config`
 * (kubelet.config.k8s.io/v1beta1: `containerRuntimeEndpoint`), as a person would look it up. Any process can have this name:
 * only root's on the node itself are believed (`ROOTS`), and of several that differ none, nor of several well-known sockets:
 * then the user has to say which. One that is part of another
 * process has its command line in the settings of its distribution. Which runtime it is, the
 * CRI itself says (`crictl version`); where there is no crictl, the table of distributions, and in the end whoever
 * answers. The disk is that of the images by the CRI's own word (`imagefsinfo`), or the runtime's default directory. The
 * sandbox image is in `crictl info`, except with containerd 2, which only its configuration tells. A user without the
 * rights of root is asked what sudo allows, and sees what everybody on the machine may see.
 */
const PROBE = `${PROCESSES}
section uid; id -u
section user; id -un
section as-root; printf '%s' "$AS_ROOT"
limited=
may() { sudo -n -l "$@" >/dev/null 2>&1; } # whether sudo lets the user run this command
narrow=
[ "$AS_ROOT" != 'sudo -n' ] || may /bin/sh -c : || narrow=yes
section narrow; printf '%s' "$narrow"
if ! refusal=$(as_root true 2>&1); then
  section sudo-refused; printf '%s' "$refusal"
  podman=$(command -v podman) || { section end; exit 0; }
  # What one command needs of root, sudo may still allow; the rest is asked for as the user.
  section sudo-allows
  may "$podman" load --quiet --input "\${UNPACKED}0.0-000000/oci" && echo load
  may "$podman" image inspect --format "$PODMAN_FORMAT" x && echo inspect
  as_root() { case $1 in */crictl | */podman) sudo -n "$@" ;; *) "$@" ;; esac; }
  limited=yes
fi
section machine; uname -m
section identity; { cat /proc/sys/kernel/random/boot_id && readlink /proc/self/ns/pid && uname -n; } 2>/dev/null
section machine-id; cat /etc/machine-id 2>/dev/null || cat /var/lib/dbus/machine-id 2>/dev/null
section addresses
{ sed -n '/|-- /{s/.*|-- //;h;};/host LOCAL/{g;p;}' /proc/net/fib_trie | sort -u; cut -d ' ' -f 1 /proc/net/if_inet6; } 2>/dev/null | head -n 8192

look() { # look NAME: the processes of this name, as ROOTS has it, by root where that is possible: it sees all of each
  { [ -z "$narrow$limited" ] && as_root /bin/sh -c "$ROOTS" sh "$1" 2>/dev/null; } || /bin/sh -c "$ROOTS" sh "$1"
}
command_line() { # command_line PID: an argument a line
  { cat "/proc/$1/cmdline" || as_root cat "/proc/$1/cmdline"; } 2>/dev/null | head -c 131072 | tr '\\0' '\\n'
}
bounded() { # bounded FILE: what is in it, when it is a file and not too large
  case $1 in /*) ;; *) return 1 ;; esac
  as_root test -f "$1" </dev/null || return 1
  { failed=$({ { as_root cat "$1" </dev/null || echo yes >&3; } | head -c 1048576 >&4; } 3>&1); } 4>&1
  [ -z "$failed" ]
}
flag() { # flag NAME: its value on the kubelet's command line, as --name=value or --name value
  printf '%s\\n' "$arguments" | sed -n -e "s/^--$1=//p" -e "/^--$1\\$/{n;p;}" | tail -n 1
}
configuration() { # the kubelet's configuration file and its drop-ins, in the order in which they apply
  config=$(flag config) drop_ins=$(flag config-dir) unread=
  [ -z "$config" ] || bounded "$config" || unread=yes
  files=
  case $drop_ins in '') ;; /*) files=$(as_root ls "$drop_ins" </dev/null) || unread=yes ;; *) unread=yes ;; esac
  while IFS= read -r file; do
    case $file in *.conf) printf '\\n---\\n'; bounded "$drop_ins/$file" || unread=yes ;; esac
  done <<END
$files
END
  [ -z "$unread" ]
}
settings() { # what the kubelet with these arguments goes by
  hostname=$(flag hostname-override) endpoint=$(flag container-runtime-endpoint) unread=
  configuration=$(configuration 2>/dev/null) || unread=yes
  [ -z "$endpoint" ] || return 0
  endpoint=$(printf '%s\\n' "$configuration" | tr '{,}' '\\n\\n\\n' |
    sed -n 's/^ *"\\{0,1\\}containerRuntimeEndpoint"\\{0,1\\} *: *//p' | tr -d "\\"', " | tail -n 1)
  origin='kubelet config file'
}
embedded() { # the command line of a kubelet that is part of another process, from the settings of its distribution
  while IFS='|' read -r row_name row_runtime row_socket row_client row_crictl row_root row_kubelet; do
    { [ -n "$row_kubelet" ] && as_root test -S "$row_socket" && as_root test -f "$row_kubelet"; } </dev/null || continue
    case $row_kubelet in
    *.yaml) # of k3s (docs.k3s.io: kubelet-arg, node-name)
      bounded "$row_kubelet" | tr -d "[]\\"'" | sed -n -e 's/^node-name: */--hostname-override=/p' \
        -e '/^kubelet-arg *:/,/^[^ #-]/{s/^kubelet-arg *: *//;s/^ *- *//;s/, */\\n--/g;s/^-*\\([a-z][a-z-]*=\\)/--\\1/p;}' ;;
    *) # of MicroK8s: a flag a line, with variables of the snap
      bounded "$row_kubelet" | sed -e 's|\${SNAP_COMMON}|/var/snap/microk8s/common|g' \
        -e 's|\${SNAP_DATA}|/var/snap/microk8s/current|g' -e 's|\${SNAP}|/snap/microk8s/current|g' ;;
    esac
    break
  done <<END
$DISTRIBUTIONS
END
}
is_asked() { [ -n "$CRI_SOCKET" ] && [ "\${1#/var}" = "\${CRI_SOCKET#/var}" ]; }
endpoint= hostname= arguments= chosen= differ= others=0 kubelets=
for pid in $(look kubelet); do
  [ "$pid" != - ] || { others=$((others + 1)); continue; }
  arguments=$(command_line "$pid") origin='kubelet command line'
  [ -n "$arguments" ] || continue
  settings
  seen=$pid
  kubelet="\${endpoint#unix://} $hostname"
  [ -z "$chosen" ] || [ "$kubelet" = "$first" ] || differ=yes
  if [ -z "$chosen" ] || is_asked "\${endpoint#unix://}"; then chosen=$pid first=$kubelet; fi
  kubelets="$kubelets$kubelet
"
done
section kubelets-ignored; echo $others
if [ -n "$differ" ] && ! is_asked "\${first%% *}"; then
  [ -n "$CRI_SOCKET" ] || { section candidates; printf '%s' "$kubelets"; section end; exit 0; }
  arguments= endpoint= hostname=
elif [ -n "$chosen" ]; then
  [ "$seen" = "$chosen" ] || { arguments=$(command_line "$chosen") origin='kubelet command line'; settings; }
else
  arguments=$(embedded) origin='kubelet settings of the distribution'
  [ -z "$arguments" ] || settings
fi
if [ -n "$arguments" ]; then
  [ -z "$unread" ] || { section kubelet-unread; flag config; flag config-dir; }
  section kubelet-configuration; printf '%s' "$configuration"
  section kubelet-gc-threshold; flag image-gc-high-threshold
fi
if [ -n "$CRI_SOCKET" ]; then endpoint=$CRI_SOCKET origin=input; fi
hidden=
hidden_on() { # hidden_on PATH: the first directory on its way that the user may not look into
  [ -z "$AS_ROOT" ] && [ -z "$hidden" ] || return 0
  way= rest=\${1#/}
  while [ "$rest" != "\${rest#*/}" ]; do
    way=$way/\${rest%%/*} rest=\${rest#*/}
    [ -x "$way" ] || { [ ! -d "$way" ] || hidden=$way; return 0; }
  done
}
if [ -z "$endpoint" ]; then
  sockets= origin='well-known socket'
  while IFS='|' read -r row_name row_runtime row_socket row_client row_crictl row_root row_kubelet; do
    case "
$sockets" in *"
$row_socket
"*) continue ;; esac
    ! as_root test -S "$row_socket" </dev/null || sockets="$sockets$row_socket
" endpoint=$row_socket
    hidden_on "$row_socket"
  done <<END
$DISTRIBUTIONS
END
  case $sockets in *"
"?*) section candidates; printf '%s' "$sockets"; section end; exit 0 ;; esac
fi
socket=\${endpoint#unix://}
[ -n "$hostname" ] || hostname=$(uname -n | tr '[:upper:]' '[:lower:]')
section kubernetes-name; printf '%s' "$hostname"
section socket; printf '%s' "$socket"
section socket-origin; printf '%s' "$origin"
if [ -z "$socket" ] || ! as_root test -S "$socket"; then
  section socket-refused; [ -z "$narrow" ] || [ -z "$socket" ] || may test -S "$socket" || printf yes
  if [ -n "$socket" ]; then hidden=; hidden_on "$socket"; fi
  section hidden; printf '%s' "$hidden"
  section end; exit 0
fi
section socket-state; printf present
section sockets; ls -ld "$socket" /var/run/docker.sock 2>/dev/null

command_of() { # the command with its program as an absolute path; nothing when the program is not there
  set -- $1
  program=$(command -v "$1") || return 0
  shift
  printf '%s' "$program\${*:+ $*}"
}
runtime= client= crictl= ctr= usual_root=
while IFS='|' read -r row_name row_runtime row_socket row_client row_crictl row_root row_kubelet; do
  [ "$row_socket" = "\${socket#/var}" ] || [ "$row_socket" = "$socket" ] || continue
  client=$(command_of "$row_client")
  [ -n "$client" ] || continue
  runtime=$row_runtime crictl=$(command_of "$row_crictl") usual_root=$row_root
  section distribution; printf '%s' "$row_name"
  break
done <<END
$DISTRIBUTIONS
END
crictl=\${crictl:-$(command_of crictl)}
[ -z "$limited" ] || may $crictl version || crictl=

dump_of() { # as the user where that is enough
  command -v containerd >/dev/null && { containerd --config "$1" config dump || as_root containerd --config "$1" config dump; } </dev/null
}
sandbox_of_containerd() { # of version 2, whose CRI does not tell: from the configuration of the one behind the socket, merged, else as it is written
  for pid in $(look containerd); do
    [ "$pid" != - ] || continue
    arguments=$(command_line "$pid")
    config=$(flag config)
    [ -n "$config" ] || config=$(printf '%s\\n' "$arguments" | sed -n '/^-c$/{n;p;}')
    config=\${config:-/etc/containerd/config.toml}
    # What is no file containerd would wait for, or read to an end that it has not.
    [ -f "$config" ] || [ ! -e "$config" ] || continue
    text=$({ dump_of "$config" || bounded "$config"; } 2>/dev/null | head -c 1048576)
    address=$(flag address)
    [ -n "$address" ] || address=$(printf '%s\\n' "$arguments" | sed -n '/^-a$/{n;p;}')
    [ -n "$address" ] || address=$(printf '%s\\n' "$text" | sed -n "/^ *\\[grpc\\]/,/^ *\\[/s/^ *address *= *['\\"]\\([^'\\"]*\\)['\\"].*/\\1/p")
    [ "\${address:-/run/containerd/containerd.sock}" = "\${socket#/var}" ] || [ "$address" = "$socket" ] || continue
    printf '%s\\n' "$text" | sed -n "s/^ *sandbox\\(_image\\)\\{0,1\\} *= *['\\"]\\([^'\\"]*\\)['\\"].*/\\2/p" | head -n 1
  done | sort -u
}

${INSTANCE}
root= answers=
if [ -n "$crictl" ]; then
  section crictl; printf '%s' "$crictl"
  cri() { as_root $crictl --timeout 5s --runtime-endpoint "unix://$socket" --image-endpoint "unix://$socket" "$@"; }
  version=$(cri version 2>&1) && {
    root=$(cri imagefsinfo 2>/dev/null | sed -n 's/.*"mountpoint": *"\\([^"]*\\)".*/\\1/p' | head -n 1)
    found=$(printf '%s\\n' "$version" | sed -n 's/^RuntimeName: *//p')
    runtime=\${found:-$runtime} answers=yes
  }
  section cri-version; printf '%s' "$version"
fi
[ -n "$runtime" ] || runtime=containerd
section runtime; printf '%s' "$runtime"

case $runtime in
containerd)
  case $client in *ctr) ctr=$client ;; *) ctr=$(command_of ctr) ;; esac
  snapshotter=$(printf '%s' "$root" | sed -n 's/.*io\\.containerd\\.snapshotter\\.v1\\.//p')
  if [ -n "$ctr" ]; then
    section ctr; printf '%s' "$ctr"
    section instance; instance_of containerd "$socket"
    section client-version; as_root $ctr --connect-timeout 5s --timeout 5s --address "$socket" version 2>&1
    section import-help; $ctr images import --help 2>&1
    names=$(as_root $ctr --address "$socket" --namespace k8s.io images ls -q 2>/dev/null)
    section staged; printf '%s\\n' "$names" | grep "^$STAGE_PREFIX"
    section image-ids; printf '%s\\n' "$names" | grep -x 'sha256:[0-9a-f]\\{64\\}'
  fi
  section snapshotter; printf '%s' "$snapshotter"
  root=\${root:-\${usual_root:-/var/lib/containerd}}
  ;;
cri-o)
  section podman; command_of podman
  section instance; instance_of cri-o "$socket"
  [ -n "$limited" ] || { section skopeo; command_of skopeo; }
  section staged; cri images -o json 2>/dev/null | tr -d '", ' | grep "^$STAGE_PREFIX"
  root=\${root:-/var/lib/containers}
  section work-disk; df -Pk "\${UNPACKED%/*}" | sed -n 2p
  ;;
docker)
  section docker; command_of docker
  section instance; instance_of docker "$socket"
  section client-version; as_root docker version 2>&1
  section staged; as_root docker image ls --format '{{.Repository}}:{{.Tag}}' 2>/dev/null | grep "^$STAGE_PREFIX"
  root=$(as_root docker info --format '{{.DockerRootDir}}' 2>/dev/null)
  root=\${root:-/var/lib/docker}
  ;;
esac
section leases; ls "$LEASES" 2>/dev/null | grep '^lease-'
section staged-imports
ls -d "$UNPACKED"* 2>/dev/null | sed -n "s|^$UNPACKED\\([0-9a-z]*\\)\\..*|$STAGE_PREFIX\\1:0|p"
for process in $(ours "$STAGE_PREFIX"); do
  { tr '\\0' '\\n' <"/proc/$process/cmdline"; } 2>/dev/null | sed -n "s|.*\\($STAGE_PREFIX[0-9a-z]*\\).*|\\1:0|p"
done
sandbox=
if [ -n "$answers" ]; then
  sandbox=$(cri info 2>/dev/null | sed -n 's/.*"sandboxImage": *"\\([^"]*\\)".*/\\1/p' | head -n 1)
fi
[ -n "$sandbox" ] || [ "$runtime" != containerd ] || sandbox=$(sandbox_of_containerd)
[ "$(printf '%s\\n' "$sandbox" | wc -l)" -le 1 ] || sandbox= # of several none is guessed
if [ -n "$sandbox" ]; then
  section sandbox-image; printf '%s' "$sandbox"
  section sandbox-state
  if [ -n "$answers" ]; then
    said=$(cri inspecti -q "$sandbox" 2>&1 >/dev/null) && said=held
    printf '%s' "$said"
  elif [ -n "$ctr" ]; then
    # Without crictl: the CRI of containerd keeps its images here, under full names.
    case $sandbox in *.*/*)
      if held=$(as_root $ctr --address "$socket" --namespace k8s.io images ls "name==$sandbox" 2>/dev/null); then
        if [ -n "$(printf '%s\\n' "$held" | sed -n 2p)" ]; then printf held; else printf 'not found'; fi
      fi ;;
    esac
  fi
fi
section politeness
! command -v nice >/dev/null || printf '%s' 'nice -n 10 '
! command -v ionice >/dev/null || printf '%s' 'ionice -c 2 -n 7'
section image-root; printf '%s' "$root"
room_at() { as_root df -Pk "$1" || df -Pk "$1"; }
while ! room=$(room_at "$root" 2>/dev/null) && [ "$root" != / ]; do root=\${root%/*}; root=\${root:-/}; done
section disk; printf '%s\\n' "$room" | sed -n 2p
`;

/**
 * Asks a node everything that later steps need, in one round trip.
 * @param criSocket absolute path that overrides what the kubelet says
 * @returns sections, for `parseMachine` and `parseFacts`
 * @throws SideloadError REMOTE_COMMAND_FAILED when the node has no working `sh`
 */
export async function probe(
  connection: SshConnection,
  criSocket: string | undefined,
  signal: AbortSignal,
): Promise<Sections> {
  return await runScript(
    connection,
    {
      body: PROBE,
      variables: {
        CRI_SOCKET: criSocket ?? '',
        DISTRIBUTIONS: distributionRows(),
        PODMAN_FORMAT,
        ROOTS,
        STAGE_PREFIX,
        UNPACKED,
        LEASES,
      },
    },
    signal,
    'reading what it is',
  );
}

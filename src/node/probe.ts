import { STAGE_PREFIX } from '../runtime/staging.ts';
import type { SshConnection } from '../ssh/connect.ts';
import { type NodeFacts, parseFacts } from './facts.ts';
import { runScript } from './script.ts';

/** Where CRI sockets lie when no kubelet says otherwise, most common first. */
const WELL_KNOWN_SOCKETS = [
  '/run/containerd/containerd.sock',
  '/run/k3s/containerd/containerd.sock',
  '/run/k0s/containerd.sock',
  '/var/snap/microk8s/common/run/containerd.sock',
  '/var/run/crio/crio.sock',
  '/var/run/cri-dockerd.sock',
];

/**
 * The kubelet is found by its process name, its endpoint in its command line, else in the file behind `--config`
 * (kubelet.config.k8s.io/v1beta1: `containerRuntimeEndpoint`), as a person would look it up. The free space is that of
 * the nearest directory above the runtime's root that exists.
 */
const PROBE = `
section uid; id -u
if ! refusal=$(as_root true 2>&1); then section sudo-refused; printf '%s' "$refusal"; section end; exit 0; fi
section machine; uname -m

kubelet=
for process in /proc/[0-9]*; do
  { read -r name <"$process/comm"; } 2>/dev/null || continue
  if [ "$name" = kubelet ]; then kubelet=$process; break; fi
done
flag() { # flag NAME: its value on the kubelet's command line, as --name=value or --name value
  printf '%s\\n' "$arguments" | sed -n -e "s/^--$1=//p" -e "/^--$1\\$/{n;p;}" | tail -n 1
}
arguments= endpoint= origin= hostname=
if [ -n "$kubelet" ]; then
  arguments=$(as_root cat "$kubelet/cmdline" | tr '\\0' '\\n')
  hostname=$(flag hostname-override)
  endpoint=$(flag container-runtime-endpoint) origin='kubelet command line'
  config=$(flag config)
  if [ -z "$endpoint" ] && [ -n "$config" ]; then
    endpoint=$(as_root cat "$config" | sed -n 's/^ *"\\{0,1\\}containerRuntimeEndpoint"\\{0,1\\} *: *//p' | tr -d "\\"', " | tail -n 1)
    origin='kubelet config file'
  fi
fi
if [ -n "$CRI_SOCKET" ]; then endpoint=$CRI_SOCKET origin=input; fi
if [ -z "$endpoint" ]; then
  for candidate in $WELL_KNOWN_SOCKETS; do
    if as_root test -S "$candidate"; then endpoint=$candidate origin='well-known socket'; break; fi
  done
fi
socket=\${endpoint#unix://}
[ -n "$hostname" ] || hostname=$(uname -n | tr '[:upper:]' '[:lower:]')
section kubernetes-name; printf '%s' "$hostname"
section socket; printf '%s' "$socket"
section socket-origin; printf '%s' "$origin"
section socket-state; if [ -n "$socket" ] && as_root test -S "$socket"; then printf present; fi

root=/var/lib/containerd info=
crictl=$(command -v crictl) && {
  section crictl; printf '%s' "$crictl"
  cri() { as_root "$crictl" --timeout 5s --runtime-endpoint "unix://$socket" --image-endpoint "unix://$socket" "$@"; }
  section cri-version; cri version 2>&1 && info=$(cri info 2>/dev/null)
  value() { printf '%s\\n' "$info" | sed -n "s/.*\\"$1\\": *\\"\\([^\\"]*\\)\\".*/\\1/p" | head -n 1; }
  section snapshotter; value snapshotter
  found=$(value containerdRootDir)
  root=\${found:-$root}
}
ctr=$(command -v ctr) && {
  section ctr; printf '%s' "$ctr"
  section ctr-version; as_root "$ctr" --connect-timeout 5s --timeout 5s --address "$socket" version 2>&1
  section import-help; "$ctr" images import --help 2>&1
  section staged; as_root "$ctr" --address "$socket" --namespace k8s.io images ls -q 2>/dev/null | grep "^$STAGE_PREFIX"
  for process in $(grep -lsaF "$STAGE_PREFIX" /proc/[0-9]*/cmdline); do
    { tr '\\0' '\\n' <"$process"; } 2>/dev/null | sed -n "s|^$STAGE_PREFIX[0-9a-z]*$|&:0|p"
  done
}
while ! as_root test -d "$root"; do root=\${root%/*}; [ -n "$root" ] || root=/; done
section disk; as_root df -Pk "$root" | sed -n 2p
`;

/**
 * Asks a node everything that later steps need, in one round trip.
 * @param criSocket absolute path that overrides what the kubelet says
 * @throws SideloadError see {@link parseFacts}; REMOTE_COMMAND_FAILED when the node has no working `sh`
 */
export async function probe(
  connection: SshConnection,
  criSocket: string | undefined,
  signal: AbortSignal,
): Promise<NodeFacts> {
  const sections = await runScript(
    connection,
    {
      body: PROBE,
      variables: { CRI_SOCKET: criSocket ?? '', WELL_KNOWN_SOCKETS: WELL_KNOWN_SOCKETS.join(' '), STAGE_PREFIX },
    },
    signal,
  );
  return parseFacts(sections, connection.target.label);
}

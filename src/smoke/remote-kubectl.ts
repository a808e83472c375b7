import { PassThrough } from 'node:stream';
import { SideloadError, toSideloadError } from '../errors.ts';
import { checked, type Grammar } from '../node/grammar.ts';
import { runScript } from '../node/script.ts';
import type { SshConnection } from '../ssh/connect.ts';
import type { KubectlProgram } from './program.ts';

/** Where a distribution keeps the administrator's kubeconfig on a control-plane node, and the program that goes with it. */
interface ControlPlane {
  readonly name: string;
  readonly kubeconfig: string;
  readonly program: string;
}

/** Every distribution is a row; the first whose kubeconfig is there counts. Other programs than its own do as well. */
const CONTROL_PLANES: readonly ControlPlane[] = [
  { name: 'k3s', kubeconfig: '/etc/rancher/k3s/k3s.yaml', program: 'k3s kubectl' },
  { name: 'RKE2', kubeconfig: '/etc/rancher/rke2/rke2.yaml', program: '/var/lib/rancher/rke2/bin/kubectl' },
  { name: 'k0s', kubeconfig: '/var/lib/k0s/pki/admin.conf', program: 'k0s kubectl' },
  {
    name: 'MicroK8s',
    kubeconfig: '/var/snap/microk8s/current/credentials/client.config',
    program: 'microk8s kubectl',
  },
  {
    name: 'OpenShift',
    kubeconfig: '/etc/kubernetes/static-pod-resources/kube-apiserver-certs/secrets/node-kubeconfigs/lb-ext.kubeconfig',
    program: 'oc',
  },
  {
    name: 'OpenShift',
    kubeconfig:
      '/etc/kubernetes/static-pod-resources/kube-apiserver-certs/secrets/node-kubeconfigs/localhost.kubeconfig',
    program: 'oc',
  },
  { name: 'MicroShift', kubeconfig: '/var/lib/microshift/resources/kubeadmin/kubeconfig', program: 'oc' },
  { name: 'kubeadm', kubeconfig: '/etc/kubernetes/admin.conf', program: 'kubectl' },
];

/** Programs that do when a distribution's own is missing. */
const PROGRAMS = ['kubectl', 'oc', 'k3s kubectl', 'k0s kubectl', 'microk8s kubectl'];

const FIND = `
section as-root; printf '%s' "$AS_ROOT"
if ! refusal=$(as_root true 2>&1); then section sudo-refused; printf '%s' "$refusal"; section end; exit 0; fi
program_of() { # the first of the lines on standard input that is there, its program as an absolute path
  while read -r candidate; do
    set -- $candidate
    [ $# -gt 0 ] && path=$(command -v "$1") || continue
    shift
    printf '%s' "$path\${*:+ $*}"
    return
  done
}
name= kubeconfig=$KUBECONFIG_GIVEN preferred=
if [ -z "$kubeconfig" ]; then
  while IFS='|' read -r row_name row_kubeconfig row_program; do
    if as_root test -s "$row_kubeconfig"; then
      name=$row_name kubeconfig=$row_kubeconfig preferred=$row_program
      break
    fi
  done <<END
$ROWS
END
elif ! as_root test -s "$kubeconfig"; then
  kubeconfig=
fi
section name; printf '%s' "$name"
section kubeconfig; printf '%s' "$kubeconfig"
section program
program_of <<END
$preferred
$PROGRAMS
END
`;

/**
 * Runs a program for as long as standard input is open, and ends it with it: sshd delivers no signals to what it has started
 * for root. Without that a watch would outlive its connection.
 */
const WHILE_OPEN =
  'exec 3<&0; "$@" </dev/null 3<&- & child=$!; { cat <&3; kill "$child"; } >/dev/null 2>&1 & guard=$!; exec 3<&-; ' +
  'wait "$child"; code=$?; kill "$guard" 2>/dev/null; exit "$code"';

/** A list of thousands of nodes is some tens of megabytes. */
const MAX_OUTPUT_BYTES = 256 * 1024 * 1024;

/**
 * The program of a control-plane node, as its administrator.
 * @param open connects to the node; called again when the connection has been lost
 * @param kubeconfig absolute path on the node; `undefined` for the administrator's, wherever the distribution has it
 * @throws SideloadError KUBECTL_NOT_FOUND, KUBECONFIG_INVALID, PROBE_FAILED, SUDO_REFUSED, and those of `open`
 */
export async function remoteKubectl(
  open: () => Promise<SshConnection>,
  kubeconfig: string | undefined,
  signal: AbortSignal,
): Promise<KubectlProgram> {
  let connection: Promise<SshConnection> | undefined = open();
  const { target } = await connection;
  const command = await connection
    .then(opened => find(opened, kubeconfig, signal))
    .catch(async thrown => {
      await (await connection)?.close();
      throw toSideloadError(thrown, target.label);
    });

  /** What goes wrong on the way is trouble with reaching the cluster, and tried again by whoever can wait. */
  async function over<T>(act: (connection: SshConnection) => Promise<T>): Promise<T> {
    connection ??= open();
    const used = connection;
    try {
      return await act(await used);
    } catch (thrown) {
      const { code, message } = toSideloadError(thrown);
      if (code !== 'SSH_LOST' && code !== 'SSH_UNREACHABLE') {
        throw thrown;
      }
      if (connection === used) {
        connection = undefined;
      }
      throw new SideloadError('CLUSTER_UNREACHABLE', `${target.label}: ${message}`, { cause: thrown });
    }
  }

  return {
    run: (args, input, signal) =>
      over(one =>
        one.run([...command.asRoot, ...command.argv, ...args], {
          stdin: input,
          maxOutputBytes: MAX_OUTPUT_BYTES,
          signal,
        }),
      ),
    stream: (args, onLine, watchSignal) =>
      over(one => {
        const lines = splitLines(onLine);
        return one.run([...command.asRoot, 'sh', '-c', WHILE_OPEN, 'sh', ...command.argv, ...args], {
          stdin: new PassThrough(),
          onStdout: lines,
          signal: watchSignal,
        });
      }),
    close: async () => {
      const last = connection;
      connection = undefined;
      await (await last?.catch(() => undefined))?.close();
    },
  };
}

async function find(
  connection: SshConnection,
  kubeconfig: string | undefined,
  signal: AbortSignal,
): Promise<{ readonly asRoot: readonly string[]; readonly argv: readonly string[] }> {
  const rows = CONTROL_PLANES.map(({ name, kubeconfig: file, program }) => `${name}|${file}|${program}`).join('\n');
  const variables = { KUBECONFIG_GIVEN: kubeconfig ?? '', ROWS: rows, PROGRAMS: PROGRAMS.join('\n') };
  const sections = await runScript(connection, { body: FIND, variables }, signal, 'looking for kubectl');
  const refused = sections.get('sudo-refused');
  if (refused !== undefined) {
    const words = sections.get('as-root');
    throw new SideloadError('SUDO_REFUSED', `\`${words}\` refused: ${refused || 'without a word'}`);
  }
  const check = (grammar: Grammar, text: string, what: string) => checked(grammar, text, what, connection.target.label);
  const file = sections.get('kubeconfig') ?? '';
  if (file === '') {
    const looked = kubeconfig ?? `one at ${CONTROL_PLANES.map(row => row.kubeconfig).join(', ')}`;
    throw new SideloadError('KUBECONFIG_INVALID', `${connection.target.label} has no kubeconfig: ${looked}`, {
      hint: 'Name a control-plane node in `kubectl`, or the path of a kubeconfig there in `kubeconfig`.',
    });
  }
  const program = sections.get('program') ?? '';
  if (program === '') {
    throw new SideloadError('KUBECTL_NOT_FOUND', `${connection.target.label} has none of ${PROGRAMS.join(', ')}`);
  }
  // What the script itself has become root by: sudo, doas, or nothing.
  const by = /^(sudo|doas) (-n)$/.exec(sections.get('as-root') ?? '');
  return {
    asRoot: by === null ? [] : by.slice(1),
    argv: [
      ...program.split(' ').map(word => check('word', word, 'the kubectl of the node')),
      `--kubeconfig=${kubeconfig ?? check('path', file, 'the kubeconfig of the node')}`,
    ],
  };
}

/** Cuts what comes in pieces into lines; a line that is not complete is never given. */
function splitLines(onLine: (line: string) => void): (chunk: Buffer) => void {
  const decoder = new TextDecoder();
  let rest = '';
  return chunk => {
    const lines = (rest + decoder.decode(chunk, { stream: true })).split('\n');
    rest = lines.pop() ?? '';
    for (const line of lines) {
      onLine(line);
    }
  };
}

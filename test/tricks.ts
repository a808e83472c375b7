/** What a user tries who may run some commands by sudo, and wants another one: a table that grows. */
import { LAYOUTS, type Layout, rightsFor, sudoersCommand } from '../scripts/privileges.ts';
import type { NodeFacts } from '../src/node/facts.ts';
import { askedRights, PODMAN_LOAD } from '../src/privileges.ts';
import { PODMAN_FORMAT } from '../src/runtime/podman-load.ts';
import { UNPACKED } from '../src/runtime/staging.ts';

/** A file of `docs/privileges`: what it allows, as it is written there, and commands that a run makes use of. */
export interface Allowance {
  readonly name: string;
  readonly rules: readonly string[];
  readonly commands: readonly string[];
}

export const ALLOWANCES: readonly Allowance[] = [
  ...LAYOUTS.map(layout => ({
    name: layout.name,
    rules: rightsFor(layout).flatMap(right => right.commands.map(command => sudoersCommand(command, layout))),
    commands: askedRights(factsOf(layout), { keep: true, pin: true }).map(({ command }) => command),
  })),
  {
    name: 'podman-load',
    rules: PODMAN_LOAD.map(command =>
      sudoersCommand(command, LAYOUTS.find(({ clients }) => clients === 'podman') ?? never('podman')),
    ),
    commands: [
      `podman load --quiet --input ${UNPACKED}t4y1q2abcdef.0-Xy12Za/oci`,
      `podman load --quiet --input ${UNPACKED}t4y1q2abcdef.0-Xy12Za/named.tar`,
      `podman image inspect --format ${PODMAN_FORMAT} docker.io/library/app:1`,
    ],
  },
];

function never(what: string): never {
  throw new Error(`no ${what}`);
}

/** What a node of a layout says of itself. */
export function factsOf({ distribution, clients }: Layout): NodeFacts {
  const words = (text: string) => {
    const [program = '', ...rest] = text.split(' ');
    const directory = program === 'microk8s' ? '/snap/bin' : '/usr/local/bin';
    return [program.startsWith('/') ? program : `${directory}/${program}`, ...rest];
  };
  const { runtime, client, crictl, socket, root } = distribution;
  return {
    runtime: { name: runtime, version: '1' },
    tools: {
      crictl: words(crictl),
      ...(runtime === 'containerd' && { ctr: words(client) }),
      ...(runtime === 'docker' && { docker: words(client) }),
      ...(clients?.includes('skopeo') && { skopeo: ['/usr/bin/skopeo'] }),
      ...(clients?.includes('podman') && { podman: ['/usr/bin/podman'] }),
    },
    criSocket: socket,
    imageRoot: {
      containerd: `${root}/io.containerd.snapshotter.v1.overlayfs`,
      'cri-o': `${root}/storage/overlay-images`,
      docker: root,
    }[runtime],
    platform: { os: 'linux', architecture: 'arm64' },
    importFlags: new Set(['--local']),
  } as Partial<NodeFacts> as NodeFacts;
}

/** Behind a command that is allowed; none of it is part of any that is. */
const APPENDED = [
  ' --root /elsewhere --storage-driver vfs',
  ' --cpu-profile /etc/victim',
  ' --config /tmp/mine',
  ' --conf=/tmp/mine',
  ' --runtime /tmp/mine',
  ' --hooks-dir=/tmp/mine',
  ' --log-level debug',
  ' -- /etc/shadow',
  ' /etc/shadow',
  '/../../../etc/shadow',
  '\t--root=/elsewhere',
  '\n--root=/elsewhere',
  '*',
  ';id',
  '$(id)',
  '\\',
];

/** Between the program and its arguments. */
const INSERTED = ['--root /elsewhere', '--config=/tmp/mine', '--cgroup-manager=cgroupfs', '-c id', '-', '*'];

/** In place of an argument, one after the other. */
const EXCHANGED = ['*', '../../etc/shadow', '/etc/shadow', '--root=/elsewhere', '', 'a b'];

/** Everything that is tried in place of a command: each of it is refused. */
export function tricksOn(command: string): readonly string[] {
  const [program = '', ...args] = command.split(' ');
  const words = [program, ...args];
  return [
    ...APPENDED.map(text => `${command}${text}`),
    ...INSERTED.map(text => [program, text, ...args].join(' ')),
    ...EXCHANGED.flatMap(text => args.map((_, at) => words.with(at + 1, text).join(' '))),
    // Another program under the same name, and the same with its path made longer.
    `/tmp/${program.replace(/^.*\//, '')} ${args.join(' ')}`.trim(),
    `${program.startsWith('/') ? program : `/usr/bin/${program}`}/../sh ${args.join(' ')}`.trim(),
  ].filter(trick => trick !== command);
}

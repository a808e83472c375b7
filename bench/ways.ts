/** The ways to bring an image from the runner to nodes. */
import { execFileSync } from 'node:child_process';
import { copyFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { type Lab, type LabNode, sshCommand } from '../test/lab/index.ts';
import { archiveOf, type BenchImage, loadIntoPodman } from './images.ts';
import type { Command } from './measure.ts';
import { REGISTRY_PORT } from './registry.ts';

export const CLI = join(resolve(import.meta.dirname, '..'), 'dist', 'cli', 'index.js');

/** What a way is to do. */
export interface Task {
  readonly lab: Lab;
  readonly image: BenchImage;
  readonly nodes: readonly LabNode[];
  /** Where archives are kept that are not part of the work. */
  readonly workspace: string;
  /** The port of this machine that a tunnel may use. */
  readonly port: number;
}

interface Way {
  readonly title: string;
  /** Whether it is our own program: its memory, disk and bytes are judged. */
  readonly isOurs?: boolean;
  /** Why it can't be measured here, if so. */
  readonly unavailable?: () => string | undefined;
  /** Makes ready what the way starts from and does not count. */
  readonly prepare?: (task: Task) => void;
  readonly command: (task: Task) => Command;
}

export const ways = {
  recipe: {
    title: 'recipe: docker save, copy, ctr images import',
    command: task => shell(`docker save -o ${SAVED} ${task.image.name}`, ...copyAndImport(task), `rm ${SAVED}`),
  },
  'recipe-archive': {
    title: 'recipe from a ready archive: copy, ctr images import',
    prepare: ({ lab, image, workspace }) => archiveOf(lab, image, workspace),
    command: task => shell(...copyAndImport(task, archiveOf(task.lab, task.image, task.workspace))),
  },
  'recipe-podman': {
    title: 'recipe: podman save, copy, ctr images import',
    prepare: ({ lab, image, workspace }) => loadIntoPodman(lab, image, workspace),
    command: task => shell(`podman save -q -o ${SAVED} ${task.image.reference}`, ...copyAndImport(task), `rm ${SAVED}`),
  },
  pipe: {
    title: 'docker save | ssh | ctr images import',
    command: task => shell(...onEach(task, ssh => `docker save ${task.image.name} | ${ssh} '${IMPORT} -'`)),
  },
  'pipe-zstd': {
    title: 'docker save | zstd -1 | ssh | zstd -d | ctr images import',
    command: task =>
      shell(...onEach(task, ssh => `docker save ${task.image.name} | zstd -q -1 | ${ssh} 'zstd -q -dc | ${IMPORT} -'`)),
  },
  registry: {
    title: 'registry on the node: tunnel, docker push, ctr images pull',
    command: task => shell(...throughRegistry(task)),
  },
  floor: {
    title: "zstd archive on the node's own disk: ctr images import --local",
    prepare: ({ nodes, workspace }) => {
      for (const node of nodes) {
        copyFileSync(floorArchive(workspace), join(node.root, FLOOR_ARCHIVE));
      }
    },
    command: task => shell(...onEach(task, ssh => `${ssh} '${FASTEST_IMPORT} ${FLOOR_ARCHIVE}'`)),
  },
  ours: { title: 'kube-sideload from docker', isOurs: true, command: task => ours(task, ['--source=docker']) },
  'ours-asking': {
    title: 'kube-sideload from docker, whose files it cannot read',
    isOurs: true,
    command: task => asking(ours(task, ['--source=docker'])),
  },
  'ours-podman': {
    title: 'kube-sideload from podman',
    isOurs: true,
    prepare: ({ lab, image, workspace }) => loadIntoPodman(lab, image, workspace),
    command: task => ours(task, ['--source=podman']),
  },
  'ours-podman-asking': {
    title: 'kube-sideload from podman, whose files it cannot read',
    isOurs: true,
    prepare: ({ lab, image, workspace }) => loadIntoPodman(lab, image, workspace),
    command: task => asking(ours(task, ['--source=podman'])),
  },
  'ours-archive': {
    title: 'kube-sideload from a ready archive',
    isOurs: true,
    prepare: ({ lab, image, workspace }) => archiveOf(lab, image, workspace),
    command: task => ours(task, [`--archive=${archiveOf(task.lab, task.image, task.workspace)}`]),
  },
  'ours-openssh': {
    title: 'kube-sideload by the OpenSSH client from docker, whose files it cannot read',
    isOurs: true,
    unavailable: () => (hasFlag('--ssh-transport') ? undefined : 'not in this version'),
    // The runner has no such client.
    command: task => asking(ours(task, ['--source=docker', '--ssh-transport=openssh'])),
  },
} as const satisfies Readonly<Record<string, Way>>;

export type WayName = keyof typeof ways;

export function wayOf(name: WayName): Way {
  return ways[name];
}

const IMPORT = 'ctr -n k8s.io images import >/dev/null';
/** As a push imports: nothing that is measured here takes an archive in sooner. */
const FASTEST_IMPORT = 'ctr -n k8s.io images import --local >/dev/null';
const SAVED = '"$TMPDIR/image.tar"';
const FLOOR_ARCHIVE = '/var/tmp/floor.oci.tar';

/** Where the archive lies that the floor is measured with. */
function floorArchive(workspace: string): string {
  return join(workspace, 'floor.oci.tar');
}

/**
 * Makes that archive out of what our own push brings to a node: the very same blobs. The image stays there.
 */
export function makeFloorArchive(task: Task): void {
  const [node] = task.nodes;
  if (node === undefined) {
    throw new Error('the floor needs a node');
  }
  const { program, args } = ours(task, ['--source=docker']);
  execFileSync(program, args, {
    stdio: 'ignore',
    env: { ...process.env, PATH: `${task.lab.bin}:${process.env.PATH}` },
  });
  const exported = `${sshTo(task.lab, node)} 'ctr -n k8s.io images export --platform linux/amd64 - ${task.image.reference}'`;
  execFileSync('sh', ['-ec', `${exported} >${floorArchive(task.workspace)}`], {
    stdio: ['ignore', 'ignore', 'inherit'],
  });
}

/** By root in the runner, where docker's and podman's files are. */
function ours({ lab, image, nodes }: Task, inputs: readonly string[]): Command {
  const reach = [
    `--nodes=${nodes.map(node => node.address).join(',')}`,
    `--ssh-private-key-file=${lab.privateKeyFile}`,
    `--ssh-known-hosts-file=${lab.knownHostsFile}`,
  ];
  return {
    program: join(lab.bin, 'runner-node'),
    args: [CLI, 'push', '--smoke=none', `--images=${image.name}`, ...reach, ...inputs],
  };
}

/** Outside of the runner: the engines answer, and their files are not there, which comes to the same as being no root. */
function asking({ args }: Command): Command {
  return { program: process.execPath, args };
}

function copyAndImport(task: Task, archive = SAVED): readonly string[] {
  return onEach(
    task,
    ssh => `${ssh} 'cat >/tmp/image.tar' <${archive}; ${ssh} '${IMPORT} /tmp/image.tar; rm /tmp/image.tar'`,
  );
}

/** What `docker pussh` does, on a connection that everything shares. The registry is up already, for its benefit. */
function throughRegistry(task: Task): readonly string[] {
  const { image, port } = task;
  const pushed = `127.0.0.1:${port}/${image.name}`;
  const pulled = `127.0.0.1:${REGISTRY_PORT}/${image.name}`;
  const forward = `-f -N -M -S "$TMPDIR/s" -o ExitOnForwardFailure=yes -L 127.0.0.1:${port}:127.0.0.1:${REGISTRY_PORT}`;
  const pull = [
    `ctr -n k8s.io images pull --plain-http ${pulled} >/dev/null`,
    `ctr -n k8s.io images tag --force ${pulled} ${image.reference} >/dev/null`,
  ];
  return task.nodes.flatMap(node => [
    sshTo(task.lab, node, forward),
    `docker tag ${image.name} ${pushed}`,
    `docker push -q ${pushed}`,
    `${sshTo(task.lab, node, '-S "$TMPDIR/s"')} '${pull.join(' && ')}'`,
    `${sshTo(task.lab, node, '-S "$TMPDIR/s" -O exit')} 2>/dev/null`,
  ]);
}

function onEach({ lab, nodes }: Task, command: (ssh: string) => string): readonly string[] {
  return nodes.map(node => command(sshTo(lab, node)));
}

/** Shell text; options go before the destination. */
function sshTo(lab: Lab, node: LabNode, options = ''): string {
  const argv = sshCommand(lab, node).map(part => `'${part}'`);
  return [...argv.slice(0, -1), options, argv.at(-1)].join(' ');
}

function shell(...commands: readonly string[]): Command {
  return { program: 'bash', args: ['-euo', 'pipefail', '-c', commands.join('\n')] };
}

function hasFlag(flag: string): boolean {
  return execFileSync(process.execPath, [CLI, 'push', '--help'], { encoding: 'utf8' }).includes(`${flag}\n`);
}

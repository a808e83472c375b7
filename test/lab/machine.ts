import { type ChildProcess, spawn } from 'node:child_process';
import { access, mkdir, open, readFile } from 'node:fs/promises';
import { basename, join } from 'node:path';
import type { Readable } from 'node:stream';
import { hierarchies, joinScript, makeCgroup, settle } from './cgroups.ts';
import { type Outcome, run, tail, until } from './command.ts';
import { type LabMachine, labDirectory, type TreeFile, writeTree } from './state.ts';

/** What a machine is made of. */
export interface MachineSpec {
  readonly lab: string;
  readonly name: string;
  /** The lower layer of its root. */
  readonly rootfs: string;
  /** Whether it has a network and a PID namespace of its own. */
  readonly isolated: boolean;
  /** Written over the root filesystem, by absolute path. */
  readonly files: Readonly<Record<string, string | TreeFile>>;
  /** Directories that are on the lab's disk rather than on the overlay. */
  readonly data: readonly string[];
  /** What of the host it sees, by the host's path. */
  readonly binds: readonly Bind[];
}

export interface Bind {
  readonly source: string;
  readonly target: string;
  readonly mode: 'ro' | 'rw';
}

export interface EnterOptions {
  readonly input?: string | Uint8Array | Readable;
  readonly timeoutMs?: number;
  readonly signal?: AbortSignal;
}

/** Settings that a kubelet makes for the whole kernel, and the values that it wants. */
const sysctls = [
  'vm/overcommit_memory 1',
  'vm/panic_on_oom 0',
  'kernel/panic 10',
  'kernel/panic_on_oops 1',
  'kernel/keys/root_maxkeys 1000000',
  'kernel/keys/root_maxbytes 25000000',
];

export const systemPath = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin';

/** Where a machine keeps what is its own. */
export function machineDirectory(lab: string, machine: string): string {
  return join(labDirectory(lab), 'machines', machine);
}

/** Raises a machine, up to its init; services are started afterwards. */
export async function raise(spec: MachineSpec): Promise<LabMachine> {
  const { lab, name } = spec;
  const directory = machineDirectory(lab, name);
  for (const part of ['upper', 'work', 'root', ...spec.data.map(data => join('data', data))])
    await mkdir(join(directory, part), { recursive: true });
  const files = { '/etc/hostname': `${name}\n`, '/etc/resolv.conf': '', ...spec.files };
  for (const [path, file] of Object.entries(files)) {
    const onDisk = spec.data.some(data => path.startsWith(`${data}/`));
    await writeTree(join(directory, onDisk ? 'data' : 'upper'), { [path]: file });
  }
  await makeCgroup(lab, name);
  const binds = [
    ...spec.data.map(data => ({ source: join(directory, 'data', data), target: data, mode: 'rw' })),
    ...spec.binds,
  ];
  const mounted = await hierarchies();
  const log = await open(join(directory, 'init.log'), 'a');
  const namespaces = [
    '--mount',
    '--uts',
    '--ipc',
    '--cgroup',
    ...(spec.isolated ? ['--net', '--pid', '--fork', '--kill-child'] : []),
  ];
  let starter: ChildProcess;
  try {
    starter = spawn(
      '/bin/sh',
      [
        '-c',
        `${await joinScript(lab, name, 'starting')} && exec "$@"`,
        'sh',
        'unshare',
        ...namespaces,
        '/bin/sh',
        join(import.meta.dirname, 'init.sh'),
      ],
      {
        cwd: '/',
        detached: true,
        stdio: ['ignore', log.fd, log.fd],
        env: {
          PATH: systemPath,
          LAB_LOWER: spec.rootfs,
          LAB_DIRECTORY: directory,
          LAB_HOSTNAME: name,
          LAB_CGROUPS:
            mounted[0]?.options === undefined
              ? 'v2'
              : mounted.map(({ mount, options }) => `${basename(mount)} ${options}`).join('\n'),
          LAB_BINDS: binds.map(({ source, target, mode }) => `${source} ${target} ${mode}`).join('\n'),
          LAB_SYSCTLS: spec.isolated ? sysctls.join('\n') : '',
        },
      },
    );
  } finally {
    await log.close();
  }
  starter.unref();
  let ended = false;
  starter.once('error', () => {
    ended = true;
  });
  starter.once('exit', () => {
    ended = true;
  });
  const pid = await until(`machine ${name}`, 20_000, async () => {
    if (ended) return -1;
    const outer = starter.pid;
    const init = spec.isolated
      ? Number((await readFile(`/proc/${outer}/task/${outer}/children`, 'utf8')).trim().split(' ')[0])
      : outer;
    if (!init) return undefined;
    // Its root is the host's until pivot_root.
    await access(`/proc/${init}/root/run/lab/ready`);
    return init;
  }).catch(() => -1);
  if (pid === -1)
    throw new Error(`machine ${name} did not start:\n${tail(await readFile(join(directory, 'init.log'), 'utf8'))}`);
  await settle(lab, name);
  return { lab, name, pid, root: `/proc/${pid}/root` };
}

/** The command line that runs a command in a machine, as root, in its cgroups and all its namespaces. */
export async function entering(machine: LabMachine, argv: readonly string[]): Promise<string[]> {
  const script = `${await joinScript(machine.lab, machine.name, 'running')} && exec nsenter --target ${machine.pid} --all -- "$@"`;
  return ['/bin/sh', '-c', script, 'sh', ...argv];
}

/**
 * Runs a command in a machine as root, not over ssh; any exit code resolves.
 * @throws when it takes longer than `timeoutMs` (60 s by default).
 */
export async function enter(
  machine: LabMachine,
  argv: readonly string[],
  options: EnterOptions = {},
): Promise<Outcome> {
  return run(await entering(machine, argv), {
    ...options,
    env: { PATH: systemPath, HOME: '/root', LC_ALL: 'C.UTF-8' },
  });
}

/** The same for a command that has to succeed; returns its stdout. */
export async function enterMust(
  machine: LabMachine,
  argv: readonly string[],
  options: EnterOptions = {},
): Promise<string> {
  const { code, stdout, stderr } = await enter(machine, argv, options);
  if (code !== 0) throw new Error(`${machine.name}: ${argv.join(' ')}: exit code ${code}\n${tail(stderr || stdout)}`);
  return stdout;
}

import { mkdir, readdir, readFile, rmdir, stat, writeFile } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { until } from './command.ts';

/** A mounted cgroup hierarchy of the host. */
export interface Hierarchy {
  readonly mount: string;
  /** What mounts it again: `memory`, or `cpu,cpuacct`, or `none,name=systemd`; undefined for cgroup v2. */
  readonly options: string | undefined;
}

/**
 * The hierarchies that labs use: all of cgroup v1 where there are any, otherwise the one of v2. The `unified` mount of
 * a hybrid host is left out: it has no controllers, and crun refuses a root that shows both.
 */
export async function hierarchies(): Promise<Hierarchy[]> {
  const mountinfo = await readFile('/proc/self/mountinfo', 'utf8');
  const v1: Hierarchy[] = [];
  let v2: Hierarchy | undefined;
  for (const line of mountinfo.split('\n')) {
    const [left = '', right = ''] = line.split(' - ');
    const [, , , root, mount] = left.split(' ');
    const [type, , superOptions = ''] = right.split(' ');
    if (mount === undefined || root !== '/') continue;
    if (type === 'cgroup') {
      const names = superOptions.split(',').filter(option => option.startsWith('name=') || controllers.has(option));
      const named = names.some(option => option.startsWith('name='));
      v1.push({ mount, options: named ? ['none', ...names].join(',') : names.join(',') });
    } else if (type === 'cgroup2' && mount === '/sys/fs/cgroup') v2 = { mount, options: undefined };
  }
  const found = v1.length > 0 ? v1 : v2 ? [v2] : [];
  if (found.length === 0) throw new Error('no cgroup hierarchy is mounted at /sys/fs/cgroup');
  return found;
}

const controllers = new Set([
  'cpu',
  'cpuacct',
  'cpuset',
  'memory',
  'devices',
  'freezer',
  'blkio',
  'pids',
  'hugetlb',
  'net_cls',
  'net_prio',
  'perf_event',
  'rdma',
  'misc',
]);

function parent(lab: string): string {
  return `kube-sideload-${lab}`;
}

/**
 * Makes a machine's cgroup in every hierarchy. Everything that a lab ever starts is born in there and can't leave (each
 * machine's cgroup namespace ends at its own cgroup): so whatever else is lost, `down` finds a lab's processes by its
 * name alone, and needs neither a process's name nor a number that may have been given to another.
 */
export async function makeCgroup(lab: string, machine: string): Promise<void> {
  for (const { mount, options } of await hierarchies()) {
    let above = mount;
    for (const part of [parent(lab), machine]) {
      const directory = join(above, part);
      await mkdir(directory, { recursive: true });
      if (options === undefined) await enableControllers(above);
      // A new cpuset has neither processors nor memory, and nothing can enter it.
      if (options?.split(',').includes('cpuset'))
        for (const file of ['cpuset.cpus', 'cpuset.mems'])
          await writeFile(join(directory, file), await readFile(join(above, file)));
      above = directory;
    }
    // In v2 a cgroup with controllers for its children has no processes of its own: they go to this leaf.
    if (options === undefined) await mkdir(join(above, 'init'), { recursive: true });
  }
}

/**
 * v2 only: moves a machine's first processes to the leaf, and hands the controllers down to its containers. They had to
 * start one level above: there their cgroup namespace was made. (Written after cgroups(7); not tried on a v2 host yet.)
 */
export async function settle(lab: string, machine: string): Promise<void> {
  for (const { mount, options } of await hierarchies()) {
    if (options !== undefined) continue;
    const directory = join(mount, parent(lab), machine);
    for (const pid of await members(directory)) await writeFile(join(directory, 'init', 'cgroup.procs'), String(pid));
    await enableControllers(directory);
  }
}

async function enableControllers(directory: string): Promise<void> {
  const available = (await readFile(join(directory, 'cgroup.controllers'), 'utf8')).trim();
  if (available)
    await writeFile(
      join(directory, 'cgroup.subtree_control'),
      available
        .split(' ')
        .map(name => `+${name}`)
        .join(' '),
    );
}

/** Shell text by which a process enters a machine's cgroups, before it execs what belongs there. */
export async function joinScript(lab: string, machine: string, when: 'starting' | 'running'): Promise<string> {
  const files = (await hierarchies()).map(({ mount, options }) =>
    join(mount, parent(lab), machine, options === undefined && when === 'running' ? 'init' : '', 'cgroup.procs'),
  );
  return files.map(file => `echo $$ >${file}`).join(' && ');
}

/** The host pids of every process of a lab. */
export async function processes(lab: string): Promise<number[]> {
  const found = new Set<number>();
  for (const directory of await cgroups(lab)) for (const pid of await members(directory)) found.add(pid);
  return [...found];
}

/** Every cgroup directory of a lab, parents before children. */
export async function cgroups(lab: string): Promise<string[]> {
  const found: string[] = [];
  const walk = async (directory: string): Promise<void> => {
    const entries = await readdir(directory, { withFileTypes: true }).catch(() => undefined);
    if (!entries) return;
    found.push(directory);
    for (const entry of entries) if (entry.isDirectory()) await walk(join(directory, entry.name));
  };
  for (const { mount } of await hierarchies()) await walk(join(mount, parent(lab)));
  return found;
}

/** The names of all labs that have a cgroup, also of those whose directory is gone. */
export async function cgroupLabs(): Promise<string[]> {
  const names = new Set<string>();
  for (const { mount } of await hierarchies())
    for (const entry of await readdir(mount)) {
      const prefix = parent('');
      if (entry.startsWith(prefix) && (await stat(join(mount, entry))).isDirectory())
        names.add(basename(entry).slice(prefix.length));
    }
  return [...names].sort();
}

/**
 * Kills every process of a lab and returns when all are gone: not only out of their cgroup, which an ending process
 * leaves early, but out of the process table, or waiting there for nothing but its parent.
 */
export async function killAll(lab: string): Promise<void> {
  const seen = new Set<number>();
  await until(`the end of all processes of lab ${lab}`, 30_000, async () => {
    const pids = await processes(lab);
    for (const pid of pids) {
      seen.add(pid);
      try {
        process.kill(pid, 'SIGKILL');
      } catch {} // It ended by itself, or with its namespace's first process.
    }
    for (const pid of seen) if (await hasEnded(pid)) seen.delete(pid);
    return pids.length === 0 && seen.size === 0;
  });
}

/** Gone, or a zombie without threads: one whose threads still run still holds its mounts. */
async function hasEnded(pid: number): Promise<boolean> {
  const stat = await readFile(`/proc/${pid}/stat`, 'utf8').catch(() => undefined);
  if (stat === undefined) return true;
  const threads = await readdir(`/proc/${pid}/task`).catch(() => []);
  return /\) [ZX] /.test(stat) && threads.length <= 1;
}

/** Removes a lab's cgroups; the kernel lets go of one only a moment after its last process. */
export async function removeCgroups(lab: string): Promise<void> {
  await until(`the removal of the cgroups of lab ${lab}`, 15_000, async () => {
    const directories = await cgroups(lab);
    for (const directory of directories.reverse()) await rmdir(directory).catch(() => undefined);
    return directories.length === 0;
  });
}

async function members(directory: string): Promise<number[]> {
  const text = await readFile(join(directory, 'cgroup.procs'), 'utf8').catch(() => '');
  return text.split('\n').filter(Boolean).map(Number);
}

import { readdir, readFile, rm, stat } from 'node:fs/promises';
import { cgroups, killAll, processes, removeCgroups } from './cgroups.ts';
import { run } from './command.ts';
import { links, removeLinks } from './network.ts';
import { labDirectory } from './state.ts';

/**
 * What still exists of a lab, found by its name alone: processes, mount namespaces, mounts, links, cgroups, files.
 * Nothing after `down`.
 */
export async function leftovers(name: string): Promise<string[]> {
  const directory = labDirectory(name);
  const [pids, namespaces, mounted, plugged, groups] = await Promise.all([
    processes(name),
    namespacesWith(directory),
    mounts('self', directory),
    links(name),
    cgroups(name),
  ]);
  const there = await stat(directory).then(
    () => [directory],
    () => [],
  );
  return [
    ...pids.map(pid => `process ${pid}`),
    ...namespaces.map(pid => `mount namespace of process ${pid}`),
    ...mounted.map(path => `mount ${path}`),
    ...plugged.map(link => `link ${link}`),
    ...groups.map(path => `cgroup ${path}`),
    ...there.map(path => `files ${path}`),
  ];
}

/**
 * Takes away all that exists of a lab, in whatever state it is. Processes first: with them go their namespaces, and
 * with these the mounts and links inside.
 */
export async function clear(name: string): Promise<void> {
  const directory = labDirectory(name);
  await killAll(name);
  for (const path of (await mounts('self', directory)).reverse()) await run(['umount', '--lazy', path]);
  await removeLinks(name);
  await removeCgroups(name);
  await rm(directory, { recursive: true, force: true });
}

/** Mount points below a directory, in the order in which they were mounted. */
async function mounts(pid: string, directory: string): Promise<string[]> {
  const text = await readFile(`/proc/${pid}/mountinfo`, 'utf8').catch(() => '');
  return text
    .split('\n')
    .map(line => line.split(' ')[4] ?? '')
    .filter(path => path.startsWith(`${directory}/`));
}

/** Processes in whose mount namespace something of the directory is mounted, beside our own namespace's. */
async function namespacesWith(directory: string): Promise<string[]> {
  const pids = (await readdir('/proc')).filter(entry => /^\d+$/.test(entry));
  const found: string[] = [];
  for (const pid of pids) {
    const text = await readFile(`/proc/${pid}/mountinfo`, 'utf8').catch(() => '');
    if (text.includes(`${directory}/`)) found.push(pid);
  }
  return found;
}

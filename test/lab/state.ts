import { mkdir, readdir, readFile, rename, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { NodeKindName } from './kinds.ts';

/** One machine of a lab: its own mount, UTS, IPC and cgroup namespaces, and as a rule network and PID namespaces too. */
export interface LabMachine {
  readonly lab: string;
  readonly name: string;
  /** Its first process, as the host numbers it. The machine lives as long as this process. */
  readonly pid: number;
  /** Its root filesystem as the host sees it, while it lives. */
  readonly root: string;
}

/** A machine that answers on the lab's network over ssh. */
export interface LabHost extends LabMachine {
  readonly address: string;
  readonly port: number;
}

export type RuntimeName = 'containerd' | 'crio' | 'docker';

export interface LabNode extends LabHost {
  readonly kind: NodeKindName;
  readonly runtime: RuntimeName;
  /** Where the runtime answers the kubelet, absolute. */
  readonly criSocket: string;
}

export interface Lab {
  readonly name: string;
  /** Everything that belongs to this lab alone; on a real disk. */
  readonly directory: string;
  /** Put this before the PATH: docker, podman, skopeo, umoci and zstd of the runner, and kubectl and crictl. */
  readonly bin: string;
  readonly nodes: readonly LabNode[];
  /** Where CI builds images: a real Docker engine and podman. It shares the host's network, so their loopback is one. */
  readonly runner: LabMachine;
  /** etcd and kube-apiserver; root's kubectl is an administrator there. */
  readonly control?: LabHost;
  /** Of an administrator. */
  readonly kubeconfig?: string;
  /** The API server's URL. */
  readonly server?: string;
  /** Opens root, deploy, nosudo and prompted on every node. */
  readonly privateKeyFile: string;
  /** The exact host keys of all nodes. */
  readonly knownHostsFile: string;
}

const home = '/var/lib/kube-sideload-lab';

/**
 * A lab's own directory. It must be on a disk: an overlay can't be the upper layer of the overlay that containerd
 * mounts, and a tmpfs would hold every image in memory.
 * @throws for a name that could not be part of a path, a cgroup and a host name.
 */
export function labDirectory(name: string): string {
  if (!/^[a-z][a-z0-9-]{0,30}$/.test(name))
    throw new Error(`a lab's name is lower-case letters, digits and dashes: ${name}`);
  return join(home, name);
}

/** The names of all labs that have a directory, up or half down. */
export async function labNames(): Promise<string[]> {
  const entries = await readdir(home, { withFileTypes: true }).catch(() => []);
  return entries
    .filter(entry => entry.isDirectory())
    .map(entry => entry.name)
    .sort();
}

/** Reads the record of a lab that is up; undefined when there is none, or when it never came up in full. */
export async function load(name: string): Promise<Lab | undefined> {
  const text = await readFile(join(labDirectory(name), 'lab.json'), 'utf8').catch(() => undefined);
  return text === undefined ? undefined : (JSON.parse(text) as Lab);
}

/** Writes the record, last of all and at once: who can read it can use the lab. */
export async function save(lab: Lab): Promise<void> {
  const file = join(lab.directory, 'lab.json');
  await writeFile(`${file}.new`, `${JSON.stringify(lab, undefined, 2)}\n`);
  await rename(`${file}.new`, file);
}

/** Writes files, given by path below `directory`. */
export async function writeTree(directory: string, files: Readonly<Record<string, string | TreeFile>>): Promise<void> {
  for (const [path, entry] of Object.entries(files)) {
    const { text, mode } = typeof entry === 'string' ? { text: entry, mode: 0o644 } : entry;
    const target = join(directory, path);
    await mkdir(join(target, '..'), { recursive: true });
    await writeFile(target, text, { mode });
  }
}

export interface TreeFile {
  readonly text: string;
  readonly mode: number;
}

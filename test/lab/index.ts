import { appendFile, mkdir, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { type Binaries, ensureBinaries } from './binaries.ts';
import { cgroupLabs } from './cgroups.ts';
import {
  adminIdentity,
  awaitNode,
  type Cluster,
  furnish,
  kubeconfigFile,
  nodeIdentity,
  planCluster,
  raiseControl,
} from './cluster.ts';
import { busyboxOf, type Image, type ImageSpec, makeImage as makeImageOf, makePauseImage } from './images.ts';
import { makeIdentity, makeLabKey } from './keys.ts';
import { kindNamed, kinds, type NodeKind, type NodeKindName } from './kinds.ts';
import { clear, leftovers } from './leftovers.ts';
import { locked, lockFile } from './lock.ts';
import { enter } from './machine.ts';
import { controlAddress, firstNodeAddress, makeNetwork } from './network.ts';
import { kubelet, nodeService, raiseNode, sshd } from './node.ts';
import { ensureProgram, type ProgramName } from './programs.ts';
import { type Log, step } from './progress.ts';
import { assertHost, ensureInotify, ensureTools } from './requirements.ts';
import { ensureRootfs, type Rootfs, sid } from './rootfs.ts';
import { raiseRunner, writeWrappers } from './runner.ts';
import { startService, stopService, withLog } from './services.ts';
import { type Lab, type LabHost, type LabNode, labDirectory, labNames, load, save } from './state.ts';

export { setClock } from './clock.ts';
export { restartApiServer } from './cluster.ts';
export type { Outcome } from './command.ts';
export { onSmallDisk } from './disk.ts';
export type { Image, ImageSpec, LayerSpec } from './images.ts';
export { kindNamed, kindNames, type NodeKindName } from './kinds.ts';
export { type EnterOptions, enter, entering, enterMust } from './machine.ts';
export { setLink, setRate, traffic } from './network.ts';
export type { Lab, LabHost, LabMachine, LabNode } from './state.ts';
export { leftovers, load };

export interface UpOptions {
  readonly name: string;
  /** The kinds of its nodes, in the order of their names; or how many there are, all of kind `containerd`. */
  readonly nodes: number | readonly NodeKindName[];
  /** Whether there is a control plane, and a kubelet on each node. True unless told. */
  readonly cluster?: boolean;
  readonly log?: Log;
}

/** Longer than any `up` takes that finds everything built. */
const labLockMs = 10 * 60_000;

/**
 * Raises a lab, after taking down what there is of an earlier one of its name. Builds first what it is made of, when
 * that is not in the cache: minutes, once.
 * @throws when a part of it does not come up, with the end of that part's log; the rest is taken down again.
 */
export async function up({
  name,
  nodes: wanted,
  cluster: withCluster = true,
  log = () => undefined,
}: UpOptions): Promise<Lab> {
  assertHost();
  const directory = labDirectory(name);
  const nodeKinds = kindsOf(wanted);
  const count = nodeKinds.length;
  await ensureTools(log);
  await ensureInotify(log);
  const [rootfsOf, { binaries, programs }] = await Promise.all([
    ensureRoots([sid, ...nodeKinds.map(kind => kinds[kind].rootfs)], log),
    ensurePrograms(nodeKinds, log),
  ]);
  const rootfs = rootfsOf(sid);
  return locked(lockFile(`lab-${name}`), labLockMs, async () => {
    if ((await leftovers(name)).length > 0)
      await step(log, `take down what there was of lab ${name}`, () => clear(name));
    try {
      await mkdir(directory, { recursive: true });
      const at = (file: string): string => join(directory, file);
      const network = await makeNetwork(name);
      const key = await makeLabKey(directory, name);
      const cluster = withCluster ? await planCluster(at('pki'), network, count) : undefined;
      const pauseArchive = at('pause.tar');
      await makePauseImage(pauseArchive, binaries.pause);

      const numbers = Array.from({ length: count }, (_, index) => index + 1);
      const addresses: [string, string][] = [
        ...(cluster ? [['control', `${network.prefix}.${controlAddress}`] as [string, string]] : []),
        ...numbers.map(
          number => [`n${number}`, `${network.prefix}.${firstNodeAddress - 1 + number}`] as [string, string],
        ),
      ];
      const hosts = ['127.0.0.1 localhost', ...addresses.map(([host, address]) => `${address} ${host}`), ''].join('\n');
      const identities = new Map(
        await Promise.all(addresses.map(async ([host]) => [host, await makeIdentity(directory, host, key)] as const)),
      );
      const identity = (host: string) => {
        const found = identities.get(host);
        if (!found) throw new Error(`no identity for ${host}`);
        return found;
      };
      const knownHostsFile = at('known_hosts');
      await writeFile(knownHostsFile, '');
      for (const [host, address] of addresses)
        await appendFile(knownHostsFile, `${address} ${identity(host).hostKey}\n`);

      const parts = { lab: name, key, network, hosts };
      const raisingControl =
        cluster &&
        step(log, 'control plane', async () => {
          const control = await raiseControl({ ...parts, rootfs, binaries, cluster, identity: identity('control') });
          await furnish(cluster);
          return control;
        });
      const raisingNodes = nodeKinds.map((kind, index) =>
        step(log, `node n${index + 1} (${kind})`, async () => {
          const number = index + 1;
          const node = await raiseNode(
            {
              ...parts,
              number,
              kind,
              rootfs: rootfsOf(kinds[kind].rootfs),
              programs,
              identity: identity(`n${number}`),
              cluster: cluster && { kubelet: nodeIdentity(cluster, number), admin: adminIdentity(cluster) },
            },
            pauseArchive,
          );
          await raisingControl;
          if (cluster) await joinCluster(cluster, node);
          return node;
        }),
      );
      const raisingRunner = step(log, 'runner', () => raiseRunner(name, rootfs));
      const settled = await Promise.allSettled([raisingControl, raisingRunner, ...raisingNodes]);
      for (const result of settled) if (result.status === 'rejected') throw result.reason;
      const [control, runner, nodes] = await Promise.all([raisingControl, raisingRunner, Promise.all(raisingNodes)]);

      const bin = at('bin');
      await writeWrappers(bin, runner);
      await symlink(join(rootfs, 'usr/bin/kubectl'), join(bin, 'kubectl'));
      await symlink(programs.get('crictl') ?? '', join(bin, 'crictl'));
      const lab: Lab = {
        name,
        directory,
        bin,
        nodes,
        runner,
        ...(control && { control }),
        ...(cluster && { kubeconfig: kubeconfigFile(cluster), server: cluster.server }),
        privateKeyFile: key.privateKeyFile,
        knownHostsFile,
      };
      await save(lab);
      return lab;
    } catch (error) {
      await clear(name);
      throw error;
    }
  });
}

/** Takes a lab down, in whatever state it is. @throws when something of it stays, naming it. */
export async function down(name: string): Promise<void> {
  assertHost();
  await locked(lockFile(`lab-${name}`), labLockMs, async () => {
    await clear(name);
    const left = await leftovers(name);
    if (left.length > 0) throw new Error(`lab ${name} is down, and this is left of it:\n${left.join('\n')}`);
  });
}

/** The names of all labs of this machine, up or half down. */
export async function names(): Promise<string[]> {
  return [...new Set([...(await labNames()), ...(await cgroupLabs())])].sort();
}

/** The command line of the machine's OpenSSH client that logs in to a node, and knows nothing but the lab. */
export function sshCommand(lab: Lab, host: LabHost, user = 'root'): string[] {
  const options = [
    `UserKnownHostsFile=${lab.knownHostsFile}`,
    'GlobalKnownHostsFile=none',
    'StrictHostKeyChecking=yes',
    'BatchMode=yes',
    'IdentitiesOnly=yes',
    'ConnectTimeout=10',
    'LogLevel=ERROR',
  ];
  return [
    'ssh',
    ...['-F', 'none'],
    ...options.flatMap(option => ['-o', option]),
    ...['-i', lab.privateKeyFile],
    ...['-p', String(host.port)],
    `${user}@${host.address}`,
  ];
}

/** Stops a node's `sshd`, `containerd` or `kubelet`. */
export async function stop(node: LabNode, service: string): Promise<void> {
  await stopService(node, nodeService(node, service).name);
}

/** Starts it again, and waits until it answers. */
export async function start(node: LabNode, service: string): Promise<void> {
  await startService(node, nodeService(node, service));
}

/** Ends every process of a node but its init at once, as a power cut does. What is mounted stays. */
export async function powerOff(node: LabNode): Promise<void> {
  // Its init lives as long as the `sleep` that it has started. Twice: something may have been forked meanwhile.
  const script = `kill -KILL $(pgrep -vf '^sleep infinity$' | grep -vx -e 1 -e $$)`;
  await enter(node, ['sh', '-c', `${script}; ${script}`]);
}

/** Starts what a node of a cluster starts when it boots. */
export async function powerOn(node: LabNode): Promise<void> {
  const services = [sshd(node), ...kinds[node.kind].runtime.services, kubelet(node)];
  for (const service of services) await startService(node, service);
}

/** Writes a small test image as an OCI archive; see `ImageSpec`. */
export async function makeImage(spec: ImageSpec): Promise<Image> {
  return makeImageOf(spec, busyboxOf(await ensureRootfs(sid, () => undefined)));
}

async function joinCluster(cluster: Cluster, node: LabNode): Promise<void> {
  const service = kubelet(node);
  await startService(node, service);
  await awaitNode(cluster, node.name).catch(async (error: Error) => {
    throw await withLog(node, service.name, error);
  });
}

function kindsOf(wanted: UpOptions['nodes']): readonly NodeKindName[] {
  const count = typeof wanted === 'number' ? wanted : wanted.length;
  if (!Number.isInteger(count) || count < 0 || count > 50) throw new Error(`a lab has 0 to 50 nodes, not ${count}`);
  return typeof wanted === 'number'
    ? Array.from({ length: wanted }, () => 'containerd' as const)
    : wanted.map(kindNamed);
}

/** The root filesystems that are asked for, one after the other where one has to be built. */
async function ensureRoots(wanted: readonly Rootfs[], log: Log): Promise<(rootfs: Rootfs) => string> {
  const found = new Map<Rootfs, string>();
  for (const rootfs of new Set(wanted)) found.set(rootfs, await ensureRootfs(rootfs, log));
  return rootfs => {
    const directory = found.get(rootfs);
    if (directory === undefined) throw new Error(`no root filesystem of ${rootfs.suite}`);
    return directory;
  };
}

/** Kubernetes, crictl, and what else the runtimes of these nodes are; by the program's name, one build after the other. */
async function ensurePrograms(
  wanted: readonly NodeKindName[],
  log: Log,
): Promise<{ binaries: Binaries; programs: ReadonlyMap<string, string> }> {
  const binaries = await ensureBinaries(log);
  const runtimes = wanted.map((name): NodeKind => kinds[name]).map(({ runtime }) => runtime);
  const programs = new Map([['kubelet', binaries.kubelet]]);
  const names = runtimes.flatMap(runtime => Object.keys(runtime.programs ?? {}) as ProgramName[]);
  for (const name of new Set<ProgramName>(['crictl', ...names]))
    for (const [file, path] of await ensureProgram(name, log)) programs.set(file, path);
  return { binaries, programs };
}

import { randomBytes } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { join } from 'node:path';
import { pauseReference } from './images.ts';
import { authorize, type LabKey, type SshIdentity } from './keys.ts';
import { kinds, type NodeKind, type NodeKindName } from './kinds.ts';
import { type KubeletIdentity, kubeconfig, kubeletFiles, kubeletService } from './kubelet.ts';
import { type Bind, enterMust, machineDirectory, raise } from './machine.ts';
import { firstNodeAddress, type Network, plug } from './network.ts';
import { engines, type Runtime } from './runtime.ts';
import { type Service, startService } from './services.ts';
import type { LabHost, LabNode } from './state.ts';

export interface NodeSpec {
  readonly lab: string;
  /** 1 for n1. */
  readonly number: number;
  readonly kind: NodeKindName;
  /** The directory that holds the kind's root filesystem. */
  readonly rootfs: string;
  /** Where the programs are that were built for it, by name: kubelet, crictl, and those of the runtime. */
  readonly programs: ReadonlyMap<string, string>;
  readonly key: LabKey;
  readonly identity: SshIdentity;
  readonly network: Network;
  readonly hosts: string;
  /** Undefined for a node without a cluster. */
  readonly cluster: { readonly kubelet: KubeletIdentity; readonly admin: KubeletIdentity } | undefined;
}

export const sshPort = 22;

/** Raises a node, with sshd and its runtime answering and the pause image in place. The kubelet is not started yet. */
export async function raiseNode(spec: NodeSpec, pauseArchive: string): Promise<LabNode> {
  const name = `n${spec.number}`;
  const kind: NodeKind = kinds[spec.kind];
  const { runtime, crictl, cluster } = { ...kind, cluster: spec.cluster };
  await authorize(machineDirectoryUpper(spec.lab, name), spec.key);
  const machine = await raise({
    lab: spec.lab,
    name,
    rootfs: spec.rootfs,
    isolated: true,
    data: [...runtime.data, ...outside(runtime.data, kind.kubelet.root), ...(kind.data ?? [])],
    binds: binds(spec, kind),
    files: {
      ...spec.identity.files,
      ...runtime.files,
      ...(cluster && kubeletFiles(cluster.kubelet, kind.kubelet, runtime.criSocket)),
      ...(cluster && kind.adminKubeconfig !== undefined
        ? { [kind.adminKubeconfig]: { text: kubeconfig(cluster.admin), mode: 0o600 } }
        : {}),
      ...(crictl && {
        [crictl.configuration]: `runtime-endpoint: unix://${runtime.criSocket}\nimage-endpoint: unix://${runtime.criSocket}\n`,
      }),
      ...kind.files,
      '/etc/machine-id': `${randomBytes(16).toString('hex')}\n`,
      '/etc/hosts': spec.hosts,
      '/etc/cni/net.d/10-lab.conflist': podNetwork(spec.number),
    },
  });
  const address = await plug(machine, spec.network, firstNodeAddress - 1 + spec.number);
  const node: LabNode = {
    ...machine,
    address,
    port: sshPort,
    kind: spec.kind,
    runtime: runtime.name,
    criSocket: runtime.criSocket,
  };
  const absent = [...Object.keys(kind.moved ?? {}), ...foreign(runtime)];
  await enterMust(node, ['sh', '-euc', `rm -f ${absent.join(' ')}\n${kind.setup ?? ''}`]);
  await Promise.all([
    startService(node, sshd(node)),
    (async () => {
      for (const service of runtime.services) await startService(node, service);
      await enterMust(node, runtime.importImage(pauseReference), { input: createReadStream(pauseArchive) });
    })(),
  ]);
  return node;
}

/** The programs of other runtimes: one root filesystem serves them all, but a node has its own alone. */
function foreign({ tools }: Runtime): string[] {
  return Object.entries(engines).flatMap(([engine, paths]) => (tools.some(tool => tool === engine) ? [] : paths));
}

/** The directory, unless it is below one of those. */
function outside(directories: readonly string[], directory: string): string[] {
  return directories.some(above => directory.startsWith(`${above}/`)) ? [] : [directory];
}

function binds({ rootfs, programs }: NodeSpec, { runtime, kubelet, crictl, moved = {} }: NodeKind): Bind[] {
  const built: Readonly<Record<string, string>> = Object.assign(
    { kubelet: kubelet.program, ...(crictl && { crictl: crictl.program }) },
    ...Object.values(runtime.programs ?? {}),
  );
  const from = (name: string): string => {
    const path = programs.get(name);
    if (path === undefined) throw new Error(`${name} was not built`);
    return path;
  };
  return [
    ...Object.entries(built).map(([name, target]) => ({ source: from(name), target, mode: 'ro' as const })),
    ...Object.entries(moved).map(([source, target]) => ({ source: join(rootfs, source), target, mode: 'ro' as const })),
  ];
}

export function machineDirectoryUpper(lab: string, name: string): string {
  return `${machineDirectory(lab, name)}/upper`;
}

export function sshd(host: Pick<LabHost, 'address' | 'port'>): Service {
  return { name: 'sshd', argv: ['/usr/sbin/sshd', '-D', '-e'], listen: { address: host.address, port: host.port } };
}

/** The services of a node by name, for whoever stops and starts them. */
export function nodeService(node: LabNode, name: string): Service {
  const { runtime } = kinds[node.kind];
  const service = [sshd(node), kubelet(node), ...runtime.services].find(candidate => candidate.name === name);
  if (!service) throw new Error(`${node.name} has no service ${name}`);
  return service;
}

export function kubelet(node: LabNode): Service {
  return kubeletService(kinds[node.kind].kubelet, node.criSocket, node.address);
}

/** Pods get addresses of a network that ends at their node: nothing here lets pods of two nodes talk. */
function podNetwork(number: number): string {
  return `${JSON.stringify(
    {
      cniVersion: '1.0.0',
      name: 'lab',
      plugins: [
        {
          type: 'bridge',
          bridge: 'cni0',
          isGateway: true,
          ipam: { type: 'host-local', ranges: [[{ subnet: `10.244.${number}.0/24` }]], routes: [{ dst: '0.0.0.0/0' }] },
        },
      ],
    },
    undefined,
    2,
  )}\n`;
}

import { randomBytes } from 'node:crypto';
import { createReadStream } from 'node:fs';
import type { Binaries } from './binaries.ts';
import { authorize, type LabKey, type SshIdentity } from './keys.ts';
import { type KubeletIdentity, kubeletFiles, kubeletService } from './kubelet.ts';
import { enterMust, machineDirectory, raise } from './machine.ts';
import { firstNodeAddress, type Network, plug } from './network.ts';
import { type Rootfs, sid } from './rootfs.ts';
import type { Runtime } from './runtime.ts';
import { containerd } from './runtimes/containerd.ts';
import { type Service, startService } from './services.ts';
import type { LabHost, LabNode } from './state.ts';

/** What a node is: a root filesystem and a runtime. Another kind of node is another row. */
export interface NodeKind {
  readonly rootfs: Rootfs;
  readonly runtime: Runtime;
}

export const kinds = {
  containerd: { rootfs: sid, runtime: containerd },
} as const satisfies Readonly<Record<string, NodeKind>>;

export interface NodeSpec {
  readonly lab: string;
  /** 1 for n1. */
  readonly number: number;
  readonly kind: NodeKind;
  /** The directory that holds the kind's root filesystem. */
  readonly rootfs: string;
  readonly binaries: Binaries;
  readonly crictl: string;
  readonly key: LabKey;
  readonly identity: SshIdentity;
  readonly network: Network;
  readonly hosts: string;
  /** Undefined for a node without a cluster. */
  readonly kubelet: KubeletIdentity | undefined;
}

export const sshPort = 22;

/** Raises a node, with sshd and its runtime answering and the pause image in place. The kubelet is not started yet. */
export async function raiseNode(spec: NodeSpec, pauseArchive: string): Promise<LabNode> {
  const name = `n${spec.number}`;
  const { runtime } = spec.kind;
  await authorize(machineDirectoryUpper(spec.lab, name), spec.key);
  const machine = await raise({
    lab: spec.lab,
    name,
    rootfs: spec.rootfs,
    isolated: true,
    data: [...runtime.data, 'kubelet'],
    binds: [
      { source: spec.crictl, target: '/usr/local/bin/crictl', mode: 'ro' },
      { source: spec.binaries.kubelet, target: '/usr/bin/kubelet', mode: 'ro' },
    ],
    files: {
      ...spec.identity.files,
      ...runtime.files,
      ...(spec.kubelet && kubeletFiles(spec.kubelet, runtime)),
      '/etc/machine-id': `${randomBytes(16).toString('hex')}\n`,
      '/etc/hosts': spec.hosts,
      '/etc/crictl.yaml': `runtime-endpoint: unix://${runtime.criSocket}\nimage-endpoint: unix://${runtime.criSocket}\n`,
      '/etc/cni/net.d/10-lab.conflist': podNetwork(spec.number),
    },
  });
  const address = await plug(machine, spec.network, firstNodeAddress - 1 + spec.number);
  const node: LabNode = { ...machine, address, port: sshPort, runtime: runtime.name };
  await Promise.all([
    startService(node, sshd(node)),
    (async () => {
      for (const service of runtime.services) await startService(node, service);
      await enterMust(node, runtime.importImage, { input: createReadStream(pauseArchive) });
    })(),
  ]);
  return node;
}

export function machineDirectoryUpper(lab: string, name: string): string {
  return `${machineDirectory(lab, name)}/upper`;
}

export function sshd(host: Pick<LabHost, 'address' | 'port'>): Service {
  return { name: 'sshd', argv: ['/usr/sbin/sshd', '-D', '-e'], listen: { address: host.address, port: host.port } };
}

/** The services of a node by name, for whoever stops and starts them. */
export function nodeService(node: LabNode, name: string): Service {
  const { runtime } = kinds[node.runtime];
  const service = [sshd(node), kubeletService(node.address), ...runtime.services].find(
    candidate => candidate.name === name,
  );
  if (!service) throw new Error(`${node.name} has no service ${name}`);
  return service;
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

import { SideloadError } from '../errors.ts';
import type { Platform } from '../image/platform.ts';
import type { NodeSettings } from '../settings.ts';
import type { NodeObject } from '../smoke/objects.ts';

/** Addresses that a runner can be expected to reach, the best first (Kubernetes: `NodeAddressType`). */
const ADDRESS_TYPES = ['InternalIP', 'ExternalIP', 'InternalDNS', 'ExternalDNS', 'Hostname'];

type Defaults = Pick<NodeSettings, 'user' | 'port' | 'given' | 'jump' | 'sudo'>;

/**
 * The nodes that a cluster names, as nodes to push to. Cordoned ones are among them: they come back, and pods on them go
 * on. Nodes of another system than Linux are not: no image for them can be sent.
 * @param entries take the place of the node with their Kubernetes name, else with their address
 * @returns the nodes, and the entries that are for none of them
 * @throws SideloadError INPUT_INVALID when there are none, or when two entries are for the same node
 */
export function nodesOfCluster(
  objects: readonly NodeObject[],
  entries: readonly NodeSettings[],
  { user, port, given, jump, sudo }: Defaults,
): { readonly nodes: readonly NodeSettings[]; readonly unused: readonly NodeSettings[] } {
  const linux = objects.filter(object => (systemOf(object) ?? 'linux') === 'linux');
  if (linux.length === 0) {
    throw new SideloadError('INPUT_INVALID', 'the cluster has no Linux node that `node-selector` takes', {
      hint: 'Compare with `kubectl get nodes --show-labels`.',
    });
  }
  const used = new Set<NodeSettings>();
  const nodes = linux.map((object): NodeSettings => {
    const { name } = object.metadata;
    const [entry, other] = entries.filter(candidate => isFor(candidate, object));
    if (entry === undefined) {
      return {
        label: name,
        host: addressOf(object),
        port,
        user,
        given,
        jump,
        sudo,
        kubernetesName: name,
        criSocket: undefined,
      };
    }
    if (other !== undefined) {
      throw new SideloadError('INPUT_INVALID', `${entry.label} and ${other.label} are both for the node ${name}`, {
        hint: 'Keep one of the two.',
      });
    }
    used.add(entry);
    return { ...entry, label: name, kubernetesName: name };
  });
  return { nodes, unused: entries.filter(entry => !used.has(entry)) };
}

function isFor({ kubernetesName, host }: NodeSettings, { metadata, status }: NodeObject): boolean {
  if (kubernetesName !== undefined) {
    return kubernetesName === metadata.name;
  }
  const address = host.toLowerCase();
  return address === metadata.name || (status?.addresses ?? []).some(one => one.address.toLowerCase() === address);
}

function addressOf({ metadata, status }: NodeObject): string {
  const addresses = status?.addresses ?? [];
  const best = ADDRESS_TYPES.flatMap(type => addresses.find(address => address.type === type) ?? [])[0];
  return best?.address ?? metadata.name;
}

/**
 * Whether the scheduler would put a plain pod with one of the images on a node: it is for one of their platforms, not
 * cordoned, and without a taint that keeps pods away. Tolerations of the user's own pods are not known here.
 */
export function takesPods(object: NodeObject, platforms: readonly Platform[]): boolean {
  const { metadata, spec, status } = object;
  const architecture = metadata.labels?.['kubernetes.io/arch'] || status?.nodeInfo?.architecture;
  const system = systemOf(object);
  return (
    spec?.unschedulable !== true &&
    !(spec?.taints ?? []).some(({ effect }) => effect === 'NoSchedule' || effect === 'NoExecute') &&
    platforms.some(
      platform => (!system || platform.os === system) && (!architecture || platform.architecture === architecture),
    )
  );
}

/** A kubelet that has never reported leaves empty texts behind: they say nothing. */
function systemOf({ metadata, status }: NodeObject): string | undefined {
  return metadata.labels?.['kubernetes.io/os'] || status?.nodeInfo?.operatingSystem || undefined;
}

/** Why a node is not ready, in its own words; `undefined` when it is, or when no kubelet has ever said anything. */
export function unreadiness({ status }: NodeObject): string | undefined {
  const ready = status?.conditions?.find(({ type }) => type === 'Ready');
  if (ready === undefined || ready.status === 'True') {
    return undefined;
  }
  return [ready.reason, ready.message].filter(text => text !== undefined && text !== '').join(': ') || ready.status;
}

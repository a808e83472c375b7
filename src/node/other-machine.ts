import { isIP, SocketAddress } from 'node:net';
import type { NodeObject } from '../smoke/objects.ts';
import type { MachineFacts } from './facts.ts';

/** What tells a machine from others: of itself, and of a node by the cluster's word. */
type Machine = Pick<MachineFacts, 'machineId' | 'addresses'>;

/**
 * Why a machine is another one than a node of the cluster, in words; `undefined` when nothing says so. An address that both
 * have says that they are one: then a machine ID that differs was changed since the kubelet read it. Machine IDs are copied
 * with disks, so that the same one proves nothing.
 */
export function otherMachine(
  machine: Machine,
  node: NodeObject,
): { readonly isCertain: boolean; readonly says: string } | undefined {
  const { machineId } = machine;
  const nodeId = node.status?.nodeInfo?.machineID?.toLowerCase();
  const nodeAddresses = addressesOf(node);
  if (machine.addresses.length === 0 || nodeAddresses.length === 0 || nodeAddresses.some(one => has(machine, one))) {
    return undefined;
  }
  const isOtherId = machineId !== undefined && /^[0-9a-f]{32}$/.test(nodeId ?? '') && nodeId !== machineId;
  const addresses = `it has ${listOf(machine.addresses)}, the node ${listOf(nodeAddresses)}`;
  return {
    // A node behind address translation may not have its address; with another machine ID as well it is another machine.
    isCertain: isOtherId,
    says: isOtherId ? `${addresses}; its machine ID is ${machineId}, the node’s ${nodeId}` : addresses,
  };
}

/** The node of the cluster that a machine is, by an address that both have. */
export function nodeOfMachine(machine: Machine, nodes: readonly NodeObject[]): NodeObject | undefined {
  return nodes.find(node => addressesOf(node).some(address => has(machine, address)));
}

/** The IP addresses of the machine itself; that under which others know it need not be one of its own. */
function addressesOf({ status }: NodeObject): readonly string[] {
  return (status?.addresses ?? [])
    .filter(({ type, address }) => type === 'InternalIP' && isIP(address) > 0)
    .map(({ address }) => address);
}

function has({ addresses }: Machine, address: string): boolean {
  return addresses.some(one => canonical(one) === canonical(address));
}

/** IPv6 has many ways to write an address. */
function canonical(address: string): string {
  return isIP(address) === 6 ? new SocketAddress({ address, family: 'ipv6' }).address : address;
}

const SHOWN = 4;

function listOf(addresses: readonly string[]): string {
  return `${addresses.slice(0, SHOWN).join(', ')}${addresses.length > SHOWN ? ' and others' : ''}`;
}

/** With kube-proxy's IPVS mode a node has the addresses of all services. Of more than this none is told: some would be left out. */
const MOST = 4096;

/** Addresses as `/proc/net` has them: IPv4 with dots, IPv6 as 32 hexadecimal digits; those of the loopback tell nothing. */
export function parseAddresses(text: string): readonly string[] {
  const addresses = text
    .split(/\s+/)
    .map(word => (/^[0-9a-f]{32}$/.test(word) ? word.replace(/(.{4})(?!$)/g, '$1:') : word));
  const own = addresses.filter(word => isIP(word) > 0 && !/^127\.|^0\.|^(0000:){7}0001$|^fe[89ab]/.test(word));
  return own.length > MOST ? [] : [...new Set(own)];
}

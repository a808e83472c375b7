import { createHash } from 'node:crypto';
import { readdir, readFile } from 'node:fs/promises';
import { networkInterfaces } from 'node:os';
import { join } from 'node:path';
import { must, run } from './command.ts';
import { locked, lockFile } from './lock.ts';
import type { LabMachine } from './state.ts';

/** A lab's network: one bridge that only its machines are on, and no way out: what a node asks for must be in the lab. */
export interface Network {
  readonly bridge: string;
  /** The first three numbers of every address. */
  readonly prefix: string;
}

export const controlAddress = 2;
export const firstNodeAddress = 11;

/** Interface names have at most 15 characters; a hash keeps them apart, and lets `down` find them by the lab's name. */
function stem(lab: string): string {
  return `ks${createHash('sha256').update(lab).digest('hex').slice(0, 7)}`;
}

function hostEnd(lab: string, machine: string): string {
  return `${stem(lab)}-${machine.slice(0, 5)}`;
}

/** Makes the lab's bridge, on a free /24 of 10.89.0.0/16; the host is number 1 there. */
export async function makeNetwork(lab: string): Promise<Network> {
  const bridge = `${stem(lab)}-br`;
  return locked(lockFile('network'), 30_000, async () => {
    const taken = new Set(
      Object.values(networkInterfaces()).flatMap(addresses =>
        (addresses ?? []).map(({ address }) => address.split('.').slice(0, 3).join('.')),
      ),
    );
    const routes = await must(['ip', '-4', 'route', 'show', 'table', 'all']);
    const start = Number.parseInt(stem(lab).slice(-2), 16);
    const candidates = Array.from({ length: 254 }, (_, index) => `10.89.${1 + ((start + index) % 254)}`);
    const prefix = candidates.find(candidate => !taken.has(candidate) && !routes.includes(`${candidate}.`));
    if (prefix === undefined) throw new Error('no /24 of 10.89.0.0/16 is free');
    await must(['ip', 'link', 'add', bridge, 'type', 'bridge']);
    await must(['ip', 'address', 'add', `${prefix}.1/24`, 'dev', bridge]);
    await must(['ip', 'link', 'set', bridge, 'up']);
    return { bridge, prefix };
  });
}

/** Plugs a machine into the bridge, as eth0; returns its address. There is no default route. */
export async function plug(machine: LabMachine, network: Network, number: number): Promise<string> {
  const host = hostEnd(machine.lab, machine.name);
  const address = `${network.prefix}.${number}`;
  const inside = (...argv: string[]): Promise<string> =>
    must(['nsenter', '--target', String(machine.pid), '--net', 'ip', ...argv]);
  await must(['ip', 'link', 'add', host, 'type', 'veth', 'peer', 'name', 'eth0', 'netns', String(machine.pid)]);
  await must(['ip', 'link', 'set', host, 'master', network.bridge, 'up']);
  await inside('address', 'add', `${address}/24`, 'dev', 'eth0');
  await inside('link', 'set', 'lo', 'up');
  await inside('link', 'set', 'eth0', 'up');
  return address;
}

/** Cuts a machine's link, or mends it: what is under way on it stalls, as with a pulled cable. */
export async function setLink(machine: LabMachine, state: 'up' | 'down'): Promise<void> {
  await must(['ip', 'link', 'set', hostEnd(machine.lab, machine.name), state]);
}

/**
 * Bounds what flows to a machine, `200mbit` say, or lifts the bound. (tbf: netem, which could also delay and lose, is
 * in few kernels.)
 */
export async function setRate(machine: LabMachine, rate: string | undefined): Promise<void> {
  const device = hostEnd(machine.lab, machine.name);
  await run(['tc', 'qdisc', 'del', 'dev', device, 'root']);
  if (rate !== undefined)
    await must(['tc', 'qdisc', 'add', 'dev', device, 'root', 'tbf', 'rate', rate, 'burst', '256k', 'latency', '50ms']);
}

/** Bytes that have passed a machine's link since it was plugged in, as its host end counted them, headers included. */
export async function traffic(machine: LabMachine): Promise<{ readonly toBytes: number; readonly fromBytes: number }> {
  const count = async (name: string) =>
    Number(await readFile(join('/sys/class/net', hostEnd(machine.lab, machine.name), 'statistics', name), 'utf8'));
  const [toBytes, fromBytes] = await Promise.all([count('tx_bytes'), count('rx_bytes')]);
  return { toBytes, fromBytes };
}

/** The links of a lab that the host still has. Those inside a machine end with it. */
export async function links(lab: string): Promise<string[]> {
  const names = await readdir('/sys/class/net');
  return names.filter(name => name.startsWith(`${stem(lab)}-`));
}

/** Removes the lab's bridge and what is plugged into it. */
export async function removeLinks(lab: string): Promise<void> {
  for (const link of await links(lab)) await run(['ip', 'link', 'delete', link]);
}

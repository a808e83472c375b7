import { describe, expect, it } from 'vitest';
import { nodeOfMachine, otherMachine, parseAddresses } from '../../../src/node/other-machine.ts';
import type { NodeObject } from '../../../src/smoke/objects.ts';

const [ID, OTHER] = ['a'.repeat(32), 'b'.repeat(32)];

function node(name: string, addresses: readonly string[], machineID?: string): NodeObject {
  return {
    metadata: { name },
    status: {
      addresses: [
        ...addresses.map(address => ({ type: 'InternalIP', address })),
        { type: 'ExternalIP', address: '198.51.100.7' },
        { type: 'Hostname', address: name },
      ],
      ...(machineID !== undefined && { nodeInfo: { machineID } }),
    },
  };
}

const machine = { machineId: ID, addresses: ['10.0.0.11', 'fd00:0000:0000:0000:0000:0000:0000:000b'] };

describe('a machine', () => {
  it.each<[what: string, one: Parameters<typeof otherMachine>[0], object: NodeObject]>([
    ['with the address of the node', machine, node('w1', ['10.0.0.11'], ID)],
    [
      'with one of its addresses, and an ID that was changed since',
      machine,
      node('w1', ['192.0.2.1', 'fd00::b'], OTHER),
    ],
    ['that does not tell its addresses', { ...machine, addresses: [] }, node('w1', ['10.0.0.12'], OTHER)],
    ['of a node that does not tell its own', machine, node('w1', [], OTHER)],
    ['of a node that was just made', machine, { metadata: { name: 'w1' } }],
  ])('is not taken for another one: %s', (_what, one, object) => {
    expect(otherMachine(one, object)).toBeUndefined();
  });

  it('with another address and another ID is another one, for certain', () => {
    expect(otherMachine(machine, node('w4', ['10.0.0.14'], OTHER))).toEqual({
      isCertain: true,
      says: `it has 10.0.0.11, ${machine.addresses[1]}, the node 10.0.0.14; its machine ID is ${ID}, the node’s ${OTHER}`,
    });
  });

  it.each([ID, undefined, '', 'not an ID'])('with another address alone may be one: machine ID %s', machineID => {
    expect(otherMachine(machine, node('w4', ['10.0.0.14'], machineID))).toMatchObject({ isCertain: false });
  });

  it('is the node that has an address of it', () => {
    const nodes = [node('w4', ['10.0.0.14']), node('w1', ['192.0.2.1', '10.0.0.11'])];
    expect(nodeOfMachine(machine, nodes)?.metadata.name).toBe('w1');
    expect(nodeOfMachine({ ...machine, addresses: ['192.0.2.9'] }, nodes)).toBeUndefined();
  });
});

it('the addresses of a machine are those of /proc/net, without what every machine has, and nothing else', () => {
  const text =
    '10.0.0.11\n127.0.0.1\n10.0.0.11\nfe800000000000000000000000000001\n00000000000000000000000000000001\nfd00000000000000000000000000000b\n$(id) 999.1.1.1';
  const many = Array.from({ length: 5000 }, (_, index) => `10.1.${index >> 8}.${index & 255}`);
  expect(parseAddresses(many.join('\n'))).toEqual([]);
  expect(parseAddresses(text)).toEqual(['10.0.0.11', 'fd00:0000:0000:0000:0000:0000:0000:000b']);
});

import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, inject, it, vi } from 'vitest';
import { archive, build } from '../engines.ts';
import { setLink, setRate, start, stop } from '../lab/index.ts';
import { type Inputs, leftOnNode, nodeNamed, type Outcome, push, reach, referencesOn } from '../shipped.ts';

const lab = inject('lab');
const [n1, n2, n3] = [nodeNamed(lab, 'n1'), nodeNamed(lab, 'n2'), nodeNamed(lab, 'n3')];
const REFERENCE = 'docker.io/library/refused:1';
const directory = mkdtempSync(join(tmpdir(), 'kube-sideload-refusals-'));
beforeAll(() => build(lab, 'docker', 'refused:1', 'refused'));
afterAll(() => rmSync(directory, { recursive: true, force: true }));

afterEach(async () => {
  expect(await leftOnNode(lab)).toEqual([]);
  for (const node of lab.nodes) {
    expect(await referencesOn(lab, node.name)).not.toContain(REFERENCE);
  }
});

function refuse(inputs: Inputs): Promise<Outcome> {
  return push({ ...reach(lab, [n1.address]), images: 'refused:1', 'connect-timeout': '5s', ...inputs }, { lab });
}

function sshKey(name: string): string {
  const file = join(directory, name);
  execFileSync('ssh-keygen', ['-q', '-t', 'ed25519', '-N', '', '-f', file]);
  return file;
}

describe('each way in which a node can refuse has its code, a hint, and leaves no trace', () => {
  const cases: Readonly<Record<string, readonly [string, () => Inputs | Promise<Inputs>]>> = {
    'no such image': ['IMAGE_NOT_FOUND', () => ({ images: 'no-such-image:1' })],
    'an unknown host key': [
      'SSH_HOST_KEY_UNKNOWN',
      () => ({ 'ssh-known-hosts': knownHost('198.51.100.1', n1.address) }),
    ],
    'a changed host key': ['SSH_HOST_KEY_CHANGED', () => ({ 'ssh-known-hosts': knownHost(n1.address, n2.address) })],
    'a wrong key': ['SSH_AUTH_FAILED', () => ({ 'ssh-private-key-file': sshKey('wrong') })],
    'an unknown user': ['SSH_AUTH_FAILED', () => ({ 'ssh-user': 'nobody-here' })],
    'a port on which nobody listens': [
      'SSH_UNREACHABLE',
      () => ({ nodes: `${n1.address}:2222`, 'ssh-known-hosts': knownHost(`[${n1.address}]:2222`, n1.address) }),
    ],
    'sudo that refuses': ['SUDO_REFUSED', () => ({ 'ssh-user': 'nosudo' })],
    'sudo that wants a password': ['SUDO_REFUSED', () => ({ 'ssh-user': 'prompted' })],
    'a socket that does not exist': ['RUNTIME_NOT_RUNNING', () => ({ 'cri-socket': '/run/no-such.sock' })],
    'a socket of something else': [
      'RUNTIME_NOT_RUNNING',
      () => ({ 'cri-socket': '/run/containerd/containerd.sock.ttrpc' }),
    ],
    'an image for another architecture': ['PLATFORM_MISMATCH', async () => ({ archive: (await other()).file })],
    'an archive that is cut off': ['ARCHIVE_INVALID', async () => ({ archive: await truncated() })],
    'an archive that is none': ['ARCHIVE_INVALID', () => ({ archive: '/etc/passwd' })],
    'a directory for an archive': ['ARCHIVE_INVALID', () => ({ archive: directory })],
  };

  it.for(Object.entries(cases))('%s', async ([, [code, inputs]], { expect }) => {
    const outcome = await refuse(await inputs());
    expect(outcome.log).toContain(`[${code}]`);
    expect(outcome.log).toContain('Next step: ');
    expect(outcome.log).not.toContain('INTERNAL');
    expect(outcome.code).toBe(1);
    expect(outcome.leftOnRunner).toEqual([]);
  });

  it('an archive that lacks a layer', async () => {
    const whole = await archive(directory, { reference: REFERENCE, layers: [{ fillBytes: 5000 }] });
    const unpacked = mkdtempSync(join(directory, 'unpacked-'));
    execFileSync('tar', ['-xf', whole.file, '-C', unpacked]);
    const layer = whole.layers.at(-1)?.digest.replace(':', '/') ?? '';
    rmSync(join(unpacked, 'blobs', layer));
    const file = join(directory, 'lacking.tar');
    execFileSync('tar', ['-cf', file, '-C', unpacked, '.']);
    const outcome = await refuse({ archive: file });
    expect(outcome.log).toContain('[ARCHIVE_INCOMPLETE]');
    expect(outcome.log).toContain(layer.replace('/', ':'));
    expect(outcome.code).toBe(1);
  });

  it('an archive with a layer that is not what its digest says', async () => {
    const whole = await archive(directory, { reference: REFERENCE, layers: [{ files: { a: 'needle-in-the-layer' } }] });
    const bytes = readFileSync(whole.file);
    bytes.write('NEEDLE', bytes.indexOf('needle-in-the-layer'));
    const file = join(directory, 'corrupt.tar');
    writeFileSync(file, bytes);
    const outcome = await refuse({ archive: file });
    expect(outcome.log).toContain('[ARCHIVE_CORRUPT]');
    expect(outcome.code).toBe(1);
  });
});

describe('all nodes or none', () => {
  it('reports every node, and moves no reference, when the runtime of one of three is stopped', async () => {
    await stop(n3, 'containerd');
    try {
      const outcome = await refuse(reach(lab));
      expect(outcome.code).toBe(1);
      expect(outcome.nodes.map(node => [node.node, node.error?.code, node.runtime?.split(' ')[0]])).toEqual([
        ['n1', undefined, 'containerd'],
        ['n2', undefined, 'containerd'],
        ['n3', expect.stringMatching(/^RUNTIME_NOT_(RUNNING|FOUND)$/), undefined],
      ]);
      expect(outcome.log).toContain('1 of 3 nodes failed: n3');
    } finally {
      await start(n3, 'containerd');
    }
  });

  it('reports every node, and moves no reference, when sshd of one of three is stopped', async () => {
    await stop(n2, 'sshd');
    try {
      const outcome = await refuse(reach(lab));
      expect(outcome.nodes.map(node => node.error?.code)).toEqual([undefined, 'SSH_UNREACHABLE', undefined]);
      expect(outcome.code).toBe(1);
    } finally {
      await start(n2, 'sshd');
    }
  });

  it('takes back what it has staged when the link to one node is cut in the middle of its transfer', async () => {
    const big = await archive(directory, { reference: REFERENCE, layers: [{ fillBytes: 40_000_000 }] });
    await setRate(n3, '16mbit');
    try {
      const outcome = await push(
        { ...reach(lab), archive: big.file, images: 'refused:1', 'connect-timeout': '5s', retries: '0' },
        {
          lab,
          onLine: line => {
            if (line.startsWith('n1: ') && line.includes('imported and verified')) {
              void setLink(n3, 'down');
            }
          },
        },
      );
      expect(outcome.nodes.map(node => node.error?.code)).toEqual([undefined, undefined, 'SSH_LOST']);
      expect(outcome.nodes[0]?.bytesSent).toBeGreaterThan(outcome.nodes[2]?.bytesSent ?? Number.POSITIVE_INFINITY);
      expect(outcome.code).toBe(1);
    } finally {
      await setLink(n3, 'up');
      await setRate(n3, undefined);
    }
    // The node could not be told; it learns from its own heartbeat that nobody listens any more, and ends the import.
    await vi.waitUntil(async () => (await leftOnNode(lab)).length === 0, { timeout: 150_000, interval: 1000 });
  }, 300_000);
});

/** A known_hosts line that says that `host` has the key of the lab's node at `keyOf`. */
function knownHost(host: string, keyOf: string): string {
  const line =
    readFileSync(lab.knownHostsFile, 'utf8')
      .split('\n')
      .find(one => one.startsWith(`${keyOf} `)) ?? '';
  return line.replace(keyOf, host);
}

function other(): ReturnType<typeof archive> {
  return archive(directory, { reference: REFERENCE, architecture: 'arm64' });
}

async function truncated(): Promise<string> {
  const { file } = await archive(directory, { reference: REFERENCE, layers: [{ fillBytes: 100_000 }] });
  truncateSync(file, 80_000);
  return file;
}

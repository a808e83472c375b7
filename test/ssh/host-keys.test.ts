import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { hostKeyPolicy } from '../../src/ssh/host-keys.ts';
import { failure, login, serve } from './login.ts';
import { generateKey, KEYS, type TestServer } from './server.ts';

const other = generateKey('ed25519');
const line = (server: TestServer, key: string) => `[127.0.0.1]:${server.target.port} ${key}`;

test('an unknown host key is refused before any login, with its fingerprint and how to get it', async () => {
  const server = await serve();
  const error = await failure(login(server, { hostKeys: hostKeyPolicy({}) }));
  expect(error).toMatchObject({ code: 'SSH_HOST_KEY_UNKNOWN', node: 'worker-1' });
  expect(error.message).toContain(`ssh-ed25519 ${KEYS.ed25519.fingerprint}`);
  expect(error.hint).toContain(`ssh-keyscan -p ${server.target.port} 127.0.0.1`);
  expect(server.received).not.toContain('USERAUTH_REQUEST');
});

test('a changed host key is refused, with the presented and the known fingerprint', async () => {
  const server = await serve();
  const hostKeys = hostKeyPolicy({ knownHosts: `# nodes\n${line(server, other.publicKey)}` });
  const error = await failure(login(server, { hostKeys }));
  expect(error).toMatchObject({ code: 'SSH_HOST_KEY_CHANGED', node: 'worker-1' });
  expect(error.message).toContain(KEYS.ed25519.fingerprint);
  expect(error.message).toContain(`${other.fingerprint} (line 2 of known_hosts)`);
});

test('a host that has lost the key type it is known by has changed', async () => {
  const server = await serve({ hostKeys: [KEYS.rsa] });
  const hostKeys = hostKeyPolicy({ knownHosts: line(server, KEYS.ed25519.publicKey) });
  expect(await failure(login(server, { hostKeys }))).toMatchObject({ code: 'SSH_HOST_KEY_CHANGED' });
});

test('a key of the bare host name does not make another port look changed', async () => {
  const server = await serve();
  const hostKeys = hostKeyPolicy({ knownHosts: `127.0.0.1 ${other.publicKey}` });
  expect(await failure(login(server, { hostKeys }))).toMatchObject({ code: 'SSH_HOST_KEY_UNKNOWN' });
});

test('a revoked key is refused, also when it is known', async () => {
  const server = await serve();
  const hostKeys = hostKeyPolicy({ knownHosts: `${server.knownHosts}@revoked * ${KEYS.ed25519.publicKey}` });
  const error = await failure(login(server, { hostKeys }));
  expect(error.code).toBe('SSH_HOST_KEY_CHANGED');
  expect(error.message).toContain('line 2 of known_hosts revokes');
});

test('a certificate authority proves nothing here, and the transport that takes it is named', async () => {
  const server = await serve();
  const hostKeys = hostKeyPolicy({ knownHosts: `@cert-authority * ${KEYS.ed25519.publicKey}` });
  const error = await failure(login(server, { hostKeys }));
  expect(error.code).toBe('SSH_HOST_KEY_UNKNOWN');
  expect(error.message).toContain('line 1 of known_hosts trusts a certificate authority');
  expect(error.hint).toContain('`ssh-transport: openssh`');
});

test('a hashed entry is accepted', async () => {
  const server = await serve();
  const folder = mkdtempSync(join(tmpdir(), 'ssh-test-'));
  try {
    const file = join(folder, 'known_hosts');
    writeFileSync(file, server.knownHosts);
    execFileSync('ssh-keygen', ['-H', '-f', file], { stdio: 'pipe' });
    const connection = await login(server, { hostKeys: hostKeyPolicy({ knownHosts: readFileSync(file, 'utf8') }) });
    expect(await connection.run(['true'])).toMatchObject({ code: 0 });
  } finally {
    rmSync(folder, { recursive: true });
  }
});

test.each(['ed25519', 'ecdsa', 'rsa'] as const)(
  'a host with keys of all types is accepted by its %s key',
  async kind => {
    const server = await serve({ hostKeys: [KEYS.ecdsa, KEYS.rsa, KEYS.ed25519] });
    const connection = await login(server, {
      hostKeys: hostKeyPolicy({ knownHosts: line(server, KEYS[kind].publicKey) }),
    });
    expect(await connection.run(['true'])).toMatchObject({ code: 0 });
  },
);

test.each([
  ['alone', (sha256: string) => sha256],
  ['with the host', (sha256: string) => `127.0.0.1 ${sha256}`],
  ['as ssh-keygen prints it', (sha256: string) => `256 ${sha256} root@worker (ED25519)`],
])('a fingerprint is enough: %s', async (_, entry) => {
  const server = await serve();
  const hostKeys = hostKeyPolicy({ fingerprints: [other.fingerprint, entry(KEYS.ed25519.fingerprint)] });
  const connection = await login(server, { hostKeys });
  expect(await connection.run(['true'])).toMatchObject({ code: 0 });
});

test('a fingerprint of one host is not good for another', async () => {
  const server = await serve();
  const hostKeys = hostKeyPolicy({ fingerprints: [`10.0.0.1 ${KEYS.ed25519.fingerprint}`] });
  expect(await failure(login(server, { hostKeys }))).toMatchObject({ code: 'SSH_HOST_KEY_UNKNOWN' });
});

test('a fingerprint given for the host that is not its own means that the key has changed', async () => {
  const server = await serve();
  const hostKeys = hostKeyPolicy({ fingerprints: [`127.0.0.1 ${other.fingerprint}`] });
  expect(await failure(login(server, { hostKeys }))).toMatchObject({ code: 'SSH_HOST_KEY_CHANGED' });
});

test.each(['MD5:00:11', 'SHA256:short', 'a b SHA256:x', ''])('a malformed fingerprint is refused: %j', entry => {
  expect(() => hostKeyPolicy({ fingerprints: [entry] })).toThrow(expect.objectContaining({ code: 'INPUT_INVALID' }));
});

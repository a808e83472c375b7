import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { lookup, parseKnownHosts } from '../../src/ssh/known-hosts.ts';
import { KEYS } from './server.ts';

const ed25519 = KEYS.ed25519.publicKey;
const rsa = KEYS.rsa.publicKey;

function typesOf(text: string, host: string, port = 22): readonly string[] {
  return lookup(parseKnownHosts(text), host, port).keys.map(key => key.type);
}

test.each([
  ['a name', 'worker', 'worker', 22, true],
  ['another name', 'worker', 'worker2', 22, false],
  ['case does not matter', 'Worker', 'wORKER', 22, true],
  ['one of several names', 'worker,10.0.0.1', '10.0.0.1', 22, true],
  ['IPv6', 'fe80::1', 'fe80::1', 22, true],
  ['any text', '*.example.com', 'a.b.example.com', 22, true],
  ['any text, other domain', '*.example.com', 'example.org', 22, false],
  ['a dot is a dot', 'a.b', 'axb', 22, false],
  ['one character', 'worker-?', 'worker-1', 22, true],
  ['one character is not two', 'worker-?', 'worker-12', 22, false],
  ['an exception', 'worker-*,!worker-2', 'worker-2', 22, false],
  ['no exception', 'worker-*,!worker-2', 'worker-1', 22, true],
  ['an exception alone matches nothing', '!worker-2', 'worker-1', 22, false],
  ['a pattern that tries everything', `${'*a'.repeat(200)}*b`, 'a'.repeat(250), 22, false],
  ['any text in several places', 'w*-*.example.*', 'worker-1-2.example.com', 22, true],
  ['any text that may be none', 'worker*', 'worker', 22, true],
  ['a pattern that goes on', 'worker*2', 'worker-1', 22, false],
  ['a pattern that is longer than OpenSSH reads', `${'*'.repeat(1024)}`, 'worker', 22, false],
  ['a port', '[worker]:2222', 'worker', 2222, true],
  ['another port', '[worker]:2222', 'worker', 2223, false],
  ['a port is not the default port', '[worker]:2222', 'worker', 22, false],
  ['a pattern with a port', '[*.example.com]:2222', 'a.example.com', 2222, true],
  ['the bare name serves for any port, as in OpenSSH', 'worker', 'worker', 2222, true],
])('a host is found by its pattern: %s', (_, hosts, host, port, isFound) => {
  expect(typesOf(`${hosts} ${ed25519}`, host, port)).toEqual(isFound ? ['ssh-ed25519'] : []);
});

test('an entry with the port wins over one without', () => {
  const found = lookup(parseKnownHosts(`worker ${rsa}\n[worker]:2222 ${ed25519}`), 'worker', 2222);
  expect(found.keys.map(key => key.type)).toEqual(['ssh-ed25519']);
  expect(found.withoutPort).toBe(false);
});

test('names hashed by ssh-keygen -H are found', () => {
  const folder = mkdtempSync(join(tmpdir(), 'ssh-test-'));
  try {
    const file = join(folder, 'known_hosts');
    writeFileSync(file, `worker,10.0.0.1 ${ed25519}\n[other]:2222 ${rsa}\n`);
    execFileSync('ssh-keygen', ['-H', '-f', file], { stdio: 'pipe' });
    const hashed = readFileSync(file, 'utf8');
    expect(hashed).not.toContain('worker');
    expect(typesOf(hashed, 'worker')).toEqual(['ssh-ed25519']);
    expect(typesOf(hashed, '10.0.0.1')).toEqual(['ssh-ed25519']);
    expect(typesOf(hashed, 'other', 2222)).toEqual(['ssh-rsa']);
    expect(typesOf(hashed, 'other')).toEqual([]);
  } finally {
    rmSync(folder, { recursive: true });
  }
});

test('marked lines are no keys of the host, and are told apart', () => {
  const text = `@revoked * ${rsa}\n@cert-authority *.example.com ${ed25519} the CA\n`;
  const found = lookup(parseKnownHosts(text), 'a.example.com', 22);
  expect(found.keys).toEqual([]);
  expect(found.revoked.map(entry => entry.line)).toEqual([1]);
  expect(found.authorities.map(entry => entry.line)).toEqual([2]);
});

test('comments, empty lines, tabs and CRLF are no obstacle', () => {
  expect(typesOf(`# worker:22 SSH-2.0-OpenSSH\r\n\r\n  worker\t${ed25519} comment here\r\n`, 'worker')).toEqual([
    'ssh-ed25519',
  ]);
});

test('every bad line is named by its number', () => {
  const text = [
    'worker',
    `worker ${ed25519}`,
    'worker ssh-ed25519 not*base64',
    `@trusted worker ${ed25519}`,
    `worker ssh-rsa ${ed25519.split(' ')[1]}`,
    `|2|x|y ${ed25519}`,
    `worker ${ed25519.slice(0, -4)}`,
  ].join('\n');
  expect(() => parseKnownHosts(text)).toThrow(
    expect.objectContaining({
      code: 'INPUT_INVALID',
      message: expect.stringMatching(/line 1:.*line 3:.*line 4:.*line 5:.*line 6:.*line 7:/),
    }),
  );
  expect(() => parseKnownHosts(text)).not.toThrow('line 2:');
});

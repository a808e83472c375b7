import { expect, test } from 'vitest';
import type { SideloadError } from '../../src/errors.ts';
import { parsePrivateKey } from '../../src/ssh/key.ts';
import { generateKey } from './server.ts';

const PASSPHRASE = 'correct horse';
const plain = generateKey('ed25519');
const encrypted = generateKey('ed25519', PASSPHRASE);
const encryptedPem = generateKey('rsa', PASSPHRASE, ['-m', 'PEM']);
const { privateKey } = plain;
const lines = privateKey.trimEnd().split('\n');

test.each([
  ['ed25519', plain, undefined],
  ['ed25519 with a passphrase', encrypted, PASSPHRASE],
  ['ecdsa', generateKey('ecdsa'), undefined],
  ['rsa', generateKey('rsa'), undefined],
  ['rsa in PEM format', generateKey('rsa', '', ['-m', 'PEM']), undefined],
  ['rsa in PEM format with a passphrase', encryptedPem, PASSPHRASE],
  ['unencrypted, with a passphrase given needlessly', plain, PASSPHRASE],
])('a key that ssh-keygen made can be used: %s', (_, pair, passphrase) => {
  expect(parsePrivateKey(pair.privateKey, passphrase).fingerprint).toBe(pair.fingerprint);
});

test.each([
  ['CRLF line ends', privateKey.replaceAll('\n', '\r\n')],
  ['no final line break', privateKey.trimEnd()],
  ['blank lines around it', `\n\n${privateKey}\n  \n`],
  ['indented lines', privateKey.replaceAll(/^/gm, '    ')],
  ['a byte order mark', `\uFEFF${privateKey}`],
])('what can be repaired without loss is repaired: %s', (_, text) => {
  expect(parsePrivateKey(text).privateKey).toBe(privateKey);
});

test.each([
  ['empty', '', 'it is empty'],
  ['blank', ' \n ', 'it is empty'],
  ['quoted', `"${privateKey}"`, 'it has quotes around it'],
  ['public key', `${plain.publicKey} me@here`, 'it is a public key'],
  ['public key file of another format', '---- BEGIN SSH2 PUBLIC KEY ----\nAAAA\n', 'it is a public key'],
  ['newlines became spaces', lines.join(' '), 'its line breaks have become spaces'],
  ['newlines are gone', lines.join(''), 'its line breaks have become spaces, or are gone'],
  ['newlines became \\n', lines.join('\\n'), 'its line breaks have become the two characters'],
  ['end cut off', lines.slice(0, -1).join('\n'), 'its end is cut off'],
  ['beginning cut off', lines.slice(1).join('\n'), 'its beginning is cut off'],
  ['a line in the middle is missing', lines.toSpliced(2, 1).join('\n'), 'it is damaged or cut off'],
  ['base64 of the file', Buffer.from(privateKey).toString('base64'), 'it is base64 of a key file'],
  ['a path', '~/.ssh/id_ed25519', 'it is a path'],
  ['something else', 'hunter2', 'it is not a private key'],
  ['text before', `Key:\n${privateKey}`, 'there is other text before its BEGIN line'],
  ['two keys', privateKey + lines.slice(0, 2).join('\n'), 'there is other text after its END line'],
  ['PKCS#8', privateKey.replaceAll('OPENSSH PRIVATE', 'PRIVATE'), 'it is in PKCS#8 format'],
  ['PuTTY 3', 'PuTTY-User-Key-File-3: ssh-ed25519\nEncryption: none\n', 'it is a PuTTY key'],
])('the accident is named: %s', (_, text, expected) => {
  const error = refusal(text);
  expect(error.message).toContain(expected);
  expect(error.code).toBe('SSH_KEY_INVALID');
});

test.each([
  ['missing', encrypted, undefined, 'it is encrypted, and no passphrase was given'],
  ['empty', encrypted, '', 'it is encrypted, and no passphrase was given'],
  ['wrong', encrypted, 'wrong', 'the passphrase is wrong'],
  ['wrong, PEM', encryptedPem, 'wrong', 'the passphrase is wrong'],
  ['missing, PEM', encryptedPem, undefined, 'it is encrypted, and no passphrase was given'],
])('a passphrase that does not fit is named: %s', (_, pair, passphrase, expected) => {
  expect(refusal(pair.privateKey, passphrase).message).toContain(expected);
});

test('a passphrase with a line break that does not belong to it is pointed out', () => {
  expect(refusal(encrypted.privateKey, `${PASSPHRASE}\n`).hint).toContain('line break');
});

const END = '-----END OPENSSH PRIVATE KEY-----';

test.each<[what: string, made: (body: Buffer, at: number) => string]>([
  [
    'by its number of rounds',
    (body, at) => {
      body.writeUInt32BE(0x7fffffff, at);
      return body.toString('base64');
    },
  ],
  [
    'with a number that is one after it',
    (body, at) => {
      const more = Buffer.concat([body.subarray(0, at), Buffer.from('7fffffff', 'hex'), body.subarray(at)]);
      more.writeUInt32BE(more.readUInt32BE(at - 4 - 16 - 4) + 4, at - 4 - 16 - 4);
      return more.toString('base64');
    },
  ],
  // ssh2 reads on to the last line that ends a key, and takes the letters of this one for base64.
  [
    'with a line in it that ends a key',
    (body, at) =>
      `${body.subarray(0, at - (at % 3) - 3).toString('base64')}\n${END}\n${body.subarray(at).toString('base64')}`,
  ],
])('a key whose passphrase would be derived for hours is told before it is: %s', (_, made) => {
  const body = Buffer.from(encrypted.privateKey.replace(/-----[^-]+-----/g, ''), 'base64');
  const at = body.indexOf('bcrypt') + 'bcrypt'.length + 4 + 4 + 16;
  expect(body.readUInt32BE(at)).toBeLessThan(100);
  const error = refusal(`-----BEGIN OPENSSH PRIVATE KEY-----\n${made(body, at)}\n${END}\n`, PASSPHRASE);
  expect(error).toMatchObject({ code: 'SSH_KEY_INVALID', message: expect.stringMatching(/\d{9,} rounds/) });
  expect(error.hint).toContain('ssh-keygen -p -a 100');
});

test.each([
  ['spaces', lines.join(' ')],
  ['damaged', lines.toSpliced(2, 1).join('\n')],
  ['other magic', lines.with(1, Buffer.from('not-the-magic--and-more-of-it').toString('base64')).join('\n')],
])('no part of the key or passphrase is in the error: %s', (_, text) => {
  const error = refusal(text, 'hunter2-secret');
  const said = JSON.stringify([error.message, error.hint, error.stack, String(error.cause)]);
  expect(said).not.toContain('hunter2');
  expect(said).not.toContain('not-the-magic');
  for (const line of lines.slice(1, -1)) expect(said).not.toContain(line.slice(0, 16));
});

function refusal(text: string, passphrase?: string): SideloadError {
  try {
    parsePrivateKey(text, passphrase);
  } catch (error) {
    return error as SideloadError;
  }
  throw new Error('the key was accepted');
}

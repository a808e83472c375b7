import ssh2, { type ParsedKey } from 'ssh2';
import { SideloadError } from '../errors.ts';
import { fingerprint } from './fingerprint.ts';

/** A private key that has been read once, for any number of connections. */
export interface SshCredentials {
  /** The key as text, with the accidents repaired that can be repaired without loss; ends in a line break. */
  readonly privateKey: string;
  readonly passphrase?: string;
  /** Decrypted, so that a slow key derivation runs once and not once per node. */
  readonly key: ParsedKey;
  /** Of the public half, such as `SHA256:…`, to compare with `ssh-keygen -lf ~/.ssh/authorized_keys` on the node. */
  readonly fingerprint: string;
}

const STORE = 'Store the key file whole and unchanged, with its line breaks, in the secret';
const ONE_LINE =
  'the secret must have as many lines as the file. Do not pass it through `echo`, an unquoted variable or JSON';

/**
 * Reads a pasted private key (OpenSSH, PEM, or PuTTY version 2) and says what is wrong with it before any connection.
 * CRLF, a missing final line break and blanks around lines are repaired; what would need a guess is an error.
 *
 * @throws SideloadError `SSH_KEY_INVALID`; no part of the key or passphrase is in the message
 */
export function parsePrivateKey(text: string, passphrase?: string): SshCredentials {
  const trimmed = text.trim();
  const fault = accident(trimmed);
  if (fault !== undefined) throw invalid(...fault);
  const privateKey = repaired(trimmed);
  const rounds = roundsOf(privateKey);
  if (rounds > ROUNDS_MAX) {
    throw invalid(
      `its passphrase is derived in ${rounds} rounds, more than ${ROUNDS_MAX}`,
      'Write a copy with fewer: `ssh-keygen -p -a 100 -f FILE`.',
    );
  }
  const parsed: unknown = ssh2.utils.parseKey(privateKey, passphrase === '' ? undefined : passphrase);
  if (parsed instanceof Error) throw invalid(...refusal(parsed, privateKey, passphrase));
  const key = parsed as ParsedKey | undefined;
  if (key === undefined) throw invalid('there is no key in the file', `${STORE}.`);
  if (!key.isPrivateKey()) throw invalid(...PUBLIC);
  return {
    privateKey,
    ...(passphrase === undefined || passphrase === '' ? {} : { passphrase }),
    key,
    fingerprint: fingerprint(key.getPublicSSH()),
  };
}

/**
 * A private key for OpenSSH's own client, which also reads those of security keys, but cannot ask for a passphrase.
 * @throws SideloadError `SSH_KEY_INVALID`
 */
export function opensshKey(text: string): string {
  const trimmed = text.trim();
  const body = Buffer.from(trimmed.replace(/-----[^-]+-----/g, ''), 'base64');
  const isOfDevice = ['sk-ssh-ed25519@openssh.com', 'sk-ecdsa-sha2-nistp256@openssh.com'].some(type =>
    body.includes(type),
  );
  return isOfDevice && accident(trimmed) === undefined ? repaired(trimmed) : parsePrivateKey(text).privateKey;
}

/** `ssh-keygen -a`: 16 or 24 by default. One takes about 10 ms here, and nothing else runs meanwhile. */
const ROUNDS_MAX = 500;

/** What ssh2 takes for the body of a key in OpenSSH's own format: between the first line that begins one and the last that ends one. */
const OPENSSH_KEY = /^-----BEGIN OPENSSH PRIVATE KEY-----\n([\s\S]+)\n-----END OPENSSH PRIVATE KEY-----\n$/;

/** How often such a key has its passphrase hashed (OpenSSH `PROTOCOL.key`: bcrypt_pbkdf); 0 without one, and in other formats. */
function roundsOf(privateKey: string): number {
  const body = Buffer.from(OPENSSH_KEY.exec(privateKey)?.[1] ?? '', 'base64');
  const magic = 'openssh-key-v1\0';
  if (body.toString('latin1', 0, magic.length) !== magic) return 0;
  const [, kdf, options] = fieldsOf(body.subarray(magic.length), 3);
  if (kdf?.toString('latin1') !== 'bcrypt' || options === undefined) return 0;
  const [salt] = fieldsOf(options, 1);
  const at = 4 + (salt?.length ?? 0);
  return at + 4 <= options.length ? options.readUInt32BE(at) : 0;
}

/** The first fields of SSH's wire format: each has its length before it. */
function fieldsOf(bytes: Buffer, count: number): readonly Buffer[] {
  const fields: Buffer[] = [];
  for (let offset = 0; fields.length < count && offset + 4 <= bytes.length; ) {
    const end = offset + 4 + bytes.readUInt32BE(offset);
    fields.push(bytes.subarray(offset + 4, end));
    offset = end;
  }
  return fields;
}

type Fault = readonly [what: string, hint: string];

const PUBLIC: Fault = [
  'it is a public key, and the private one is needed',
  'Store the file without `.pub` at the end of its name.',
];

function repaired(trimmed: string): string {
  return `${isPutty(trimmed) ? trimmed : trimmed.replace(/[ \t\r]*\n[ \t]*/g, '\n')}\n`;
}

/** What happened to the text on its way, as far as it shows without reading the key. */
function accident(text: string): Fault | undefined {
  if (text === '') return ['it is empty', 'Check the name of the secret, and that this job may read it.'];
  if (/^["']/.test(text)) return ['it has quotes around it', `${STORE}, without quotes.`];
  if (/^(ssh-|ecdsa-|sk-)\S+\s+AAAA/.test(text) || /^-{4,5} ?BEGIN (\S+ )*PUBLIC KEY/.test(text)) return PUBLIC;
  if (text.startsWith('LS0tLS1CRUdJTi')) return ['it is base64 of a key file', `${STORE}, not encoded.`];
  if (isPutty(text)) return undefined;
  const begin = text.indexOf('-----BEGIN ');
  if (begin < 0) {
    if (/^[~./]\S*$/.test(text) && text.length < 256) {
      return ['it is a path, and the content of the file is needed', `${STORE}.`];
    }
    if (text.includes('-----END ')) return ['its beginning is cut off: there is no BEGIN line', `${STORE}.`];
    return ['it is not a private key', `${STORE}: its first line is \`-----BEGIN OPENSSH PRIVATE KEY-----\`.`];
  }
  if (begin > 0) return ['there is other text before its BEGIN line', `${STORE}, and nothing else.`];
  if (text.includes('\\n')) return ['its line breaks have become the two characters `\\n`', `${STORE}: ${ONE_LINE}.`];
  if (/^-----BEGIN [A-Z0-9 ]+-----[^\r\n]/.test(text)) {
    return ['its line breaks have become spaces, or are gone', `${STORE}: ${ONE_LINE}.`];
  }
  if (!/-----END [A-Z0-9 ]+-----/.test(text)) {
    return [
      'its end is cut off: there is no END line',
      `${STORE}; a shell variable or a form may have kept only a part.`,
    ];
  }
  if (!/-----END [A-Z0-9 ]+-----$/.test(text))
    return ['there is other text after its END line', `${STORE}, and nothing else.`];
  if (/^-----BEGIN (ENCRYPTED )?PRIVATE KEY-----/.test(text)) {
    return [
      'it is in PKCS#8 format',
      'Convert a copy with `ssh-keygen -p -f FILE`, which writes OpenSSH’s own format.',
    ];
  }
  return undefined;
}

function isPutty(text: string): boolean {
  return text.startsWith('PuTTY-User-Key-File-');
}

/** Why ssh2 refused the key. Its own messages can quote what it read, so none of them is passed on. */
function refusal(error: Error, text: string, passphrase: string | undefined): Fault {
  const reason = error.message;
  if (/no passphrase given/.test(reason)) {
    return ['it is encrypted, and no passphrase was given', 'Pass the passphrase in `ssh-key-passphrase`.'];
  }
  if (/Unsupported (OpenSSH private )?key type/.test(reason)) {
    return [
      'keys of this type cannot be used; a security key (FIDO) needs its device',
      'Use an ed25519, ecdsa or rsa key: `ssh-keygen -t ed25519`.',
    ];
  }
  if (isPutty(text) && reason === 'Unsupported key format') {
    return [
      'it is a PuTTY key of a kind that cannot be read',
      'Convert it with `puttygen KEY.ppk -O private-openssh -o KEY`.',
    ];
  }
  const isEncrypted =
    /passphrase/.test(reason) || /^(DEK-Info:|Encryption: aes)/m.test(text) || /decrypt/i.test(reason);
  if (isEncrypted && passphrase !== undefined) {
    return [
      'the passphrase is wrong',
      /\s$/.test(passphrase)
        ? 'The passphrase given ends in a blank or a line break, which may not belong to it.'
        : 'Try it with `ssh-keygen -y -f FILE`.',
    ];
  }
  if (/[Cc]ipher|kdf/.test(reason)) {
    return ['its encryption is not supported', 'Convert a copy with `ssh-keygen -p -Z aes256-ctr -f FILE`.'];
  }
  return [
    'it is damaged or cut off between its first and last line',
    `${STORE}, and try it with \`ssh-keygen -y -f FILE\`.`,
  ];
}

function invalid(what: string, hint: string): SideloadError {
  return new SideloadError('SSH_KEY_INVALID', `The SSH private key cannot be used: ${what}`, { hint });
}

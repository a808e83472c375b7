import { createHash } from 'node:crypto';

/** The fingerprint of a public key in SSH wire format (RFC 4253, 6.6), as `ssh-keygen -l` prints it: `SHA256:…`. */
export function fingerprint(publicKey: Buffer): string {
  return `SHA256:${createHash('sha256').update(publicKey).digest('base64').replace(/=+$/, '')}`;
}

/** The type that a public key in SSH wire format says it has, such as `ssh-ed25519`; empty when there is none. */
export function keyType(publicKey: Buffer): string {
  if (publicKey.length < 4) return '';
  const length = publicKey.readUInt32BE(0);
  return length <= 64 && publicKey.length >= 4 + length ? publicKey.toString('latin1', 4, 4 + length) : '';
}

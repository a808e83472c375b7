import { createHash } from 'node:crypto';

/** The fingerprint of a public key in SSH wire format (RFC 4253, 6.6), as `ssh-keygen -l` prints it: `SHA256:…`. */
export function fingerprint(publicKey: Buffer): string {
  return `SHA256:${createHash('sha256').update(publicKey).digest('base64').replace(/=+$/, '')}`;
}

/**
 * The type that a public key in SSH wire format says it has, such as `ssh-ed25519`; empty when it is not one. The
 * format is nothing but strings with their lengths before them, so a key that is cut off shows.
 */
export function keyType(publicKey: Buffer): string {
  let type: string | undefined;
  let position = 0;
  while (position + 4 <= publicKey.length) {
    const end = position + 4 + publicKey.readUInt32BE(position);
    type ??= publicKey.toString('latin1', 4, end);
    position = end;
  }
  return position === publicKey.length ? (type ?? '') : '';
}

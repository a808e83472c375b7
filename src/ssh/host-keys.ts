import { SideloadError } from '../errors.ts';
import { fingerprint, keyType } from './fingerprint.ts';
import { type KnownHostsEntry, lookup, parseKnownHosts } from './known-hosts.ts';

/** The host key algorithms that a policy may ask for, best first. `ssh-rsa` is absent: it signs with SHA-1. */
const ALGORITHMS = [
  'ssh-ed25519',
  'ecdsa-sha2-nistp256',
  'ecdsa-sha2-nistp384',
  'ecdsa-sha2-nistp521',
  'rsa-sha2-512',
  'rsa-sha2-256',
] as const;
type HostKeyAlgorithm = (typeof ALGORITHMS)[number];

interface HostName {
  /** The node as the user named it, for errors; undefined for a jump host. */
  readonly label: string | undefined;
  readonly host: string;
  readonly port: number;
}

/** Decides whether a node is the one that it should be. */
export interface HostKeyPolicy {
  /**
   * Host key algorithms in the order to ask for. Types that known_hosts has for the host come first, as in OpenSSH:
   * a host that is known by its ed25519 key must not look changed because it also has an ecdsa key.
   */
  algorithms(node: HostName): readonly HostKeyAlgorithm[];
  /**
   * Returns when the presented key (SSH wire format) is the right one.
   * @throws SideloadError `SSH_HOST_KEY_UNKNOWN` or `SSH_HOST_KEY_CHANGED`
   */
  verify(node: HostName, presented: Buffer): void;
}

interface KnownFingerprint {
  /** Absent: good for every node. */
  readonly host?: string;
  readonly fingerprint: string;
}

/**
 * A policy out of what the user knows. A key is accepted when known_hosts has it for the host, or when a fingerprint
 * is its own; nothing else is accepted, and a revoked key never.
 *
 * @param known.knownHosts text in OpenSSH's known_hosts format, or what has been read of it
 * @param known.fingerprints each `SHA256:…`, `HOST SHA256:…` or a line of `ssh-keygen -l`
 * @throws SideloadError `INPUT_INVALID` for text that cannot be read
 */
export function hostKeyPolicy(known: {
  readonly knownHosts?: string | readonly KnownHostsEntry[] | undefined;
  readonly fingerprints?: readonly string[] | undefined;
}): HostKeyPolicy {
  const { knownHosts = '' } = known;
  const entries = typeof knownHosts === 'string' ? parseKnownHosts(knownHosts) : knownHosts;
  const fingerprints = parseFingerprints(known.fingerprints ?? []);
  return {
    algorithms({ host, port }) {
      const types = new Set(lookup(entries, host, port).keys.map(key => key.type));
      const isKnown = (name: HostKeyAlgorithm) => types.has(name.startsWith('rsa-') ? 'ssh-rsa' : name);
      return [...ALGORITHMS.filter(isKnown), ...ALGORITHMS.filter(name => !isKnown(name))];
    },
    verify: (node, presented) => verify(node, presented, entries, fingerprints),
  };
}

function verify(
  node: HostName,
  presented: Buffer,
  entries: readonly KnownHostsEntry[],
  fingerprints: readonly KnownFingerprint[],
): void {
  const found = lookup(entries, node.host, node.port);
  const key = presented.toString('base64');
  const shown = `${keyType(presented)} ${fingerprint(presented)}`;
  const address = `${node.label === undefined ? 'the jump host ' : ''}${node.port === 22 ? node.host : `[${node.host}]:${node.port}`}`;
  const isPresented = (entry: KnownHostsEntry) => entry.key === key;

  const revoked = found.revoked.find(isPresented);
  if (revoked !== undefined) {
    throw new SideloadError(
      'SSH_HOST_KEY_CHANGED',
      `${address} shows the host key ${shown}, which line ${revoked.line} of ${revoked.file} revokes`,
      { node: node.label, hint: 'Do not connect: a revoked key is in the hands of others. Give the node a new one.' },
    );
  }
  if (found.keys.some(isPresented)) return;
  const names = [node.host, `${node.host}:${node.port}`, `[${node.host}]:${node.port}`].map(name => name.toLowerCase());
  const own = fingerprints.filter(({ host }) => host === undefined || names.includes(host));
  if (own.some(entry => entry.fingerprint === fingerprint(presented))) return;

  const named = own.filter(({ host }) => host !== undefined);
  if ((found.keys.length > 0 && !found.withoutPort) || named.length > 0) {
    const known = [
      ...(found.withoutPort ? [] : found.keys).map(
        entry => `${entry.type} ${fingerprint(Buffer.from(entry.key, 'base64'))} (line ${entry.line} of ${entry.file})`,
      ),
      ...named.map(entry => entry.fingerprint),
    ];
    throw new SideloadError(
      'SSH_HOST_KEY_CHANGED',
      `${address} shows the host key ${shown}, but is known by ${known.join(', ')}`,
      { node: node.label, hint: changedHint(node, named.length > 0 ? undefined : found.keys[0]) },
    );
  }
  const unknown = `${address} shows an unknown host key: ${shown}`;
  const authority = found.authorities[0];
  if (authority !== undefined) {
    throw new SideloadError(
      'SSH_HOST_KEY_UNKNOWN',
      `${unknown}; line ${authority.line} of ${authority.file} trusts a certificate authority for it, and host certificates can be checked by \`ssh-transport: openssh\` alone`,
      {
        node: node.label,
        hint: `Set \`ssh-transport: openssh\`, or add the line of the host’s own key (\`ssh-keyscan -p ${node.port} ${node.host}\`) after comparing its fingerprint.`,
      },
    );
  }
  throw new SideloadError('SSH_HOST_KEY_UNKNOWN', unknown, {
    node: node.label,
    hint: `Run \`ssh-keyscan -p ${node.port} ${node.host}\`, add its output to \`ssh-known-hosts\`, and compare the fingerprint above with \`ssh-keygen -lf\` of the key file in /etc/ssh on the node itself.`,
  });
}

/** A line is taken out only by who knows that the node was given another key. */
function changedHint({ host, port }: HostName, entry: KnownHostsEntry | undefined): string {
  const place = entry === undefined ? '`ssh-host-key-fingerprints`' : `line ${entry.line} of ${entry.file}`;
  return `Find out why before anything else: a reinstalled node, or somebody in between. If it is the node’s own (\`ssh-keygen -lf\` of the key file in /etc/ssh there), correct ${place}, for a line with the output of \`ssh-keyscan -p ${port} ${host}\`.`;
}

function parseFingerprints(lines: readonly string[]): readonly KnownFingerprint[] {
  return lines.map(line => {
    // `ssh-keygen -l` prints: bits, fingerprint, comment, (TYPE).
    const content = line.trim().replace(/^\d+ (SHA256:\S+) .*\([A-Z0-9-]+\)$/, '$1');
    const [, host, sha256] = /^(?:(\S+)[ \t]+)?(SHA256:[A-Za-z0-9+/]{43})=?$/.exec(content) ?? [];
    if (sha256 === undefined) {
      throw new SideloadError('INPUT_INVALID', `Not a host key fingerprint: ${JSON.stringify(line)}`, {
        hint: 'Write `SHA256:…` or `HOST SHA256:…`, as `ssh-keygen -lf` of a key file in /etc/ssh on the node prints it.',
      });
    }
    return host === undefined ? { fingerprint: sha256 } : { host: host.toLowerCase(), fingerprint: sha256 };
  });
}

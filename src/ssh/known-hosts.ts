import { createHmac } from 'node:crypto';
import { SideloadError } from '../errors.ts';
import { keyType } from './fingerprint.ts';

export interface KnownHostsEntry {
  /** What the line is in: a path, or the name of an input. */
  readonly file: string;
  /** Line number in the text, from 1. */
  readonly line: number;
  readonly marker?: 'revoked' | 'cert-authority';
  /** The comma-separated host field as it stands in the file, patterns and hashes alike. */
  readonly hosts: string;
  /** Such as `ssh-ed25519`. */
  readonly type: string;
  /** The public key in SSH wire format, base64. */
  readonly key: string;
}

/** What known_hosts says about one host. */
export interface KnownKeys {
  readonly keys: readonly KnownHostsEntry[];
  /** The keys are those of the host without the port: they can confirm a key, and cannot show that it has changed. */
  readonly withoutPort: boolean;
  readonly revoked: readonly KnownHostsEntry[];
  /** `@cert-authority` lines. ssh2 has no host certificates: these match nothing, and errors mention them. */
  readonly authorities: readonly KnownHostsEntry[];
}

/**
 * Reads OpenSSH's known_hosts format: sshd(8), "SSH_KNOWN_HOSTS FILE FORMAT".
 *
 * @param file a path or the name of the input, for errors
 * @param onFault told of each line that cannot be read, which is then left out, as OpenSSH itself does
 * @throws SideloadError `INPUT_INVALID` that names every bad line by its number, when nobody is to be told
 */
export function parseKnownHosts(
  text: string,
  file = 'known_hosts',
  onFault?: (fault: string) => void,
): readonly KnownHostsEntry[] {
  const entries: KnownHostsEntry[] = [];
  const faults: string[] = [];
  for (const [index, raw] of text.split(/\r?\n/).entries()) {
    const content = raw.trim();
    if (content === '' || content.startsWith('#')) continue;
    const entry = parseLine(content, file, index + 1);
    if (typeof entry === 'string') faults.push(`line ${index + 1}: ${entry}`);
    else entries.push(entry);
  }
  for (const fault of onFault === undefined ? [] : faults) onFault?.(fault);
  if (onFault === undefined && faults.length > 0) {
    throw new SideloadError('INPUT_INVALID', `known_hosts cannot be read: ${faults.join('; ')} (in ${file})`, {
      hint: 'Take the lines from `ssh-keyscan -p PORT HOST`, each as one line `HOST TYPE KEY`.',
    });
  }
  return entries;
}

function parseLine(content: string, file: string, line: number): KnownHostsEntry | string {
  const fields = content.split(/[ \t]+/);
  const marker = fields[0]?.startsWith('@') ? fields.shift() : undefined;
  if (marker !== undefined && marker !== '@revoked' && marker !== '@cert-authority') return `unknown marker ${marker}`;
  const [hosts, type, key] = fields;
  if (hosts === undefined || type === undefined || key === undefined) return 'host, key type and key are expected';
  if (hosts.startsWith('|') && !/^\|1\|[A-Za-z0-9+/]+=*\|[A-Za-z0-9+/]+=*$/.test(hosts)) {
    return 'the hashed host name is not of the form |1|salt|hash';
  }
  const blob = Buffer.from(key, 'base64');
  if (blob.toString('base64').replace(/=+$/, '') !== key.replace(/=+$/, '')) return 'the key is not base64';
  if (keyType(blob) !== type) return `the key is not of the type ${type}, or is cut off`;
  const entry = { file, line, hosts, type, key: blob.toString('base64') };
  if (marker === undefined) return entry;
  return { ...entry, marker: marker === '@revoked' ? 'revoked' : 'cert-authority' };
}

/**
 * The entries that apply to a host. As OpenSSH does (`sshconnect.c`, `check_host_key`), a host on another port than 22
 * is looked up as `[host]:port`, and as the bare host when there is no such entry.
 */
export function lookup(entries: readonly KnownHostsEntry[], host: string, port: number): KnownKeys {
  const bare = entries.filter(entry => matches(entry.hosts, host));
  const exact = port === 22 ? bare : entries.filter(entry => matches(entry.hosts, `[${host}]:${port}`));
  const plain = (entry: KnownHostsEntry) => entry.marker === undefined;
  const withoutPort = port !== 22 && !exact.some(plain);
  const both = [...new Set([...exact, ...bare])];
  return {
    keys: (withoutPort ? bare : exact).filter(plain),
    withoutPort,
    revoked: both.filter(entry => entry.marker === 'revoked'),
    authorities: both.filter(entry => entry.marker === 'cert-authority'),
  };
}

function matches(hosts: string, name: string): boolean {
  const host = name.toLowerCase();
  if (hosts.startsWith('|')) {
    const [, , salt = '', hash] = hosts.split('|');
    return createHmac('sha1', Buffer.from(salt, 'base64')).update(host).digest('base64') === hash;
  }
  let found = false;
  for (const pattern of hosts.toLowerCase().split(',')) {
    const negated = pattern.startsWith('!');
    if (!fits(negated ? pattern.slice(1) : pattern, host)) continue;
    if (negated) return false;
    found = true;
  }
  return found;
}

/** OpenSSH reads a pattern into a buffer of 1024 bytes, and none fits that has more (`match.c`, `match_pattern_list`). */
const PATTERN_MAX_CHARACTERS = 1023;

/** Whether a name is one that a pattern with `*` and `?` means. What the last `*` stands for grows; none before it is tried anew. */
function fits(pattern: string, name: string): boolean {
  if (pattern.length > PATTERN_MAX_CHARACTERS) return false;
  let star: { readonly at: number; from: number } | undefined;
  let at = 0;
  for (let index = 0; index < name.length; ) {
    if (pattern[at] === '*') {
      star = { at, from: index };
      at += 1;
    } else if (pattern[at] === '?' || pattern[at] === name[index]) {
      at += 1;
      index += 1;
    } else if (star === undefined) return false;
    else {
      star.from += 1;
      at = star.at + 1;
      index = star.from;
    }
  }
  return /^\**$/.test(pattern.slice(at));
}

/** A member of a tar archive. */
export interface TarEntry {
  /** Without a leading slash. */
  readonly path: string;
  readonly mode?: number;
  readonly content?: Uint8Array;
  /** A symbolic link's target, for a link. */
  readonly link?: string;
  readonly type?: 'file' | 'directory' | 'link';
}

const block = 512;

/** A member's header block, POSIX ustar: everything as root's and of one time, so that equal content has equal digests. */
export function tarHeader(entry: TarEntry, sizeBytes: number): Uint8Array {
  const header = Buffer.alloc(block);
  const type = entry.type ?? (entry.link === undefined ? 'file' : 'link');
  const [name, prefix] = split(type === 'directory' && !entry.path.endsWith('/') ? `${entry.path}/` : entry.path);
  header.write(name, 0);
  header.write(octal(entry.mode ?? (type === 'directory' ? 0o755 : 0o644), 8), 100);
  header.write(octal(0, 8), 108);
  header.write(octal(0, 8), 116);
  header.write(octal(sizeBytes, 12), 124);
  header.write(octal(0, 12), 136);
  header.write(' '.repeat(8), 148);
  header.write(type === 'file' ? '0' : type === 'directory' ? '5' : '2', 156);
  if (entry.link !== undefined) header.write(entry.link, 157);
  header.write('ustar\x0000', 257);
  header.write(prefix, 345);
  header.write(
    `${header
      .reduce((sum, byte) => sum + byte, 0)
      .toString(8)
      .padStart(6, '0')}\0 `,
    148,
  );
  return header;
}

/** What fills a member up to a whole block. */
export function tarPadding(sizeBytes: number): Uint8Array {
  return Buffer.alloc((block - (sizeBytes % block)) % block);
}

/** The two empty blocks at an archive's end. */
export const tarEnd: Uint8Array = Buffer.alloc(2 * block);

/** A whole archive of small members. */
export function tar(entries: readonly TarEntry[]): Buffer {
  const parts: Uint8Array[] = [];
  for (const entry of entries) {
    const content = entry.content ?? new Uint8Array();
    parts.push(tarHeader(entry, content.length), content, tarPadding(content.length));
  }
  return Buffer.concat([...parts, tarEnd]);
}

function octal(value: number, width: number): string {
  return `${value.toString(8).padStart(width - 1, '0')}\0`;
}

function split(path: string): [name: string, prefix: string] {
  if (Buffer.byteLength(path) <= 100) return [path, ''];
  const cut = path.lastIndexOf('/', 154);
  const [prefix, name] = [path.slice(0, cut), path.slice(cut + 1)];
  if (cut <= 0 || Buffer.byteLength(name) > 100) throw new Error(`too long for ustar: ${path}`);
  return [name, prefix];
}

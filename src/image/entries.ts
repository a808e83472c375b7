import { posix } from 'node:path';
import { Readable } from 'node:stream';
import { SideloadError } from '../errors.ts';
import type { StoredContent } from './scratch.ts';

/** Registries refuse bigger manifests; a config is smaller by far. Anything above is not metadata. */
export const METADATA_MAX_BYTES = 4 << 20;
/** How much metadata one source may have in memory. */
export const METADATA_TOTAL_MAX_BYTES = 16 * METADATA_MAX_BYTES;

/** A file of an archive. */
export interface ArchiveFile {
  readonly sizeBytes: number;
  open(): Readable;
  /** Set when the archive came as a stream: its content was stored while it passed. */
  readonly stored?: StoredContent;
}

/** What an archive holds, by name; names are keys here and never become paths on the disk. */
export interface ArchiveEntries {
  readonly files: ReadonlyMap<string, ArchiveFile>;
  /** Names of symbolic and hard links with the entry that each points at. */
  readonly links: ReadonlyMap<string, string>;
  /** How the archive is called in messages. */
  readonly label: string;
  readonly sizeBytes: number;
  /** False when the archive stops without the end mark of a tar: what is missing then was cut off. */
  readonly ended: boolean;
}

/** One spelling for each name: no leading `./` or `/`, no `.` and `..` inside. */
export function entryName(name: string): string {
  return posix.normalize(name).replace(/^\/+|\/+$/g, '');
}

/**
 * The entry that a link points at: a symbolic one from its own folder, a hard one from the root of the archive.
 * @param target null when the header names none, which tar-stream's types do not know
 */
export function linkTarget(type: 'symlink' | 'link', name: string, target: string | null | undefined): string {
  if (!target) return '';
  return entryName(type === 'link' ? target : posix.join(posix.dirname(name), target));
}

/** The file of a name, through links (podman writes `ID/layer.tar` as one), or undefined. */
export function findFile({ files, links }: ArchiveEntries, name: string): ArchiveFile | undefined {
  let key: string | undefined = entryName(name);
  for (let hops = 0; key !== undefined && hops < 8; hops += 1) {
    const file = files.get(key);
    if (file !== undefined) return file;
    key = links.get(key);
  }
  return undefined;
}

/**
 * The error for content that a manifest names and the archive lacks: an archive that was cut off is another fault than
 * one that was written without it.
 */
export function missingFrom({ label, ended, sizeBytes }: ArchiveEntries, what: string): SideloadError {
  return ended
    ? new SideloadError('ARCHIVE_INCOMPLETE', `${label} lacks ${what}`)
    : new SideloadError('ARCHIVE_INVALID', `${label} ends after ${sizeBytes} bytes, before ${what}`);
}

/**
 * Reads a small file of an archive whole.
 * @throws SideloadError ARCHIVE_INVALID when it is too big to be metadata.
 */
export async function readMetadata(label: string, name: string, file: ArchiveFile): Promise<Buffer> {
  if (file.sizeBytes > METADATA_MAX_BYTES || file.stored !== undefined) {
    throw new SideloadError(
      'ARCHIVE_INVALID',
      `${name} in ${label} is not JSON of at most ${METADATA_MAX_BYTES} bytes`,
    );
  }
  const chunks: Buffer[] = [];
  for await (const chunk of file.open() as AsyncIterable<Buffer>) chunks.push(chunk);
  return Buffer.concat(chunks);
}

/** Reads small files of one archive. */
export type MetadataReader = (name: string, file: ArchiveFile) => Promise<Buffer>;

/**
 * Reads each file once, whoever names it and how often, and no more than {@link METADATA_TOTAL_MAX_BYTES} of all.
 * The reader throws what {@link readMetadata} throws, and the signal's reason.
 */
export function metadataReader(label: string, signal: AbortSignal): MetadataReader {
  const known = new Map<ArchiveFile, Promise<Buffer>>();
  let totalBytes = 0;
  return (name, file) => {
    signal.throwIfAborted();
    let bytes = known.get(file);
    if (bytes === undefined) {
      totalBytes += file.sizeBytes;
      if (totalBytes > METADATA_TOTAL_MAX_BYTES) {
        throw new SideloadError('ARCHIVE_INVALID', `${label} has more than ${METADATA_TOTAL_MAX_BYTES} bytes of JSON`);
      }
      bytes = readMetadata(label, name, file);
      known.set(file, bytes);
    }
    return bytes;
  };
}

/** A file that is in memory. Its readers get copies, whose memory they may give back. */
export function memoryFile(bytes: Buffer): ArchiveFile {
  return { sizeBytes: bytes.length, open: () => Readable.from([Buffer.from(bytes)], { objectMode: false }) };
}

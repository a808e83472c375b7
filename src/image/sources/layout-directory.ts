import { readdir, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { SideloadError } from '../../errors.ts';
import type { ArchiveEntries, ArchiveFile } from '../entries.ts';
import { openRange } from '../tar-file.ts';

const BLOBS = 'blobs/sha256';
/** Hundreds of images have some ten thousand. */
const BLOBS_MAX = 100_000;

/**
 * Lists an image layout that lies unpacked in a directory (OCI image-spec, image layout; also what `docker save`
 * wrote, unpacked). Blobs stay where they are and are read when they are asked for.
 * @throws SideloadError ARCHIVE_INVALID when it is no layout.
 */
export async function readLayoutDirectory(
  directory: string,
  label: string,
  signal: AbortSignal,
): Promise<ArchiveEntries> {
  const files = new Map<string, ArchiveFile>();
  for (const name of ['index.json', 'manifest.json', 'oci-layout']) await addFile(files, directory, name);
  if (!files.has('index.json') && !files.has('manifest.json')) {
    const copied = files.size === 0 ? '' : ' any more';
    throw new SideloadError(
      'ARCHIVE_INVALID',
      `${label} is a directory, and no image layout${copied}: index.json is missing`,
      {
        hint: 'Name the directory that has `oci-layout` and `index.json` in it, or an archive file.',
      },
    );
  }
  const blobs = await readdir(join(directory, BLOBS)).catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT' || error.code === 'ENOTDIR') return []; // then every blob is missing
    throw new SideloadError('ARCHIVE_INVALID', `${label} cannot be read: ${error.message}`, { cause: error });
  });
  if (blobs.length > BLOBS_MAX) {
    throw new SideloadError('ARCHIVE_INVALID', `${label} has ${blobs.length} blobs, more than ${BLOBS_MAX}`);
  }
  for (const name of blobs) {
    signal.throwIfAborted();
    await addFile(files, directory, `${BLOBS}/${name}`);
  }
  const sizeBytes = [...files.values()].reduce((sum, file) => sum + file.sizeBytes, 0);
  return { files, links: new Map(), label, sizeBytes, ended: true };
}

/**
 * Through symbolic links: Bazel's layouts consist of them, and lead out of the directory. Whatever file of the machine is
 * behind one is read as far as it had a size (those of /proc have none, and some of them never end), is no use but as content
 * of the digest that it is named by, and is quoted in no error.
 */
async function addFile(files: Map<string, ArchiveFile>, directory: string, name: string): Promise<void> {
  const path = join(directory, name);
  const info = await stat(path).catch(() => undefined);
  if (info?.isFile() !== true) return;
  files.set(name, {
    sizeBytes: info.size,
    open: () => openRange(path, 0, info.size),
  });
}

import { access, constants, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { messageOf, SideloadError } from '../../errors.ts';
import { chainIds } from '../chain-id.ts';
import { type Digest, digestOf, hexOf } from '../digest.ts';
import { type ArchiveEntries, type ArchiveFile, memoryFile } from '../entries.ts';
import { joinTar } from '../tar-split.ts';

/** The storage driver whose directories are read: one for each layer, with what that layer changes. */
const DRIVER = 'overlay2';

/** Where the classic store is, by the place of one of its layers (`GraphDriver.Data.UpperDir` of an image). */
export function dockerRootOf(upperDirectory: string): string | undefined {
  return /^(\/.*)\/overlay2\/[^/]+\/diff$/.exec(upperDirectory)?.[1];
}

/**
 * An image in Docker's classic store, with its layers read where they lie. `docker save` writes all of them to the disk
 * first, and `docker push` compresses those that it has never pushed; here a layer that nobody asks for costs nothing.
 * Nothing of it is taken on trust: the config and the layers are proven by the digests that the engine has told.
 * @param root Docker's own directory, `/var/lib/docker` as a rule
 * @returns undefined when the image is not there, or may not be read by this user, as is usual for all but root
 */
export async function readDockerStore(
  root: string,
  image: { readonly imageId: Digest; readonly diffIds: readonly Digest[] },
  label: string,
): Promise<ArchiveEntries | undefined> {
  // Files in the layers belong to anybody, and may be closed to others than root.
  if (process.geteuid?.() !== 0) return undefined;
  try {
    const config = await readFile(join(root, 'image', DRIVER, 'imagedb', 'content', 'sha256', hexOf(image.imageId)));
    if (digestOf(config) !== image.imageId) return undefined;
    const chain = chainIds(image.diffIds);
    const layers = await Promise.all(
      image.diffIds.map(async (diffId, index): Promise<readonly [string, ArchiveFile]> => {
        const file = await layerFile(root, chain[index] ?? diffId, diffId, label);
        return [`${hexOf(diffId)}/layer.tar`, file];
      }),
    );
    const configName = `${hexOf(image.imageId)}.json`;
    const manifest = [{ Config: configName, RepoTags: [], Layers: layers.map(([name]) => name) }];
    const files = new Map([
      ['manifest.json', memoryFile(Buffer.from(JSON.stringify(manifest)))],
      [configName, memoryFile(config)],
      ...layers,
    ]);
    const sizeBytes = [...files.values()].reduce((sum, file) => sum + file.sizeBytes, 0);
    return { files, links: new Map(), label, sizeBytes, ended: true };
  } catch (error) {
    if (typeof (error as NodeJS.ErrnoException).code === 'string') return undefined; // of the file system
    throw error;
  }
}

/**
 * One layer (moby: `layer/filestore.go`): `cache-id` names its directory, `tar-split.json.gz` has what a tar has besides
 * files.
 */
async function layerFile(root: string, chainId: Digest, diffId: Digest, label: string): Promise<ArchiveFile> {
  const record = join(root, 'image', DRIVER, 'layerdb', 'sha256', hexOf(chainId));
  const [cacheId, size] = await Promise.all(['cache-id', 'size'].map(name => readFile(join(record, name), 'utf8')));
  const metadata = join(record, 'tar-split.json.gz');
  const directory = join(root, DRIVER, `${cacheId}`.trim(), 'diff');
  await Promise.all([metadata, directory].map(path => access(path, constants.R_OK)));
  // Chunk by chunk: a stream of bytes would hand out what waits in it as one copy.
  const open = () => Readable.from(told(joinTar(metadata, directory), diffId, label), { highWaterMark: 1 });
  // Of the files alone: how long the tar is, only joining it tells.
  return { sizeBytes: Number(size), open };
}

/** What cannot be read of a layer that was there is somebody's doing, who removed the image, say. */
async function* told(chunks: AsyncGenerator<Buffer>, diffId: Digest, label: string): AsyncGenerator<Buffer> {
  try {
    yield* chunks;
  } catch (error) {
    throw new SideloadError(
      'SOURCE_UNAVAILABLE',
      `the layer ${diffId} of ${label} cannot be read: ${messageOf(error)}`,
      {
        hint: 'Look whether something removes images on the runner meanwhile, and run the job again.',
        cause: error,
      },
    );
  }
}

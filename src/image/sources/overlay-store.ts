import { readFile, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { messageOf, SideloadError } from '../../errors.ts';
import { chainIds } from '../chain-id.ts';
import { type Digest, digestOf, hexOf, parseDigest } from '../digest.ts';
import { type ArchiveEntries, type ArchiveFile, memoryFile } from '../entries.ts';
import { asList, asObject } from '../json.ts';
import { joinTar } from '../tar-split.ts';
import type { Inspection } from './inspection.ts';

/** What a store has of a layer besides its directory. */
interface LayerRecord {
  /** The tar-split file: what a tar has besides the content of files. */
  readonly metadata: string;
  /** About the size of the tar. */
  readonly sizeBytes: number;
}

/** What a layer is called in a store: by itself, as in `ROOT/DRIVER/ID/diff`, and by all that lie below it. */
interface LayerName {
  readonly id: string;
  readonly chainId: Digest;
}

/** Where a store has what. */
interface Store {
  config(root: string, imageId: Digest): string;
  /** Reads once what it has of all layers, and answers for each. */
  open(root: string): Promise<(layer: LayerName) => LayerRecord | Promise<LayerRecord>>;
}

/** By the name of the storage driver's directory. */
const STORES: ReadonlyMap<string, Store> = new Map([
  // Docker's classic store (moby: `image/fs.go`, `layer/filestore.go`).
  [
    'overlay2',
    {
      config: (root, imageId) => join(root, 'image', 'overlay2', 'imagedb', 'content', 'sha256', hexOf(imageId)),
      open:
        async root =>
        async ({ chainId }) => {
          const directory = join(root, 'image', 'overlay2', 'layerdb', 'sha256', hexOf(chainId));
          const sizeBytes = Number(await readFile(join(directory, 'size'), 'utf8'));
          return { metadata: join(directory, 'tar-split.json.gz'), sizeBytes };
        },
    },
  ],
  // That of podman, buildah and CRI-O (containers/storage: `images.go`, `layers.go`).
  [
    'overlay',
    {
      config: (root, imageId) =>
        join(root, 'overlay-images', hexOf(imageId), `=${Buffer.from(imageId).toString('base64')}`),
      async open(root) {
        const directory = join(root, 'overlay-layers');
        const layers = asList(JSON.parse(await readFile(join(directory, 'layers.json'), 'utf8'))).map(asObject);
        const sizes = new Map(layers.map(layer => [layer.id, Number(layer['diff-size'])]));
        return ({ id }) => ({
          metadata: join(directory, `${id}.tar-split.gz`),
          sizeBytes: sizes.get(id) ?? Number.NaN,
        });
      },
    },
  ],
]);

/**
 * Reads an image where its engine has it, if this job may read the engine's files. A layer is then put together when somebody
 * asks for it, and costs nothing else: `docker save` writes all of them to the disk first, `podman save` writes all of them,
 * and a push compresses what it has not pushed before.
 *
 * Nothing is taken on trust: config and layers are proven by the digests that the engine has told. So it does not matter
 * whether these are the files of that engine, or those of another one at the same place.
 * @returns undefined when the image is not there, or this job may not read every file
 */
export async function readInPlace(
  engine: string,
  reference: string,
  { imageId, diffIds: texts, directories }: Pick<Inspection, 'imageId' | 'diffIds' | 'directories'>,
  log: (line: string) => void,
): Promise<ArchiveEntries | undefined> {
  const [, root = '', driver = ''] = /^(\/.*)\/([^/]+)\/[^/]+\/diff$/.exec(directories[0] ?? '') ?? [];
  const store = STORES.get(driver);
  const diffIds = texts.flatMap(text => parseDigest(text) ?? []);
  if (store === undefined || imageId === undefined || directories.length !== diffIds.length) return undefined;
  if (!(await mayReadEverything())) return undefined;
  const label = `what ${engine} has of ${reference} in ${root}`;
  try {
    const config = await readFile(store.config(root, imageId));
    if (digestOf(config) !== imageId) return undefined;
    const recordOf = await store.open(root);
    const chain = chainIds(diffIds);
    const layers = await Promise.all(
      diffIds.map(async (diffId, index): Promise<readonly [string, ArchiveFile]> => {
        const directory = directories[index] ?? '';
        const id = directory.split('/').at(-2) ?? '';
        const { metadata, sizeBytes } = await recordOf({ id, chainId: chain[index] ?? diffId });
        // Not access(2), which knows nothing of a capability.
        await Promise.all([metadata, directory].map(path => stat(path)));
        const chunks = () => told(joinTar(metadata, directory), diffId, label);
        // Chunk by chunk: a stream of bytes would hand out what waits in it as one copy.
        return [`${hexOf(diffId)}/layer.tar`, { sizeBytes, open: () => Readable.from(chunks(), { highWaterMark: 1 }) }];
      }),
    );
    log(`layers of ${reference} are read where ${engine} has them, in ${root}`);
    return dockerArchive(imageId, config, layers, label);
  } catch {
    return undefined; // The engine can be asked.
  }
}

/** CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH (capabilities(7)), as bits. */
const READING_CAPABILITIES = 0b110n;

/**
 * Whether the permissions of files do not count for this process, as for root and for a service that was given
 * CAP_DAC_READ_SEARCH. Files in layers belong to anybody: without it one that is closed would show in the middle of a layer.
 */
async function mayReadEverything(): Promise<boolean> {
  const status = await readFile('/proc/self/status', 'utf8').catch(() => ''); // there is none but on Linux
  const [, effective = '0'] = /^CapEff:\s*([0-9a-f]+)$/m.exec(status) ?? [];
  return (BigInt(`0x${effective}`) & READING_CAPABILITIES) !== 0n;
}

/** The form of `docker save` around layers that are somewhere. */
function dockerArchive(
  imageId: Digest,
  config: Buffer,
  layers: readonly (readonly [string, ArchiveFile])[],
  label: string,
): ArchiveEntries {
  const configName = `${hexOf(imageId)}.json`;
  const manifest = [{ Config: configName, RepoTags: [], Layers: layers.map(([name]) => name) }];
  const files = new Map([
    ['manifest.json', memoryFile(Buffer.from(JSON.stringify(manifest)))],
    [configName, memoryFile(config)],
    ...layers,
  ]);
  const sizeBytes = [...files.values()].reduce((sum, file) => sum + file.sizeBytes, 0);
  return { files, links: new Map(), label, sizeBytes, ended: true };
}

/** What cannot be read of a layer that was there a moment ago somebody has taken away. */
async function* told(chunks: AsyncGenerator<Buffer>, diffId: Digest, label: string): AsyncGenerator<Buffer> {
  try {
    yield* chunks;
  } catch (error) {
    const message = `the layer ${diffId} of ${label} cannot be read: ${messageOf(error)}`;
    throw new SideloadError('SOURCE_UNAVAILABLE', message, {
      hint: 'Look whether something removes images on the runner meanwhile, and run the job again.',
      cause: error,
    });
  }
}

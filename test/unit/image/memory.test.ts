import { open } from 'node:fs/promises';
import { join } from 'node:path';
import { Writable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { expect, it } from 'vitest';
import { type Digest, digestOf } from '../../../src/image/digest.ts';
import type { PlatformImage, StoredBlob } from '../../../src/image/image.ts';
import { layoutArchive } from '../../../src/image/layout.ts';
import { dockerArchive, LINUX_AMD64, sampleImage, sampleLayer, tarBytes } from './archives.ts';
import { storeAll, useWorkplace } from './opening.ts';

const place = useWorkplace();
const LAYER_BYTES = 300 << 20;
const BLOCK_BYTES = 512;
/** Buffers, zstd's window and the garbage of a few hundred megabytes: a third of the layer, whatever its size. */
const GROWTH_MAX_BYTES = 100 << 20;
/** sha256 of LAYER_BYTES zero bytes: what `head -c 314572800 /dev/zero | sha256sum` prints. */
const ZEROS: Digest = 'sha256:17a88af83717f68b8bd97873ffcf022c8aed703416fe9b08e0fa9e3287692bf0';

const peakBytes = () => process.resourceUsage().maxRSS * 1024;

/** A podman archive with one layer of zeros, which takes no space on the disk. */
async function sparseArchive(): Promise<string> {
  const image = sampleImage([await sampleLayer('stands in for the zeros')]);
  const config = Buffer.from(
    JSON.stringify({ ...LINUX_AMD64, rootfs: { type: 'layers', diff_ids: [ZEROS] }, label: image.imageId }),
  );
  const entries = await tarBytes(dockerArchive([[['app:v1'], { ...image, config }]], 'docker before 25'));
  const name = /[0-9a-f]{64}\/layer\.tar/.exec(entries.toString('latin1'))?.[0] ?? expect.unreachable();
  // The big entry goes first, and shadows nothing: the small one of the same name is cut out.
  const small = entries.indexOf(name);
  const header = Buffer.from(entries.subarray(small, small + BLOCK_BYTES));
  header.write(`${LAYER_BYTES.toString(8).padStart(11, '0')} `, 124, 'latin1');
  header.fill(' ', 148, 156);
  header.write(
    `${header
      .reduce((sum, byte) => sum + byte, 0)
      .toString(8)
      .padStart(6, '0')}\0 `,
    148,
    'latin1',
  );
  const smallBytes = BLOCK_BYTES + (image.layers[0]?.tar.length ?? 0);
  const path = join(place.directory, 'sparse.tar');
  const file = await open(path, 'w');
  await file.write(header, 0, BLOCK_BYTES, 0);
  const rest = Buffer.concat([entries.subarray(0, small), entries.subarray(small + smallBytes)]);
  await file.write(rest, 0, rest.length, BLOCK_BYTES + LAYER_BYTES);
  await file.close();
  return path;
}

it('stores a layer of 300 MB in bounded memory', async () => {
  const archive = await sparseArchive();
  const before = peakBytes();
  const set = await place.openArchive(archive, 'app:v1');
  const [blob] = await storeAll(set);
  expect(blob?.sizeBytes).toBeGreaterThan(0);
  expect(peakBytes() - before).toBeLessThan(GROWTH_MAX_BYTES);
});

it('sends a layer of 300 MB in bounded memory, to a node that is slower than the disk', async () => {
  const archive = await sparseArchive();
  const file = await open(archive);
  const blob: StoredBlob = {
    digest: digestOf('the archive itself, as if it were a layer'),
    sizeBytes: (await file.stat()).size,
    compression: 'none',
    open: () => file.createReadStream({ start: 0, autoClose: true, highWaterMark: 1 << 20 }),
  };
  const config = Buffer.from('{}');
  const image: PlatformImage = {
    platform: LINUX_AMD64,
    imageId: digestOf(config),
    user: '',
    config: async () => config,
    layers: [{ diffId: ZEROS, sourceSizeBytes: 0, store: async () => blob, known: async () => blob }],
  };
  const layout = layoutArchive({ reference: 'docker.io/library/app:v1', image, blobs: [blob] });
  const before = peakBytes();
  let sentBytes = 0;
  const node = new Writable({
    highWaterMark: 1,
    write(chunk: Buffer, _encoding, done) {
      sentBytes += chunk.length;
      setImmediate(done);
    },
  });
  await pipeline(layout.stream(), node);
  expect(sentBytes).toBe((await layout.summary()).sizeBytes);
  expect(peakBytes() - before).toBeLessThan(GROWTH_MAX_BYTES);
});

import { truncate, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { describe, expect, it } from 'vitest';
import { dockerArchive, gzipped, named, ociArchive, sampleImage, sampleLayer, tarBytes } from './archives.ts';
import { failureOf, storeAll, useWorkplace } from './opening.ts';

const place = useWorkplace();
const app = sampleImage([await sampleLayer('a', 'x'.repeat(3000)), gzipped(await sampleLayer('b'))]);
const archives = {
  'a docker-archive': await tarBytes(dockerArchive([[['app:v1'], app]], 'docker before 25')),
  'podman’s archive': await tarBytes([...dockerArchive([[['app:v1'], app]], 'podman')].reverse()),
  'an OCI archive': await tarBytes(ociArchive([{ image: app, annotations: named('docker.io/library/app:v1') }])),
};
/** Two zero blocks: an archive that lacks them is whole when nothing else is missing. */
const END_BYTES = 1024;

describe.each(Object.entries(archives))('%s that was cut off', (_name, tar) => {
  const offsets = [...Array.from({ length: Math.ceil(tar.length / 512) }, (_, index) => index * 512)]
    .flatMap(offset => [offset, offset + 1, offset + 300])
    .filter(offset => offset > 0 && offset < tar.length - END_BYTES);

  it('is never taken for a smaller image, wherever the cut is', async () => {
    const path = join(place.directory, 'image.tar');
    await writeFile(path, tar);
    for (const offset of offsets.reverse()) {
      await truncate(path, offset);
      const failure = await failureOf(place.openArchive(path, 'app:v1').then(storeAll));
      expect.soft(failure, `cut at ${offset}`).toMatchObject({ code: 'ARCHIVE_INVALID' });
      expect.soft(failure.message, `cut at ${offset}`).toContain(path);
    }
  });

  it('is refused as a stream too', async () => {
    const path = join(place.directory, 'image.tar.gz');
    for (const offset of offsets.filter((_offset, index) => index % 5 === 0)) {
      await writeFile(path, gzipSync(tar.subarray(0, offset)));
      const failure = await failureOf(place.openArchive(path, 'app:v1').then(storeAll));
      expect.soft(failure, `cut at ${offset}`).toMatchObject({ code: 'ARCHIVE_INVALID' });
    }
  });

  it('is refused when its compression is cut off', async () => {
    const path = join(place.directory, 'image.tar.gz');
    const whole = gzipSync(tar);
    for (const bytes of [20, whole.length >> 1, whole.length - 8, whole.length - 1]) {
      await writeFile(path, whole.subarray(0, bytes));
      const failure = await failureOf(place.openArchive(path, 'app:v1').then(storeAll));
      expect.soft(failure, `${bytes} of ${whole.length} bytes`).toMatchObject({ code: 'ARCHIVE_INVALID' });
    }
  });
});

it('tells where an archive ends and what is cut', async () => {
  const path = join(place.directory, 'image.tar');
  await writeFile(path, archives['an OCI archive'].subarray(0, 1600));
  expect(await failureOf(place.openArchive(path))).toMatchObject({
    message: expect.stringMatching(/ends after 1600 bytes, in the middle of blobs\/sha256\//),
  });
});

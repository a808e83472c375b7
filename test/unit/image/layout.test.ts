import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import { createReadStream, createWriteStream } from 'node:fs';
import { truncate, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { promisify } from 'node:util';
import { describe, expect, it } from 'vitest';
import { digestOf } from '../../../src/image/digest.ts';
import type { PlatformImage, StoredBlob } from '../../../src/image/image.ts';
import { layoutArchive } from '../../../src/image/layout.ts';
import { free } from '../../../src/memory.ts';
import { dockerArchive, gzipped, LINUX_ARM64, sampleImage, sampleLayer, sha256, writeTar } from './archives.ts';
import { bytesOf, failureOf, storeAll, useWorkplace } from './opening.ts';

const place = useWorkplace();
const REFERENCE = 'docker.io/library/app:v1';
const layers = [
  await sampleLayer('a', 'x'.repeat(50_000)),
  gzipped(await sampleLayer('b')),
  await sampleLayer('c'),
  await sampleLayer('c'),
];
const app = sampleImage(layers, LINUX_ARM64);

async function stored(): Promise<{ readonly image: PlatformImage; readonly blobs: readonly StoredBlob[] }> {
  const path = await writeTar(join(place.directory, 'image.tar'), dockerArchive([[['app:v1'], app]], 'podman'));
  const set = await place.openArchive(path);
  const image = set.images[0]?.variants[0] ?? expect.unreachable();
  return { image, blobs: await storeAll(set) };
}

const tarList = async (path: string) =>
  (await promisify(execFile)('tar', ['-tf', path])).stdout.trim().split('\n').toSorted();
const nameOf = ({ digest }: Pick<StoredBlob, 'digest'>) => `blobs/sha256/${digest.slice(7)}`;

describe('the archive that is sent to a node', () => {
  it('is an OCI layout that `tar` lists, with each blob once', async () => {
    const { image, blobs } = await stored();
    const layout = layoutArchive({ reference: REFERENCE, image, blobs });
    const path = join(place.directory, 'layout.tar');
    await pipeline(layout.stream(), createWriteStream(path));
    const { manifestDigest } = await layout.summary();
    const names = [{ digest: manifestDigest }, { digest: image.imageId }, ...new Set(blobs)].map(nameOf);
    expect(await tarList(path)).toEqual([...new Set(names), 'index.json', 'manifest.json', 'oci-layout'].toSorted());
    expect(new Set(blobs.map(({ digest }) => digest)).size).toBe(3);
  });

  it('has the size that it announces, and the same bytes every time', async () => {
    const layout = layoutArchive({ reference: REFERENCE, ...(await stored()) });
    const [first, second] = await Promise.all([bytesOf(layout.stream()), bytesOf(layout.stream())]);
    const summary = await layout.summary();
    expect(first.length).toBe(summary.sizeBytes);
    expect(first.equals(second)).toBe(true);
    expect(await layoutArchive({ reference: REFERENCE, ...(await stored()) }).summary()).toEqual(summary);
  });

  it('is the same again when the memory of the first one has been given back', async () => {
    const { image, blobs } = await stored();
    const config = Buffer.concat([await image.config(), Buffer.alloc(100_000, ' ')]);
    const layout = layoutArchive({ reference: REFERENCE, image: { ...image, config: async () => config }, blobs });
    const first = createHash('sha256');
    for await (const chunk of layout.stream() as AsyncIterable<Buffer>) {
      first.update(chunk);
      free(chunk);
    }
    expect(sha256(await bytesOf(layout.stream()))).toBe(first.digest('hex'));
  });

  it('is the image that was opened, when it is opened again', async () => {
    const { image, blobs } = await stored();
    const path = join(place.directory, 'layout.tar');
    await pipeline(layoutArchive({ reference: REFERENCE, image, blobs }).stream(), createWriteStream(path));
    const again = await place.openArchive(path);
    expect(again.images[0]?.reference).toBe(REFERENCE);
    const [variant] = again.images[0]?.variants ?? [];
    expect(variant).toMatchObject({ imageId: app.imageId, platform: LINUX_ARM64 });
    const blobsAgain = await storeAll(again);
    expect(blobsAgain.map(({ digest }) => digest)).toEqual(blobs.map(({ digest }) => digest));
  });

  it('names the image and its platform so that containerd and the kubelet find it', async () => {
    const layout = layoutArchive({ reference: REFERENCE, ...(await stored()) });
    const text = (await bytesOf(layout.stream())).toString('latin1');
    const index = JSON.parse(/\{"schemaVersion":2,"mediaType":"[^"]*index[^\0]*/.exec(text)?.[0] ?? '');
    expect(index.manifests).toEqual([
      {
        mediaType: 'application/vnd.oci.image.manifest.v1+json',
        digest: (await layout.summary()).manifestDigest,
        size: expect.any(Number),
        annotations: { 'io.containerd.image.name': REFERENCE, 'org.opencontainers.image.ref.name': 'v1' },
        platform: LINUX_ARM64,
      },
    ]);
  });

  it('lacks what the node has, and still names it', async () => {
    const { image, blobs } = await stored();
    const { open: _here, ...first } = blobs[0] ?? expect.unreachable();
    const layout = layoutArchive({ reference: REFERENCE, image, blobs: [first, ...blobs.slice(1)] });
    const thin = await layout.summary();
    const whole = await layoutArchive({ reference: REFERENCE, image, blobs }).summary();
    const bytes = await bytesOf(layout.stream());
    expect(thin.manifestDigest).toBe(whole.manifestDigest);
    expect(bytes.length).toBe(thin.sizeBytes);
    expect(thin.sizeBytes).toBeLessThan(whole.sizeBytes);
    const path = join(place.directory, 'thin.tar');
    await writeFile(path, bytes);
    const missing = await failureOf(place.openArchive(path));
    expect(missing).toMatchObject({
      code: 'ARCHIVE_INCOMPLETE',
      message: expect.stringContaining(first.digest.replace('sha256:', '')),
    });
  });

  it('can name a blob of the node’s own in place of ours', async () => {
    const { image, blobs } = await stored();
    const own = { digest: digestOf('a blob that only the node has'), sizeBytes: 12_345, compression: 'gzip' } as const;
    const layout = layoutArchive({ reference: REFERENCE, image, blobs: [own, ...blobs.slice(1)] });
    expect((await bytesOf(layout.stream())).toString('latin1')).toContain(
      `{"mediaType":"application/vnd.oci.image.layer.v1.tar+gzip","digest":"${own.digest}","size":12345}`,
    );
  });

  it('fails when a stored blob is gone or was cut, and is never shorter instead', async () => {
    const { image, blobs } = await stored();
    const path = join(place.directory, 'blob');
    await writeFile(path, 'x'.repeat(1000));
    const replaced = { ...blobs[0], open: () => createReadStream(path), sizeBytes: 1000 } as StoredBlob;
    const layout = layoutArchive({ reference: REFERENCE, image, blobs: [replaced, ...blobs.slice(1)] });
    expect((await bytesOf(layout.stream())).length).toBe((await layout.summary()).sizeBytes);
    for (const sizeBytes of [999, 0, 1001]) {
      await truncate(path, sizeBytes);
      expect(await failureOf(bytesOf(layout.stream()))).toMatchObject({ code: 'INTERNAL' });
    }
    const gone = { ...replaced, open: () => createReadStream(join(place.directory, 'gone')) };
    const broken = layoutArchive({ reference: REFERENCE, image, blobs: [gone, ...blobs.slice(1)] });
    expect(await failureOf(bytesOf(broken.stream()))).toMatchObject({ code: 'ENOENT' });
  });

  it('closes the blob’s file when nobody wants the rest', async () => {
    const { image, blobs } = await stored();
    const path = join(place.directory, 'blob');
    const sizeBytes = 64 << 20;
    await writeFile(path, '');
    await truncate(path, sizeBytes);
    let opened: Readable | undefined;
    let onClosed = () => {};
    const closed = new Promise<void>(resolve => {
      onClosed = resolve;
    });
    const open = () => {
      opened = createReadStream(path).once('close', onClosed);
      return opened;
    };
    const layout = layoutArchive({
      reference: REFERENCE,
      image,
      blobs: [{ digest: digestOf('big'), sizeBytes, compression: 'none', open }, ...blobs.slice(1)],
    });
    const stream = layout.stream();
    for await (const _ of stream) {
      if (opened !== undefined) break;
    }
    await closed;
    expect(opened?.destroyed).toBe(true);
    expect(stream.destroyed).toBe(true);
  });

  it('cannot be made of too few blobs', async () => {
    const { image, blobs } = await stored();
    const making = () => layoutArchive({ reference: REFERENCE, image, blobs: blobs.slice(1) });
    expect(making).toThrow(expect.objectContaining({ code: 'INTERNAL' }));
  });
});

describe('a manifest whose digest the reference asks for', () => {
  const bytes = Buffer.from(JSON.stringify({ schemaVersion: 2, made: 'elsewhere' }));
  const mediaType = 'application/vnd.docker.distribution.manifest.v2+json';
  const reference = `docker.io/library/app@${digestOf(bytes)}`;
  const indexOf = async (stream: Readable) => {
    const text = (await bytesOf(stream)).toString('latin1');
    return JSON.parse(/\{"schemaVersion":2,"mediaType":"[^"]*index[^\0]*/.exec(text)?.[0] ?? '');
  };

  it('is sent as it is, with its own media type, when the blobs are the ones that it names', async () => {
    const { image, blobs } = await stored();
    const manifest = { digest: digestOf(bytes), mediaType, bytes, layerDigests: blobs.map(({ digest }) => digest) };
    const layout = layoutArchive({ reference, image: { ...image, manifest }, blobs });
    expect((await layout.summary()).manifestDigest).toBe(digestOf(bytes));
    expect((await indexOf(layout.stream())).manifests).toMatchObject([
      { digest: digestOf(bytes), mediaType, size: bytes.length },
    ]);
  });

  it('is written anew when a blob has been compressed since', async () => {
    const { image, blobs } = await stored();
    const layerDigests = [...blobs.map(({ digest }) => digest).slice(1), digestOf('uncompressed')];
    const manifest = { digest: digestOf(bytes), mediaType, bytes, layerDigests };
    const layout = layoutArchive({ reference, image: { ...image, manifest }, blobs });
    const plain = layoutArchive({ reference, image, blobs });
    expect(await layout.summary()).toEqual(await plain.summary());
  });

  it('gives no name to `docker load`, which knows names with a tag only', async () => {
    const text = (await bytesOf(layoutArchive({ reference, ...(await stored()) }).stream())).toString('latin1');
    expect(text).toContain('"RepoTags":null');
  });
});

it('has the digests of what is in it', async () => {
  const { image, blobs } = await stored();
  const path = join(place.directory, 'layout.tar');
  await pipeline(layoutArchive({ reference: REFERENCE, image, blobs }).stream(), createWriteStream(path));
  for (const name of (await tarList(path)).filter(entry => entry.startsWith('blobs/'))) {
    const { stdout } = await promisify(execFile)('tar', ['-xOf', path, name], { encoding: 'buffer' });
    expect(`blobs/sha256/${sha256(stdout)}`).toBe(name);
  }
});

import { mkdir, readdir, readFile, rename, rm, symlink, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { describe, expect, it } from 'vitest';
import {
  dockerArchive,
  gzipped,
  LINUX_AMD64,
  LINUX_ARM64,
  named,
  ociArchive,
  sampleImage,
  sampleLayer,
  sha256,
  type TarEntry,
  writeTar,
} from './archives.ts';
import { bytesOf, failureOf, storeAll, useWorkplace } from './opening.ts';

const place = useWorkplace();
const APP = 'docker.io/library/app:v1';
const compressed = gzipped(await sampleLayer('compressed', 'x'.repeat(1_000_000)));
const plain = await sampleLayer('plain');
const app = sampleImage([compressed, plain]);
const layout = ociArchive([{ image: app, annotations: named(APP) }]);
const fileOf = (blob: Buffer) => join(place.directory, 'layout', 'blobs', 'sha256', sha256(blob));
const gzip = compressed.blob ?? expect.unreachable();

/** Unpacks an archive, so to say. */
async function directory(entries: readonly TarEntry[]): Promise<string> {
  const root = join(place.directory, 'layout');
  for (const { name, content = '' } of entries.filter(({ type }) => type === undefined)) {
    await mkdir(dirname(join(root, name)), { recursive: true });
    await writeFile(join(root, name), content);
  }
  return root;
}

async function scratchFiles(): Promise<readonly string[]> {
  const [root = ''] = await readdir(place.scratch);
  return await readdir(join(place.scratch, root));
}

describe('an image layout in a directory', () => {
  it('is opened in place: what is compressed is proven and stays, the rest is compressed', async () => {
    const set = await place.openArchive(await directory(layout));
    expect(set.images).toMatchObject([{ reference: APP, variants: [{ imageId: app.imageId, platform: LINUX_AMD64 }] }]);
    const [first, second] = await storeAll(set);
    expect(first).toMatchObject({ digest: `sha256:${sha256(gzip)}`, compression: 'gzip' });
    expect((await bytesOf(first?.open() ?? expect.unreachable())).equals(gzip)).toBe(true);
    expect(await scratchFiles()).toEqual([`${sha256(plain.tar)}.${second?.digest.slice('sha256:'.length)}.zstd-1`]);
  });

  it('may consist of symbolic links, as Bazel lays it out', async () => {
    const root = await directory(layout);
    const elsewhere = join(place.directory, 'elsewhere');
    await rename(fileOf(gzip), elsewhere);
    await symlink(elsewhere, fileOf(gzip));
    expect(await storeAll(await place.openArchive(root, 'app:v1'))).toHaveLength(2);
  });

  it('may be what `docker save` wrote, unpacked', async () => {
    const set = await place.openArchive(await directory(dockerArchive([[['app:v1'], app]], 'docker')));
    expect(set.images[0]?.reference).toBe(APP);
  });

  it('is incomplete without one of its blobs', async () => {
    const root = await directory(layout);
    await rm(fileOf(plain.tar));
    const message = expect.stringContaining(sha256(plain.tar));
    expect(await failureOf(place.openArchive(root))).toMatchObject({ code: 'ARCHIVE_INCOMPLETE', message });
    await rm(join(root, 'blobs'), { recursive: true });
    expect(await failureOf(place.openArchive(root))).toMatchObject({ code: 'ARCHIVE_INCOMPLETE' });
  });

  it('is not believed: a blob with other bytes, compressed or not, is corrupt', async () => {
    for (const [blob, other] of [
      [gzip, gzipped(plain).blob],
      [plain.tar, Buffer.from('other')],
    ] as const) {
      const set = await place.openArchive(await directory(layout));
      await writeFile(fileOf(blob), other ?? '');
      expect(await failureOf(storeAll(set))).toMatchObject({ code: 'ARCHIVE_CORRUPT' });
      await set.close();
    }
  });

  it('that is unreadable JSON is refused by name', async () => {
    const root = await directory([{ name: 'index.json', content: Buffer.from('{') }]);
    const message = expect.stringContaining(root);
    expect(await failureOf(place.openArchive(root))).toMatchObject({ code: 'ARCHIVE_INVALID', message });
  });
});

it('a compressed layer of a tar on disk is not copied either', async () => {
  const archive = await writeTar(join(place.directory, 'image.tar'), layout);
  const [first] = await storeAll(await place.openArchive(archive));
  expect((await bytesOf(first?.open() ?? expect.unreachable())).equals(gzip)).toBe(true);
  expect(await scratchFiles()).toHaveLength(1);
});

describe('of several images without a full name', () => {
  const other = sampleImage([plain], LINUX_AMD64, 'other');
  const arm = sampleImage([plain], LINUX_ARM64, 'arm');
  const tag = (name: string) => ({ 'org.opencontainers.image.ref.name': name });
  const open = async (nodes: Parameters<typeof ociArchive>[0], reference: string) =>
    (await place.openArchive(await directory(ociArchive(nodes)), reference)).images[0]?.variants.map(
      ({ imageId }) => imageId,
    );
  const digestOf = async (position: number) =>
    JSON.parse(await readFile(join(place.directory, 'layout', 'index.json'), 'utf8')).manifests[position].digest;

  it('a tag tells which one', async () => {
    const nodes = [
      { image: app, annotations: tag('v1') },
      { image: other, annotations: tag('v2') },
      { image: arm, annotations: tag('v2') },
    ];
    expect(await open(nodes, 'registry.example/app:v1')).toEqual([app.imageId]);
    expect(await open(nodes, 'app:v2')).toEqual([other.imageId, arm.imageId]);
    expect(await failureOf(open(nodes, 'app:v3'))).toMatchObject({
      code: 'IMAGE_NOT_FOUND',
      message: expect.stringContaining('tagged v2'),
    });
  });

  it('a digest tells which one, and its manifest is kept', async () => {
    const nodes = [{ image: app }, { image: other }];
    expect(await failureOf(open(nodes, 'app:v1'))).toMatchObject({ code: 'IMAGE_AMBIGUOUS' });
    const digest = await digestOf(1);
    const set = await place.openArchive(join(place.directory, 'layout'), `app@${digest}`);
    expect(set.images[0]?.variants).toMatchObject([{ imageId: other.imageId, manifest: { digest } }]);
  });

  it('the digest of one platform gives this platform, that of the index gives all', async () => {
    const root = await directory(ociArchive([{ children: [{ image: app }, { image: arm }] }]));
    const index = await digestOf(0);
    const children = JSON.parse(await readFile(join(root, 'blobs', 'sha256', index.slice(7)), 'utf8')).manifests;
    const [all, one] = await Promise.all(
      [index, children[1].digest].map(async digest => (await place.openArchive(root, `app@${digest}`)).images[0]),
    );
    expect(all?.variants.map(({ imageId }) => imageId)).toEqual([app.imageId, arm.imageId]);
    expect(all?.variants.every(({ manifest }) => manifest === undefined)).toBe(true);
    expect(one?.variants).toMatchObject([{ imageId: arm.imageId, manifest: { digest: children[1].digest } }]);
  });

  it.each([tag('v2'), named('docker.io/library/app:v2'), {}])(
    'none stands in for one that is not whole (%j)',
    async annotations => {
      const nodes = [
        { image: app, annotations: tag('v1') },
        { image: other, annotations },
      ];
      const root = await directory(ociArchive(nodes));
      await rm(fileOf(other.config));
      const reference = Object.keys(annotations).length === 0 ? `app@${await digestOf(1)}` : 'app:v2';
      expect(await failureOf(place.openArchive(root, reference))).toMatchObject({ code: 'ARCHIVE_INCOMPLETE' });
      expect((await place.openArchive(root, 'app:v1')).images[0]?.variants[0]?.imageId).toBe(app.imageId);
    },
  );
});

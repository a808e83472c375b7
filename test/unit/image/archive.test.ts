import { execFile } from 'node:child_process';
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { gzipSync } from 'node:zlib';
import { describe, expect, it } from 'vitest';
import {
  type DockerWriter,
  dockerArchive,
  gzipped,
  LINUX_AMD64,
  LINUX_ARM64,
  named,
  ociArchive,
  type SampleImage,
  sampleImage,
  sampleLayer,
  sha256,
  type TarEntry,
  tarBytes,
  writeTar,
} from './archives.ts';
import { bytesOf, failureOf, storeAll, useWorkplace } from './opening.ts';

const place = useWorkplace();
const APP = 'docker.io/library/app:v1';
const base = await sampleLayer('base', 'x'.repeat(100_000));
const top = await sampleLayer('top');
const app = sampleImage([base, top]);

/** How an archive comes: the first is indexed in place, the others are streams. */
const carriers: Readonly<Record<string, (tar: Buffer, path: string) => Promise<string>>> = {
  plain: async (tar, path) => {
    await writeFile(path, tar);
    return path;
  },
  gzip: async (tar, path) => {
    await writeFile(path, gzipSync(tar));
    return path;
  },
  zstd: async (tar, path) => {
    await writeFile(path, tar);
    await promisify(execFile)('zstd', ['-q', '-f', '--rm', path]);
    return `${path}.zst`;
  },
};

/** What an opened image must be, whatever it was read from. */
async function expectApp(archive: string, reference = 'app:v1', image: SampleImage = app): Promise<void> {
  const set = await place.openArchive(archive, reference);
  expect(set.images.map(found => found.reference)).toEqual([APP]);
  const variant = set.images[0]?.variants[0];
  expect(variant).toMatchObject({ imageId: image.imageId, platform: image.platform });
  expect((await variant?.config())?.equals(image.config)).toBe(true);
  expect(variant?.layers.map(({ diffId }) => diffId)).toEqual(image.layers.map(({ tar }) => `sha256:${sha256(tar)}`));
  for (const blob of await storeAll(set)) {
    const bytes = await bytesOf(blob.open());
    expect(bytes.length).toBe(blob.sizeBytes);
    expect(`sha256:${sha256(bytes)}`).toBe(blob.digest);
  }
  await set.close();
}

describe.each(Object.entries(carriers))('an archive that is %s', (_name, carry) => {
  const write = async (entries: readonly TarEntry[]) =>
    carry(await tarBytes(entries), join(place.directory, 'image.tar'));

  it.each<DockerWriter>(['docker', 'docker before 25', 'podman'])('is read when %s wrote it', async writer => {
    await expectApp(await write(dockerArchive([[['app:v1'], app]], writer)));
  });

  it('is read when kaniko wrote it, with layers that are compressed already', async () => {
    const image = sampleImage([gzipped(base), gzipped(top)]);
    const archive = await write(dockerArchive([[['app:v1'], image]], 'kaniko'));
    await expectApp(archive, 'app:v1', image);
    const set = await place.openArchive(archive);
    const [blob] = await storeAll(set);
    expect(blob).toMatchObject({ compression: 'gzip', digest: `sha256:${sha256(gzipped(base).blob ?? '')}` });
  });

  it('is read when it is an OCI layout', async () => {
    await expectApp(await write(ociArchive([{ image: sampleImage([gzipped(base), top]), annotations: named(APP) }])));
  });

  it('is written by pods as the user writes it, else as the archive does', async () => {
    const file = await write(dockerArchive([[['app:v1', 'registry.example/app:v1'], app]], 'docker before 25'));
    const spellings = async (...references: string[]) =>
      (await place.openArchive(file, ...references)).images.flatMap(image => [...(image.spellings ?? [])]);
    expect(await spellings()).toEqual([
      ['docker.io/library/app:v1', 'app:v1'],
      ['registry.example/app:v1', 'registry.example/app:v1'],
    ]);
    expect(await spellings('docker.io/app:v1')).toEqual([['docker.io/library/app:v1', 'docker.io/app:v1']]);
  });

  it('is read in any order of its entries', async () => {
    await expectApp(await write([...dockerArchive([[['app:v1'], app]], 'podman')].reverse()));
    await expectApp(await write([...ociArchive([{ image: app, annotations: named(APP) }])].reverse()));
  });

  it('is read when a layer is a hard link to another entry', async () => {
    const entries = dockerArchive([[['app:v1'], app]], 'docker before 25').flatMap((entry): TarEntry[] =>
      entry.name.endsWith('/layer.tar') && entry.content?.equals(base.tar)
        ? [
            { name: 'elsewhere.tar', content: base.tar },
            { name: entry.name, type: 'link', linkname: 'elsewhere.tar' },
          ]
        : [entry],
    );
    await expectApp(await write(entries));
  });

  it('is refused when a layer is missing, and the layer is named', async () => {
    const missing = `blobs/sha256/${sha256(top.tar)}`;
    for (const entries of [
      dockerArchive([[['app:v1'], app]], 'docker'),
      ociArchive([{ image: app, annotations: named(APP) }]),
    ]) {
      const archive = await write(entries.filter(({ name }) => name !== missing));
      const failure = await failureOf(place.openArchive(archive, 'app:v1'));
      expect(failure).toMatchObject({
        code: 'ARCHIVE_INCOMPLETE',
        message: expect.stringContaining(`sha256:${sha256(top.tar)}`),
      });
    }
  });

  it('is refused when a layer is not what its digest says, at the latest when it is read', async () => {
    const broken = Buffer.from(base.tar);
    broken[700] = 0x21;
    for (const entries of [
      dockerArchive([[['app:v1'], app]], 'docker'),
      dockerArchive([[['app:v1'], app]], 'docker before 25'),
      dockerArchive([[['app:v1'], app]], 'podman'),
      ociArchive([{ image: app, annotations: named(APP) }]),
    ]) {
      const archive = await write(
        entries.map(entry => (entry.content?.equals(base.tar) ? { ...entry, content: broken } : entry)),
      );
      const failure = await failureOf(place.openArchive(archive, 'app:v1').then(storeAll));
      expect(failure).toMatchObject({ code: 'ARCHIVE_CORRUPT', message: expect.stringContaining(sha256(broken)) });
    }
  });

  it('is refused when a compressed layer does not hold what the config names', async () => {
    const wrong = { ...gzipped(base), blob: gzipSync(top.tar) };
    const archive = await write(dockerArchive([[['app:v1'], sampleImage([wrong])]], 'kaniko'));
    const failure = await failureOf(place.openArchive(archive, 'app:v1').then(storeAll));
    expect(failure).toMatchObject({ code: 'ARCHIVE_CORRUPT', message: expect.stringContaining(sha256(top.tar)) });
  });

  it('is refused when a compressed layer is cut off', async () => {
    const blob = gzipSync(base.tar).subarray(0, 100);
    const archive = await write(dockerArchive([[['app:v1'], sampleImage([{ ...base, blob }])]], 'kaniko'));
    const failure = await failureOf(place.openArchive(archive, 'app:v1').then(storeAll));
    expect(failure.code).toBe('ARCHIVE_CORRUPT');
  });

  it('is refused when the config is not the one that the image ID names', async () => {
    const other = sampleImage([base, top], LINUX_AMD64, 'other');
    for (const entries of [
      dockerArchive([[['app:v1'], app]], 'docker'),
      dockerArchive([[['app:v1'], app]], 'podman'),
      dockerArchive([[['app:v1'], app]], 'kaniko'),
      ociArchive([{ image: app, annotations: named(APP) }]),
    ]) {
      const archive = await write(
        entries.map(entry => (entry.content?.equals(app.config) ? { ...entry, content: other.config } : entry)),
      );
      const failure = await failureOf(place.openArchive(archive, 'app:v1'));
      expect(failure).toMatchObject({ code: 'ARCHIVE_CORRUPT', message: expect.stringContaining(other.imageId) });
    }
  });

  it('never writes outside the scratch directory, whatever its entries are called', async () => {
    const outside = '../'.repeat(12) + join(place.directory, 'escaped').slice(1);
    const evil: readonly TarEntry[] = [
      { name: '../escaped', content: Buffer.from('not json') },
      { name: outside, content: Buffer.from('not json') },
      { name: join(place.directory, 'escaped'), content: Buffer.from('not json') },
      { name: 'loop', type: 'symlink', linkname: 'loop' },
      { name: 'there', type: 'symlink', linkname: '/etc/passwd' },
    ];
    await expectApp(await write([...evil, ...dockerArchive([[['app:v1'], app]], 'docker')]));
    await expect(readFile(join(place.directory, 'escaped'))).rejects.toThrow('ENOENT');
  });

  it('does not follow a link out of the archive', async () => {
    const entries = dockerArchive([[['app:v1'], app]], 'docker').map(
      (entry): TarEntry =>
        entry.content?.equals(base.tar) ? { name: entry.name, type: 'symlink', linkname: '/etc/passwd' } : entry,
    );
    const failure = await failureOf(place.openArchive(await write(entries), 'app:v1'));
    expect(failure.code).toBe('ARCHIVE_INCOMPLETE');
  });
});

describe('the platforms of an image', () => {
  const arm = sampleImage([base, top], LINUX_ARM64);
  const attestation = {
    content: { schemaVersion: 2, config: { mediaType: 'application/vnd.in-toto+json' }, layers: [] },
    platform: { os: 'unknown', architecture: 'unknown' },
    annotations: { 'vnd.docker.reference.type': 'attestation-manifest' },
  };
  const platforms = async (entries: readonly TarEntry[]) => {
    const set = await place.openArchive(await writeTar(join(place.directory, 'image.tar'), entries), 'app:v1');
    return set.images[0]?.variants.map(({ platform }) => platform);
  };

  it('come out of an index in an index, without attestations', async () => {
    const children = [{ image: app, platform: LINUX_AMD64 }, { image: arm, platform: LINUX_ARM64 }, attestation];
    expect(await platforms(ociArchive([{ children, annotations: named(APP) }]))).toEqual([LINUX_AMD64, LINUX_ARM64]);
  });

  it('come out of the configs when the index does not tell them', async () => {
    const children = [{ image: app }, { image: arm }];
    expect(await platforms(ociArchive([{ children, annotations: named(APP) }]))).toEqual([LINUX_AMD64, LINUX_ARM64]);
  });

  it('may stand side by side in index.json, named or not', async () => {
    for (const annotations of [{}, named(APP)]) {
      const nodes = [app, arm].map(image => ({ image, annotations }));
      expect(await platforms(ociArchive(nodes))).toEqual([LINUX_AMD64, LINUX_ARM64]);
    }
  });

  it('that the archive does not carry are left out, with a word', async () => {
    const children = [
      { image: app, platform: LINUX_AMD64 },
      { image: arm, platform: LINUX_ARM64 },
    ];
    const entries = ociArchive([{ children, annotations: named(APP) }]);
    expect(await platforms(entries.filter(({ content }) => !content?.equals(arm.config)))).toEqual([LINUX_AMD64]);
    expect(place.lines).toContainEqual(expect.stringContaining(arm.imageId));
  });

  it('that are there twice are refused', async () => {
    const other = sampleImage([top]);
    const nodes = [app, other].map(image => ({ image, annotations: named(APP) }));
    expect(await failureOf(platforms(ociArchive(nodes)))).toMatchObject({ code: 'IMAGE_AMBIGUOUS' });
  });
});

describe('an archive with both manifest.json and index.json', () => {
  const write = (entries: readonly TarEntry[]) => writeTar(join(place.directory, 'image.tar'), entries);
  const docker = dockerArchive([[['app:v1'], app]], 'docker');

  it('gives every platform of index.json where manifest.json has one', async () => {
    const arm = sampleImage([base], LINUX_ARM64);
    const oci = ociArchive([{ children: [{ image: app }, { image: arm }], annotations: named(APP) }]);
    const set = await place.openArchive(await write([...docker, ...oci]));
    expect(set.images.map(({ reference }) => reference)).toEqual([APP]);
    expect(set.images[0]?.variants).toHaveLength(2);
  });

  it('is read through manifest.json when index.json has no layers (moby#47065)', async () => {
    const hollow = {
      schemaVersion: 2,
      config: { mediaType: 'application/vnd.oci.image.config.v1+json', digest: app.imageId, size: app.config.length },
      layers: null,
    };
    await expectApp(await write([...docker, ...ociArchive([{ content: hollow, annotations: named(APP) }])]));
  });

  it('is read through manifest.json when index.json is empty (moby#47210)', async () => {
    await expectApp(await write([...docker, { name: 'index.json', content: Buffer.from('{"manifests":null}') }]));
  });

  it('is read through index.json when manifest.json names layers that are not there', async () => {
    const absent = Buffer.from(JSON.stringify([{ Config: 'gone', RepoTags: ['app:v1'], Layers: ['gone'] }]));
    const oci = ociArchive([{ image: app, annotations: named(APP) }]);
    await expectApp(await write([...oci, { name: 'manifest.json', content: absent }]));
  });
});

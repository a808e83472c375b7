import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { describe, expect, it } from 'vitest';
import { dockerArchive, ociArchive, sampleImage, sampleLayer, tarBytes } from './archives.ts';
import { failureOf, useWorkplace } from './opening.ts';

const place = useWorkplace();
const app = sampleImage([await sampleLayer('a')]);

/** What is said of a file with this content. */
async function said(content: Buffer | string): Promise<string> {
  const path = join(place.directory, 'image.tar');
  await writeFile(path, content);
  const failure = await failureOf(place.openArchive(path, 'app:v1'));
  expect(failure.code).toBe('ARCHIVE_INVALID');
  return `${failure.message} ${failure.hint}`;
}

describe('a file that is no image archive is called by its name', () => {
  it.each([
    ['', /is empty/],
    ['<!DOCTYPE html><html>404</html>', /HTML/],
    ['\n<html><body>Login</body></html>', /HTML/],
    ['{"message":"Not Found"}', /JSON/],
    ['BZh91AY&SY', /bzip2/],
    ['PK\u0003\u0004rest', /zip/],
    ['version https://git-lfs.github.com/spec/v1\n', /LFS/],
    ['hello', /ends after 5 bytes/],
    ['x'.repeat(5000), /not a tar archive: no header at byte 0/],
    [Buffer.from('fd377a585a0000', 'hex'), /xz/],
    [gzipSync('hello'), /ends after 5 bytes/],
    [gzipSync('x'.repeat(5000)), /not a tar archive/],
    [Buffer.concat([gzipSync('x').subarray(0, 12), Buffer.alloc(99, 7)]), /broken gzip/],
    [Buffer.alloc(10_240), /neither manifest.json nor index.json/],
  ])('%j', async (content, expected) => {
    expect(await said(content)).toMatch(expected);
  });

  it('a directory that is no layout', async () => {
    const path = join(place.directory, 'layout');
    await mkdir(path);
    const failure = await failureOf(place.openArchive(path, 'app:v1'));
    expect(failure).toMatchObject({ code: 'ARCHIVE_INVALID', message: expect.stringContaining('is a directory') });
    expect(failure.hint).toContain('index.json');
  });

  it('a path where nothing is', async () => {
    const failure = await failureOf(place.openArchive(join(place.directory, 'gone.tar'), 'app:v1'));
    expect(failure).toMatchObject({ code: 'ARCHIVE_INVALID', message: expect.stringContaining('does not exist') });
  });

  it('what `docker export` writes', async () => {
    const entries = [
      { name: 'bin/sh', content: Buffer.from('x') },
      { name: 'etc/passwd', content: Buffer.from('x') },
    ];
    expect(await said(await tarBytes(entries))).toMatch(/docker export/);
  });
});

describe('metadata that makes no sense is refused', () => {
  const manifest = (content: string) => tarBytes([{ name: 'manifest.json', content: Buffer.from(content) }]);

  it.each([
    ['[{]', /is not JSON/],
    ['{"a":1}', /not a list/],
    ['[{"Layers":[]}]', /names no config/],
    ['[]', /holds no container image/],
  ])('manifest.json that is %s', async (content, expected) => {
    expect(await said(await manifest(content))).toMatch(expected);
  });

  it('manifest.json of more than 4 MiB', async () => {
    expect(await said(await manifest(`[${' '.repeat(5 << 20)}]`))).toMatch(/not JSON of at most/);
  });

  it.each([
    ['{}', /names no os/],
    ['{"os":"linux","architecture":"amd64"}', /names no layers/],
    ['{"os":"linux","architecture":"amd64","rootfs":{"diff_ids":["sha256:1"]}}', /is no digest/],
  ])('a config that is %s', async (config, expected) => {
    const image = { ...app, config: Buffer.from(config) };
    expect(await said(await tarBytes(dockerArchive([[['app:v1'], image]], 'podman')))).toMatch(expected);
  });

  it('another number of layers than the config has', async () => {
    const image = { ...app, layers: [...app.layers, ...app.layers] };
    for (const entries of [dockerArchive([[['app:v1'], image]], 'podman'), ociArchive([{ image }])]) {
      expect(await said(await tarBytes(entries))).toMatch(/2 layers, and the config of the image 1/);
    }
  });

  it('an index that nests without end', async () => {
    let node: Parameters<typeof ociArchive>[0][number] = { image: app };
    for (let depth = 0; depth < 9; depth += 1) node = { children: [node] };
    expect(await said(await tarBytes(ociArchive([node])))).toMatch(/deeper/);
  });

  it('an archive of artifacts only', async () => {
    const chart = { schemaVersion: 2, config: { mediaType: 'application/vnd.cncf.helm.config.v1+json' }, layers: [] };
    expect(await said(await tarBytes(ociArchive([{ content: chart }])))).toMatch(/holds no container image/);
  });

  it('an encrypted layer', async () => {
    const layers = app.layers.map(layer => ({
      ...layer,
      mediaType: 'application/vnd.oci.image.layer.v1.tar+gzip+encrypted',
    }));
    expect(await said(await tarBytes(ociArchive([{ image: { ...app, layers } }])))).toMatch(/encrypted/);
  });
});

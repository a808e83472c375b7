import { execFile, execFileSync } from 'node:child_process';
import { chmod, mkdir, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { gunzipSync, gzipSync } from 'node:zlib';
import { afterEach, describe, expect, it, vi } from 'vitest';
import { dockerArchive, sampleImage, sampleLayer, tarBytes, writeTar } from './archives.ts';
import { bytesOf, failureOf, storeAll, useWorkplace } from './opening.ts';

// As on Node 20, whatever Node runs this.
vi.mock('node:zlib', async importOriginal => {
  const actual = await importOriginal<typeof import('node:zlib')>();
  const { createZstdCompress: _compress, createZstdDecompress: _decompress, ...older } = actual;
  return { ...older, default: older };
});

const place = useWorkplace();
const layer = await sampleLayer('base', 'x'.repeat(300_000));
const app = sampleImage([layer]);
const archive = await tarBytes(dockerArchive([[['app:v1'], app]], 'docker'));
const ZSTD = execFileSync('sh', ['-c', 'command -v zstd'], { encoding: 'utf8' }).trim();

afterEach(() => {
  vi.unstubAllEnvs();
});

/** Makes PATH a directory of its own, which `fill` may put programs into. */
async function withPath(fill: (directory: string) => Promise<void> = async () => {}): Promise<void> {
  const directory = join(place.directory, 'bin');
  await mkdir(directory);
  await fill(directory);
  vi.stubEnv('PATH', directory);
}

const writeArchive = () => writeTar(join(place.directory, 'image.tar'), dockerArchive([[['app:v1'], app]], 'docker'));

describe('on a Node without zstd', () => {
  it('layers are compressed by the zstd program', async () => {
    await withPath(directory => symlink(ZSTD, join(directory, 'zstd')));
    const [blob] = await storeAll(await place.openArchive(await writeArchive()));
    expect(blob?.compression).toBe('zstd');
    const running = promisify(execFile)(ZSTD, ['-d', '-c'], { encoding: 'buffer' });
    running.child.stdin?.end(await bytesOf(blob?.open() ?? expect.unreachable()));
    expect((await running).stdout.equals(layer.tar)).toBe(true);
    expect(place.lines).toContainEqual(expect.stringContaining('zstd (program)'));
  });

  it('a zstd program that fails is an error, and not a shorter layer', async () => {
    await withPath(async directory => {
      const script =
        '#!/bin/sh\n[ "$1" = --version ] && exit 0\nread -r line\necho some bytes\necho broken >&2\nexit 1\n';
      await writeFile(join(directory, 'zstd'), script);
      await chmod(join(directory, 'zstd'), 0o755);
    });
    const set = await place.openArchive(await writeArchive());
    expect(await failureOf(storeAll(set))).toMatchObject({
      message: expect.stringMatching(/zstd failed: broken|EPIPE|closed/),
    });
  });

  it('nor the program, layers are compressed with gzip', async () => {
    await withPath();
    const [blob] = await storeAll(await place.openArchive(await writeArchive()));
    expect(blob?.compression).toBe('gzip');
    expect(gunzipSync(await bytesOf(blob?.open() ?? expect.unreachable())).equals(layer.tar)).toBe(true);
    expect(place.lines).toContainEqual(expect.stringContaining('gzip, because'));
  });

  it('nor the program, zstd by name is refused before anything is read', async () => {
    await withPath();
    const opening = place.open({ archive: await writeArchive(), compression: 'zstd' });
    expect(await failureOf(opening)).toMatchObject({ code: 'INPUT_INVALID', hint: expect.stringContaining('zstd') });
  });

  it('nor the program, an archive in zstd is refused with the way out', async () => {
    const path = join(place.directory, 'image.tar');
    await writeFile(path, archive);
    await promisify(execFile)(ZSTD, ['-q', path]);
    expect(await storeAll(await place.openArchive(`${path}.zst`))).toHaveLength(1);
    await withPath();
    expect(await failureOf(place.openArchive(`${path}.zst`))).toMatchObject({
      code: 'ARCHIVE_INVALID',
      message: expect.stringContaining('zstd'),
      hint: expect.stringContaining('Install the `zstd` program'),
    });
    await writeFile(path, gzipSync(archive));
    expect(await storeAll(await place.openArchive(path))).toHaveLength(1);
  });
});

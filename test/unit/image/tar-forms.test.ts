import { execFile } from 'node:child_process';
import { createReadStream } from 'node:fs';
import { mkdir, open, stat, symlink, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { pipeline } from 'node:stream/promises';
import { promisify } from 'node:util';
import { describe, expect, it, vi } from 'vitest';
import { findFile } from '../../../src/image/entries.ts';
import { scanTarFile } from '../../../src/image/tar-file.ts';
import { dockerArchive, sampleImage, sampleLayer, type TarEntry, tarBytes } from './archives.ts';
import { bytesOf, failureOf, storeAll, useWorkplace } from './opening.ts';

const place = useWorkplace();
const run = promisify(execFile);
const app = sampleImage([await sampleLayer('base'), await sampleLayer('top')]);
const LONG = `${'a-long-folder-name/'.repeat(12)}${'x'.repeat(120)}`;

/** Writes entries to a folder, and packs it with the `tar` program. */
async function packed(entries: readonly TarEntry[], ...options: readonly string[]): Promise<string> {
  const folder = join(place.directory, 'folder');
  for (const { name, content, type, linkname } of entries) {
    const path = join(folder, name);
    await mkdir(dirname(path), { recursive: true });
    if (type === 'symlink') await symlink(linkname ?? '', path);
    else if (type === undefined) await writeFile(path, content ?? '');
  }
  const archive = join(place.directory, 'image.tar');
  await run('tar', [...options, '-cf', archive, '-C', folder, '.']);
  return archive;
}

/** The archive with the layers under names that need an extension of the tar format. */
function withLongNames(): readonly TarEntry[] {
  return dockerArchive([[['app:v1'], app]], 'kaniko').map(entry => ({
    ...entry,
    name: entry.name.endsWith('.tar.gz') ? `${LONG}/${entry.name}` : entry.name,
    ...(entry.name === 'manifest.json'
      ? { content: Buffer.from(String(entry.content).replaceAll(/"([0-9a-f]{64}\.tar\.gz)"/g, `"${LONG}/$1"`)) }
      : {}),
  }));
}

describe('a tar of any dialect is read alike', () => {
  it.each(['gnu', 'posix', 'ustar', 'v7'])('--format=%s', async format => {
    const archive = await packed(dockerArchive([[['app:v1'], app]], 'podman'), `--format=${format}`);
    const set = await place.openArchive(archive, 'app:v1');
    expect(await storeAll(set)).toHaveLength(2);
  });

  it.each(['gnu', 'posix'])('--format=%s with long names, in place and as a stream', async format => {
    const archive = await packed(withLongNames(), `--format=${format}`);
    expect(await storeAll(await place.openArchive(archive, 'app:v1'))).toHaveLength(2);
    await run('gzip', [archive]);
    expect(await storeAll(await place.openArchive(`${archive}.gz`, 'app:v1'))).toHaveLength(2);
  });

  it('through a named pipe, which can be read only once', async () => {
    const archive = await packed(dockerArchive([[['app:v1'], app]], 'docker'));
    const fifo = join(place.directory, 'pipe');
    await run('mkfifo', [fifo]);
    const writing = open(fifo, 'w').then(pipe => pipeline(createReadStream(archive), pipe.createWriteStream()));
    const set = await place.openArchive(fifo, 'app:v1');
    await writing;
    expect(await storeAll(set)).toHaveLength(2);
  });

  it('compressed in several frames or members', async () => {
    const bytes = await tarBytes(dockerArchive([[['app:v1'], app]], 'docker'));
    for (const program of ['gzip', 'zstd']) {
      const path = join(place.directory, `image.${program}`);
      const parts: Buffer[] = [];
      for (const [index, part] of [bytes.subarray(0, 1000), bytes.subarray(1000)].entries()) {
        const file = join(place.directory, `part-${program}-${index}`);
        await writeFile(file, part);
        parts.push((await run(program, ['-c', file], { encoding: 'buffer' })).stdout);
      }
      await writeFile(path, Buffer.concat(parts));
      expect(await storeAll(await place.openArchive(path, 'app:v1'))).toHaveLength(2);
    }
  });
});

it('several zstd frames are refused where only the first could be read', async () => {
  const bytes = await tarBytes(dockerArchive([[['app:v1'], app]], 'docker'));
  const parts: Buffer[] = [];
  for (const part of [bytes, bytes.subarray(0, 512)]) {
    const file = join(place.directory, 'part');
    await writeFile(file, part);
    parts.push((await run('zstd', ['-c', file], { encoding: 'buffer' })).stdout);
  }
  const path = join(place.directory, 'image.tar.zst');
  await writeFile(path, Buffer.concat(parts));
  vi.stubEnv('PATH', place.directory);
  const failure = await failureOf(place.openArchive(path, 'app:v1'));
  vi.unstubAllEnvs();
  expect(failure).toMatchObject({ code: 'ARCHIVE_INVALID', hint: expect.stringContaining('`zstd` program') });
});

describe('a file of more than 8 GiB', () => {
  const BIG_BYTES = 9 * 2 ** 30;

  it.each(['gnu', 'posix'])('is passed over, and what follows is found (--format=%s)', async format => {
    const folder = join(place.directory, 'folder');
    await mkdir(folder);
    await writeFile(join(folder, '2-after'), 'what follows');
    const big = await open(join(folder, '1-big'), 'w');
    await big.truncate(BIG_BYTES);
    await big.close();
    // Only the header of the big file is packed; its body is a hole in the archive.
    const archive = join(place.directory, 'big.tar');
    const pack = `tar --format=${format} -cf - -C "$1" 1-big | head -c "$2"`;
    const headerBytes = format === 'gnu' ? 512 : 3 * 512;
    const { stdout: header } = await run('sh', ['-c', pack, 'sh', folder, String(headerBytes)], { encoding: 'buffer' });
    const { stdout: after } = await run('tar', ['-cf', '-', '-C', folder, '2-after'], { encoding: 'buffer' });
    const file = await open(archive, 'w');
    await file.write(header, 0, header.length, 0);
    await file.write(after, 0, after.length, headerBytes + BIG_BYTES);
    await file.close();

    const handle = await open(archive);
    const entries = await scanTarFile(handle, archive, 'the archive', new AbortController().signal);
    await handle.close();
    expect(findFile(entries, '1-big')?.sizeBytes).toBe(BIG_BYTES);
    const found = findFile(entries, '2-after') ?? expect.unreachable();
    expect(String(await bytesOf(found.open()))).toBe('what follows');
    expect((await stat(archive)).blocks * 512).toBeLessThan(1 << 20);
  });
});

it('an archive that grew shorter after it was opened is an error when the layer is read', async () => {
  const archive = await packed(dockerArchive([[['app:v1'], app]], 'docker'));
  const set = await place.openArchive(archive, 'app:v1');
  await writeFile(archive, '');
  expect(await failureOf(storeAll(set))).toMatchObject({ code: 'ARCHIVE_CORRUPT' });
});

import { execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import {
  chmod,
  type FileHandle,
  link,
  mkdir,
  readdir,
  readFile,
  rm,
  stat,
  truncate,
  utimes,
  writeFile,
} from 'node:fs/promises';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { promisify } from 'node:util';
import { gzipSync } from 'node:zlib';
import { afterEach, beforeEach, describe, expect, it, onTestFinished } from 'vitest';
import { SideloadError } from '../../../src/errors.ts';
import { writeTo } from '../../../src/image/blob-file.ts';
import { type CacheFile, type LayerCache, openCache } from '../../../src/image/cache.ts';
import { type Digest, digestOf, hexOf } from '../../../src/image/digest.ts';
import { openScratch, type Scratch, type ScratchOptions, type StoredContent } from '../../../src/image/scratch.ts';
import { dockerArchive, gzipped, sampleImage, sampleLayer, sha256, tarBytes, writeTar } from './archives.ts';
import { bytesOf, failureOf, storeAll, useWorkplace } from './opening.ts';

const never = new AbortController().signal;
const ENOUGH = 1e9;
const place = useWorkplace();
const layer = await sampleLayer('base', 'x'.repeat(200_000));
const diffId: Digest = `sha256:${sha256(layer.tar)}`;
let directory: string;
let open: Scratch[];

beforeEach(() => {
  directory = join(place.directory, 'cache');
  open = [];
});

afterEach(async () => {
  for (const scratch of open) await scratch.close();
});

async function scratchWith(options: ScratchOptions = {}): Promise<Scratch> {
  const cache = { directory, maxBytes: ENOUGH };
  const scratch = await openScratch(place.scratch, line => place.lines.push(line), never, { cache, ...options });
  open.push(scratch);
  return scratch;
}

const entries = () => readdir(directory);
const write = (scratch: Scratch, bytes: Buffer) => scratch.write(() => Readable.from([bytes]), never);

/** What an earlier run has left. */
async function stored(bytes = layer.tar, options: ScratchOptions = {}): Promise<StoredContent> {
  const scratch = await scratchWith(options);
  const content = await write(scratch, bytes);
  await scratch.keep(content);
  await scratch.close();
  return content;
}

async function entryPath(): Promise<string> {
  const names = await entries();
  expect(names).toHaveLength(1);
  return join(directory, names[0] ?? '');
}

describe('a layer that an earlier run has stored', () => {
  it('is found by its diffID, and is a file of this user alone, named by what it is', async () => {
    const first = await stored();
    expect(await entries()).toEqual([`${hexOf(diffId)}.${hexOf(first.blob.digest)}.zstd-1`]);
    expect((await stat(directory)).mode & 0o777).toBe(0o700);
    expect((await stat(await entryPath())).mode & 0o777).toBe(0o600);
    const found = await (await scratchWith()).find(diffId);
    expect(found).toMatchObject({ digest: diffId, compression: 'none', blob: { compression: 'zstd' } });
    const bytes = await bytesOf(found?.blob.open() ?? expect.unreachable());
    expect(digestOf(bytes)).toBe(first.blob.digest);
    expect(bytes).toHaveLength(first.blob.sizeBytes);
  });

  it('is not read from the source again', async () => {
    const archive = await writeTar(
      join(place.directory, 'image.tar'),
      dockerArchive([[['app:v1'], sampleImage([layer])]], 'docker'),
    );
    const cache = { directory, maxBytes: ENOUGH };
    const first = await place.open({ archive, cache });
    const [before] = await storeAll(first);
    await first.close();
    // The same archive with its metadata whole and its layer gone bad.
    const bytes = await readFile(archive);
    bytes.fill('y', bytes.indexOf('x'.repeat(1000)), bytes.lastIndexOf('x'.repeat(1000)));
    await writeFile(archive, bytes);
    const [after] = await storeAll(await place.open({ archive, cache }));
    expect(after?.digest).toBe(before?.digest);
    expect(await failureOf(storeAll(await place.open({ archive })))).toMatchObject({ code: 'ARCHIVE_CORRUPT' });
  });

  it('is found by its digest in the source when it was compressed there, and by a diffID that is proven', async () => {
    const gz = gzipped(layer);
    const bytes = gz.blob ?? expect.unreachable();
    const scratch = await scratchWith();
    const content = await write(scratch, bytes);
    expect(content.digest).toBe(digestOf(bytes));
    await scratch.keep(content, diffId);
    await scratch.close();
    expect(await entries()).toHaveLength(2);
    const next = await scratchWith();
    expect(await next.find(content.digest)).toMatchObject({ compression: 'gzip', blob: { digest: content.digest } });
    expect(await next.find(diffId)).toMatchObject({
      digest: diffId,
      compression: 'none',
      blob: { digest: content.digest, compression: 'gzip' },
    });
  });

  it('is compressed anew for another setting, and both stay', async () => {
    await stored();
    const scratch = await scratchWith({ compression: 'gzip' });
    expect(await scratch.find(diffId)).toBeUndefined();
    await scratch.keep(await write(scratch, layer.tar));
    const plain = await scratchWith({ compression: 'none' });
    expect(await plain.find(diffId)).toBeUndefined();
    const content = await write(plain, layer.tar);
    expect(content.blob).toMatchObject({ digest: diffId, compression: 'none', sizeBytes: layer.tar.length });
    await plain.keep(content);
    const labels = (await entries()).map(name => name.split('.')[2]);
    expect(labels.sort()).toEqual(['gzip-1', 'none', 'zstd-1']);
    expect((await (await scratchWith()).find(diffId))?.blob.compression).toBe('zstd');
  });
});

describe('what is not known to be a layer', () => {
  it('does not stay in the cache, and what an image needs does', async () => {
    const scratch = await scratchWith();
    const content = await write(scratch, layer.tar);
    const other = await write(scratch, Buffer.from('README'));
    expect(await scratch.find(other.digest)).toBe(other);
    await scratch.retain(new Set([content.digest]));
    expect(await scratch.find(other.digest)).toBeUndefined();
    expect(await entryPath()).toContain(hexOf(diffId));
    await write(scratch, Buffer.from('NOTICE'));
    await scratch.close();
    expect(await entryPath()).toContain(hexOf(diffId));
  });

  it('stays when an earlier run has proven that it is one', async () => {
    await stored();
    const scratch = await scratchWith();
    expect(await scratch.find(diffId)).toBeDefined();
    await scratch.retain(new Set());
    expect(await entries()).toHaveLength(1);
  });
});

describe('content that is not what its name says', () => {
  const other = Buffer.from('something else entirely');

  it.each<[string, (path: string) => Promise<void>]>([
    ['with other bytes', path => writeFile(path, other)],
    ['too short', async path => truncate(path, (await stat(path)).size - 1)],
  ])('%s fails the reader before its end, and is gone then', async (_name, damage) => {
    await stored(layer.tar, { compression: 'none' });
    await damage(await entryPath());
    const found = await (await scratchWith({ compression: 'none' })).find(diffId);
    const stream = found?.blob.open() ?? expect.unreachable();
    let readBytes = 0;
    const reading = (async () => {
      for await (const chunk of stream) readBytes += (chunk as Buffer).length;
    })();
    expect(await failureOf(reading)).toMatchObject({
      code: 'CACHE_CORRUPT',
      message: expect.stringContaining(diffId),
      hint: expect.stringContaining('again'),
    });
    expect(readBytes).toBeLessThan(found?.blob.sizeBytes ?? 0);
    expect(await entries()).toEqual([]);
  });

  it('that grows shorter while it is in use is the same error', async () => {
    const big = Buffer.concat(Array.from({ length: 40_000 }, (_, index) => Buffer.from(sha256(`${index}`), 'hex')));
    await stored(big, { compression: 'none' });
    const found = await (await scratchWith({ compression: 'none' })).find(digestOf(big));
    await truncate(await entryPath(), 600_000);
    expect(await failureOf(bytesOf(found?.blob.open() ?? expect.unreachable()))).toMatchObject({
      code: 'CACHE_CORRUPT',
      message: expect.stringContaining('ends after 600000 of 1280000 bytes'),
    });
    expect(await entries()).toEqual([]);
  });

  it('takes its other name along', async () => {
    const bytes = gzipped(layer).blob ?? expect.unreachable();
    const scratch = await scratchWith();
    await scratch.keep(await write(scratch, bytes), diffId);
    await scratch.close();
    const [first = ''] = await entries();
    await writeFile(join(directory, first), other);
    const found = await (await scratchWith()).find(diffId);
    expect(await failureOf(bytesOf(found?.blob.open() ?? expect.unreachable()))).toMatchObject({
      code: 'CACHE_CORRUPT',
    });
    expect(await entries()).toEqual([]);
  });

  it('that is empty, as after a power cut, is not found', async () => {
    await stored();
    await truncate(await entryPath(), 0);
    expect(await (await scratchWith()).find(diffId)).toBeUndefined();
    expect(await entries()).toEqual([]);
  });
});

describe('the config of an image', () => {
  const config = Buffer.from('{"architecture":"amd64"}');

  it('is there for the next run, as it was', async () => {
    const scratch = await scratchWith();
    expect(await scratch.findConfig(digestOf(config))).toBeUndefined();
    await scratch.keepConfig(digestOf(config), config);
    await scratch.close();
    expect(await (await scratchWith()).findConfig(digestOf(config))).toEqual(config);
  });

  it('is not found, and goes, when it is not what its name says', async () => {
    const scratch = await scratchWith();
    await scratch.keepConfig(digestOf(config), config);
    await writeFile(await entryPath(), '{}');
    expect(await scratch.findConfig(digestOf(config))).toBeUndefined();
    expect(await entries()).toEqual([]);
  });
});

describe('several runs at once', () => {
  it('store the same layers, and none disturbs the other', async () => {
    const layers = await Promise.all([1, 2, 3].map(index => sampleLayer(`${index}`, `${index}`.repeat(300_000))));
    const runs = await Promise.all([1, 2, 3, 4].map(() => scratchWith()));
    const contents = await Promise.all(
      runs.flatMap(scratch =>
        layers.map(async ({ tar }) => {
          const content = await write(scratch, tar);
          await scratch.keep(content);
          return content;
        }),
      ),
    );
    for (const { blob } of contents) {
      expect(digestOf(await bytesOf(blob.open()))).toBe(blob.digest);
    }
    for (const scratch of runs) await scratch.close();
    expect(await entries()).toHaveLength(3);
    const next = await scratchWith();
    for (const { tar } of layers) {
      const found = await next.find(digestOf(tar));
      expect(digestOf(await bytesOf(found?.blob.open() ?? expect.unreachable()))).toBe(found?.blob.digest);
    }
  });

  it('in processes of their own', async () => {
    const script = `
      import { Readable } from 'node:stream';
      import { openScratch } from './src/image/scratch.ts';
      const never = new AbortController().signal;
      const options = { cache: { directory: process.env.DIRECTORY, maxBytes: 1e9 } };
      const scratch = await openScratch(process.env.SCRATCH, () => {}, never, options);
      for (let index = 0; index < 20; index += 1) {
        const bytes = Buffer.alloc(50_000, 65 + index);
        const content = await scratch.write(() => Readable.from([bytes]), never);
        await scratch.keep(content);
        for await (const _ of content.blob.open());
      }
      await scratch.close();`;
    const env = { ...process.env, DIRECTORY: directory, SCRATCH: place.scratch };
    const run = () =>
      promisify(execFile)(process.execPath, ['--no-warnings', '--input-type=module', '-e', script], { env });
    await Promise.all([run(), run(), run()]);
    expect(await entries()).toHaveLength(20);
  });

  it('read on when another one removes the file', async () => {
    const first = await stored();
    const reader = await scratchWith();
    const found = await reader.find(diffId);
    const evicting = await scratchWith({ cache: { directory, maxBytes: 1 } });
    await evicting.close();
    expect(await entries()).toEqual([]);
    expect(digestOf(await bytesOf(found?.blob.open() ?? expect.unreachable()))).toBe(first.blob.digest);
    // What is gone from the cache is stored anew by whoever needs it next.
    expect(await (await scratchWith()).find(diffId)).toBeUndefined();
  });

  it('go on when all of the cache is taken away', async () => {
    const scratch = await scratchWith();
    await rm(directory, { recursive: true });
    const content = await write(scratch, layer.tar);
    await rm(directory, { recursive: true });
    await scratch.keep(content);
    expect(await scratch.find(digestOf('nothing'))).toBeUndefined();
    expect(digestOf(await bytesOf(content.blob.open()))).toBe(content.blob.digest);
  });
});

describe('a file that a run was killed over', () => {
  /** The name that this process gives a file. */
  async function partialName(): Promise<string> {
    const cache = await openCache({ directory, maxBytes: ENOUGH }, place.scratch, () => {});
    await cache.create();
    const [name = ''] = await entries();
    await cache.close();
    return name;
  }
  const leave = async (name: string, ageMs = 0) => {
    await writeFile(join(directory, name), 'unfinished');
    const time = new Date(Date.now() - ageMs);
    await utimes(join(directory, name), time, time);
  };
  const HOUR_MS = 3_600_000;

  it('is removed by the next run', async () => {
    const child = spawn(process.execPath, ['--no-warnings', '--input-type=module', '-e', HALF_WAY], {
      env: { ...process.env, DIRECTORY: directory, SCRATCH: place.directory },
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    onTestFinished(() => void child.kill('SIGKILL'));
    await once(child.stdout, 'data');
    expect(await entries()).toEqual([expect.stringContaining('.partial')]);
    // It lives: nobody may take its file away.
    await (await scratchWith()).close();
    expect(await entries()).toHaveLength(1);
    child.kill('SIGKILL');
    await once(child, 'exit');
    await scratchWith();
    expect(await entries()).toEqual([]);
  });

  it('is known for it even when its process ID is in use again', async () => {
    const name = await partialName();
    await leave(name.replace(/-(\d+)-(\d+)-/, (_, pid, start) => `-${pid}-${Number(start) - 1}-`));
    await scratchWith();
    expect(await entries()).toEqual([]);
  });

  it('is left alone for a day when it is another machine’s', async () => {
    const name = await partialName();
    const foreign = (letter: string) => name.replace(/^[0-9a-f]{16}/, letter.repeat(16));
    await leave(foreign('a'), 23 * HOUR_MS);
    await leave(foreign('b'), 25 * HOUR_MS);
    await leave('somebody’s own file', 25 * HOUR_MS);
    await scratchWith();
    expect((await entries()).sort()).toEqual([foreign('a'), 'somebody’s own file']);
  });
});

describe('the size', () => {
  const sizes = { a: 1000, b: 2000, c: 3000 };
  const content = (letter: string) => Buffer.alloc(sizes[letter as keyof typeof sizes], letter);
  const lettersIn = async () => {
    const names = await entries();
    return Object.keys(sizes).filter(letter => names.some(name => name.startsWith(hexOf(digestOf(content(letter))))));
  };
  const bounded = (maxBytes: number) => scratchWith({ compression: 'none', cache: { directory, maxBytes } });

  beforeEach(async () => {
    for (const [index, letter] of ['b', 'c', 'a'].entries()) {
      await stored(content(letter), { compression: 'none' });
      const name = (await entries()).find(one => one.startsWith(hexOf(digestOf(content(letter))))) ?? '';
      const time = new Date(Date.UTC(2020, 0, 1 + index));
      await utimes(join(directory, name), time, time);
    }
  });

  it.each([
    [6000, ['a', 'b', 'c']],
    [5999, ['a', 'c']],
    [4000, ['a', 'c']],
    [3999, ['a']],
    [999, []],
  ])('of %i bytes leaves %j: what was not used for longest goes first', async (maxBytes, left) => {
    await (await bounded(maxBytes)).close();
    expect(await lettersIn()).toEqual(left);
  });

  it('counts what was used by this run as the newest', async () => {
    const scratch = await bounded(3999);
    expect(await scratch.find(digestOf(content('b')))).toBeDefined();
    await scratch.close();
    expect(await lettersIn()).toEqual(['a', 'b']);
  });

  it('counts a file with two names once', async () => {
    const [name = ''] = (await entries()).filter(one => one.startsWith(hexOf(digestOf(content('a')))));
    await link(join(directory, name), join(directory, name.replace(/^[0-9a-f]{64}/, '0'.repeat(64))));
    await (await bounded(6000)).close();
    expect(await entries()).toHaveLength(4);
    await (await bounded(999)).close();
    expect(await entries()).toEqual([]);
  });

  it('makes room on a full disk, but not of what this run uses', async () => {
    const cache: LayerCache = await openCache({ directory, maxBytes: ENOUGH }, place.scratch, () => {});
    const used: CacheFile | undefined = (await cache.find(digestOf(content('c')), 'none'))?.file;
    expect(used).toBeDefined();
    expect(await cache.makeRoom(1)).toBe(2000);
    expect(await lettersIn()).toEqual(['a', 'c']);
    expect(await cache.makeRoom(1e9)).toBe(1000);
    expect(await lettersIn()).toEqual(['c']);
    expect(await cache.makeRoom(1)).toBe(0);
    await cache.close();
  });
});

describe('without a place to keep layers', () => {
  const ways: readonly [string, () => Promise<ScratchOptions['cache']>, string | undefined][] = [
    ['that is off', async () => ({ directory, maxBytes: 0 }), undefined],
    ['that has no home', async () => ({ directory: undefined, maxBytes: ENOUGH }), 'no home directory'],
    [
      'that is below a file',
      async () => {
        await writeFile(join(place.directory, 'file'), '');
        return { directory: join(place.directory, 'file', 'layers'), maxBytes: ENOUGH };
      },
      'ENOTDIR',
    ],
    [
      'that everybody may write to',
      async () => {
        await mkdir(join(place.directory, 'open'), { recursive: true });
        await chmod(join(place.directory, 'open'), 0o777);
        return { directory: join(place.directory, 'open'), maxBytes: ENOUGH };
      },
      'by everybody',
    ],
  ];

  it.each(ways)('a cache %s is one for this run only', async (_name, options, said) => {
    const scratch = await scratchWith({ cache: await options() });
    const content = await write(scratch, layer.tar);
    await scratch.keep(content);
    expect(await scratch.find(diffId)).toBe(content);
    await scratch.close();
    const next = await scratchWith({ cache: await options() });
    expect(await next.find(diffId)).toBeUndefined();
    const lines = place.lines.filter(line => line.includes('for this run only'));
    if (said === undefined) expect(lines).toEqual([]);
    else expect(lines[0]).toContain(said);
  });
});

describe('a disk that is full', () => {
  /** A file on a disk with little room. */
  function tightFile(freeBytes: number) {
    const disk = { freeBytes, written: [] as Buffer[] };
    const handle = {
      async write(chunk: Buffer) {
        if (disk.freeBytes === 0) throw Object.assign(new Error('full'), { code: 'ENOSPC' });
        const bytesWritten = Math.min(disk.freeBytes, chunk.length);
        disk.freeBytes -= bytesWritten;
        disk.written.push(chunk.subarray(0, bytesWritten));
        return { bytesWritten };
      },
    };
    return { disk, handle: handle as Partial<FileHandle> as FileHandle };
  }
  const bytes = Buffer.from('twenty bytes of text');

  it('is written to again after old layers have made room', async () => {
    const { disk, handle } = tightFile(7);
    const makeRoom = async () => {
      disk.freeBytes += 7;
      return 7;
    };
    await pipeline(Readable.from([bytes]), writeTo(handle, makeRoom));
    expect(Buffer.concat(disk.written).equals(bytes)).toBe(true);
  });

  it('is an error when there is nothing left to remove', async () => {
    const { handle } = tightFile(7);
    const failed = pipeline(
      Readable.from([bytes]),
      writeTo(handle, async () => 0),
    );
    await expect(failed).rejects.toMatchObject({ code: 'ENOSPC' });
  });
});

it('an archive that comes as a stream is compressed once, for this run and the next', async () => {
  const large = await sampleLayer('large', Buffer.concat(Array.from({ length: 90 }, () => Buffer.alloc(50_000, 'ab'))));
  const archive = join(place.directory, 'image.tar.gz');
  const bytes = await tarBytes(dockerArchive([[['app:v1'], sampleImage([large])]], 'docker'));
  await writeFile(archive, gzipSync(bytes));
  const cache = { directory, maxBytes: ENOUGH };
  const first = await place.open({ archive, cache });
  const [before] = await storeAll(first);
  await first.close();
  const { ino } = await stat(await entryPath());
  // A layer that is claimed to be the known one is not looked at: its bytes are proven elsewhere.
  bytes.fill('y', bytes.indexOf('abab') + 1000, bytes.indexOf('abab') + 2000);
  await writeFile(archive, gzipSync(bytes));
  const [after] = await storeAll(await place.open({ archive, cache }));
  expect(after?.digest).toBe(before?.digest);
  expect((await stat(await entryPath())).ino).toBe(ino);
});

it('a layer whose archive breaks off leaves nothing', async () => {
  const scratch = await scratchWith();
  async function* broken(): AsyncGenerator<Buffer> {
    yield layer.tar.subarray(0, 1000);
    throw new SideloadError('ARCHIVE_INVALID', 'broken off');
  }
  const failed = scratch.write(() => Readable.from(broken()), never);
  expect(await failureOf(failed)).toMatchObject({ code: 'ARCHIVE_INVALID' });
  expect(await entries()).toEqual([]);
});

const HALF_WAY = `
  import { Readable } from 'node:stream';
  import { openScratch } from './src/image/scratch.ts';
  const never = new AbortController().signal;
  const options = { cache: { directory: process.env.DIRECTORY, maxBytes: 1e9 } };
  const scratch = await openScratch(process.env.SCRATCH, () => {}, never, options);
  async function* endless() {
    yield Buffer.alloc(1000);
    console.log('writing');
    await new Promise(resolve => setTimeout(resolve, 60_000));
  }
  await scratch.write(() => Readable.from(endless()), never);`;

describe('a cache that is only looked into', () => {
  const looking = () => scratchWith({ cache: { directory, maxBytes: 1, isReadOnly: true } });

  it('is not made, and what is stored goes with the run', async () => {
    const scratch = await looking();
    await scratch.keep(await write(scratch, layer.tar), diffId);
    await scratch.close();
    await expect(entries()).rejects.toMatchObject({ code: 'ENOENT' });
  });

  it('gives what is there, and stays as it is, too large and with what is no entry', async () => {
    await stored();
    await writeFile(join(directory, `${'0'.repeat(64)}.${'1'.repeat(64)}.none`), '');
    const state = async () =>
      await Promise.all((await entries()).map(async name => [name, (await stat(join(directory, name))).mtimeMs]));
    const before = await state();
    const scratch = await looking();
    expect(await scratch.find(diffId)).toBeDefined();
    expect(await scratch.find(`sha256:${'0'.repeat(64)}` as Digest)).toBeUndefined();
    await scratch.close();
    expect(await state()).toEqual(before);
  });

  it('is not believed where everybody may write', async () => {
    await stored();
    await chmod(directory, 0o777);
    expect(await (await looking()).find(diffId)).toBeUndefined();
  });
});

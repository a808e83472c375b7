import { mkdir, readdir, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { gzipSync } from 'node:zlib';
import { pack } from 'tar-stream';
import { describe, expect, it } from 'vitest';
import type { ErrorCode } from '../../../src/errors.ts';
import type { Scratch } from '../../../src/image/scratch.ts';
import { readTarStream } from '../../../src/image/tar-pipe.ts';
import {
  dockerArchive,
  named,
  ociArchive,
  sampleImage,
  sampleLayer,
  sha256,
  type TarEntry,
  tarBytes,
  writeTar,
} from './archives.ts';
import { failureOf, useWorkplace } from './opening.ts';

const place = useWorkplace();
const app = sampleImage([await sampleLayer('base')]);
const archive = (entries: readonly TarEntry[]) => writeTar(join(place.directory, 'image.tar'), entries);
const opened = async (entries: readonly TarEntry[]) => place.openArchive(await archive(entries), 'app:v1');
const times = <T>(count: number, make: (index: number) => T) =>
  Array.from({ length: count }, (_, index) => make(index));

interface Blob {
  readonly digest: string;
  readonly size: number;
  /** No part of what a descriptor is written as. */
  readonly entry: TarEntry;
}

/** A blob with a digest of its own. */
function blob(content: unknown): Blob {
  const bytes = Buffer.from(JSON.stringify(content));
  const entry = { name: `blobs/sha256/${sha256(bytes)}`, content: bytes };
  const descriptor = { digest: `sha256:${sha256(bytes)}`, size: bytes.length };
  return Object.defineProperty(descriptor, 'entry', { value: entry }) as Blob;
}

function indexed(manifests: readonly unknown[], ...blobs: readonly TarEntry[]): readonly TarEntry[] {
  return [...blobs, { name: 'index.json', content: Buffer.from(JSON.stringify({ manifests })) }];
}

/** Indexes within each other that name the next one 40 times each, around an image. */
function nested(depth: number): readonly TarEntry[] {
  const entries = [...ociArchive([{ image: app }])];
  let below: object[] = JSON.parse(String(entries.pop()?.content)).manifests;
  for (let level = 0; level < depth; level += 1) {
    const index = blob({ manifests: times(40, () => below[0]) });
    entries.push(index.entry);
    below = [{ digest: index.digest, size: index.size, annotations: named('docker.io/library/app:v1') }];
  }
  return indexed(below, ...entries);
}

describe('an archive that names the same thing many times', () => {
  it('with indexes that name the next one 40 times each, is read in one pass', async () => {
    const [first] = (await opened(nested(4))).images;
    expect(first?.variants.map(({ imageId }) => imageId)).toEqual([app.imageId]);
  });

  it('with indexes deeper than anybody nests them is told', async () => {
    expect(await failureOf(opened(nested(6)))).toMatchObject({
      code: 'ARCHIVE_INVALID',
      message: expect.stringContaining('nests indexes deeper than 4'),
    });
  });

  it('reads a manifest once, whichever names it has', async () => {
    const nodes = times(5000, index => ({ image: app, annotations: named(`docker.io/library/app:v${index}`) }));
    const set = await opened(ociArchive(nodes));
    expect(set.images).toMatchObject([{ reference: 'docker.io/library/app:v1' }]);
  });

  it('tells the first faults of many, and how many there are', async () => {
    const gone = times(3000, index => ({ digest: `sha256:${sha256(`${index}`)}`, size: 1 }));
    const good = ociArchive([{ image: app, annotations: named('docker.io/library/app:v1') }]);
    const index = JSON.parse(String(good.at(-1)?.content));
    const bytes = Buffer.from(JSON.stringify({ manifests: [...index.manifests, { ...blob({ manifests: gone }) }] }));
    const all = [...good.slice(0, -1), blob({ manifests: gone }).entry, { name: 'index.json', content: bytes }];
    await opened(all);
    const told = place.lines.filter(line => line.startsWith('left out:'));
    expect(told).toHaveLength(21);
    expect(told.at(-1)).toBe('left out: 2980 more');
  });
});

const digest = `sha256:${'0'.repeat(64)}`;
const config = (content: object) => blob({ os: 'linux', architecture: 'amd64', ...content });
const manifest = ({ digest, size }: { readonly digest: string; readonly size: number }, layers: readonly unknown[]) =>
  blob({ config: { mediaType: 'application/vnd.oci.image.config.v1+json', digest, size }, layers });
const withConfig = (content: object, layers = 1): readonly TarEntry[] => {
  const written = config(content);
  const above = manifest(
    written,
    times(layers, () => ({ digest })),
  );
  return indexed([above], written.entry, above.entry);
};
/** Lists within lists, which `JSON.stringify` itself could not write. */
const DEEP = `${'['.repeat(10_000)}${']'.repeat(10_000)}`;

const REFUSED: readonly (readonly [what: string, entries: () => readonly TarEntry[], message: RegExp])[] = [
  ['40,000 manifests', () => indexed(times(40_000, () => ({ digest }))), /names more than 10000 manifests/],
  ['a million manifests that are none', () => indexed(times(800_000, () => null)), /has a digest that is none/],
  [
    'as many images in a docker-archive',
    () => [{ name: 'manifest.json', content: Buffer.from(JSON.stringify(times(20_000, () => ({})))) }],
    /names 20000 images, more than 10000/,
  ],
  [
    '30,000 layers',
    () => withConfig({ rootfs: { diff_ids: times(30_000, () => digest) } }, 30_000),
    /names 30000 layers, more than 1000/,
  ],
  [
    'more bytes of JSON than a machine should hold',
    () => {
      const fat = times(20, index => blob({ index, padding: 'x'.repeat(4_000_000) }));
      return indexed(fat, ...fat.map(({ entry }) => entry));
    },
    /has more than 67108864 bytes of JSON/,
  ],
  [
    'a digest that is ten thousand lists',
    () => [{ name: 'index.json', content: Buffer.from(`{"manifests":[{"digest":${DEEP}}]}`) }],
    /a digest that is none: a list/,
  ],
  ['a digest as long as a book', () => indexed([{ digest: 'x'.repeat(1_000_000) }]), /a digest that is none: "x{80}"…/],
  [
    'a diff_id that is ten thousand lists',
    () => [
      { name: 'config', content: Buffer.from(`{"os":"linux","architecture":"amd64","rootfs":{"diff_ids":[${DEEP}]}}`) },
      { name: 'manifest.json', content: Buffer.from('[{"Config":"config","Layers":["a"]}]') },
    ],
    /no digest: a list/,
  ],
  [
    'a platform that is a command of the CI system',
    () => withConfig({ os: 'linux\n::error::hello', rootfs: { diff_ids: [digest] } }),
    /names a platform that is none: "linux"/,
  ],
  ['an index.json that is a link to nothing', () => [{ name: 'index.json', type: 'symlink' as const }], /neither/],
  [
    'a manifest.json that is a link to itself',
    () => [{ name: 'manifest.json', type: 'symlink' as const, linkname: 'manifest.json' }],
    /neither/,
  ],
];

describe('an archive that was written to stop whoever reads it', () => {
  it.each(REFUSED)('with %s: is refused by name', async (_what, entries, message) => {
    const failure = await failureOf(opened(entries()));
    expect(failure).toMatchObject({ code: 'ARCHIVE_INVALID', message: expect.stringMatching(message) });
    expect(failure.message.length).toBeLessThan(1000);
  });

  it.each([
    ['a file', (bytes: Buffer) => bytes],
    ['a stream', (bytes: Buffer) => gzipSync(bytes, { level: 1 })],
  ])('with records of megabytes before a file, in %s, is refused by name', async (_form, written) => {
    const pax = { path: 'a', comment: 'x'.repeat(1_000_000) };
    const tar = pack();
    tar.entry({ name: 'a', pax }, 'a');
    tar.finalize();
    const bytes = await readAll(tar);
    const path = join(place.directory, 'image.tar');
    await writeFile(path, written(bytes));
    expect(await failureOf(place.openArchive(path))).toMatchObject({
      code: 'ARCHIVE_INVALID',
      message: expect.stringMatching(/header .* has more than 65536 bytes/),
    });
  });

  it.each([
    ['a file', (bytes: Buffer) => bytes],
    ['a stream', (bytes: Buffer) => gzipSync(bytes, { level: 1 })],
  ])('with more entries than any image has, in %s, is refused by name', async (_form, written) => {
    const one = (await tarBytes([{ name: 'a' }])).subarray(0, 512);
    const path = join(place.directory, 'image.tar');
    await writeFile(path, written(Buffer.concat([...times(33_000, () => one), Buffer.alloc(1024)])));
    expect(await failureOf(place.openArchive(path))).toMatchObject({
      code: 'ARCHIVE_INVALID',
      message: expect.stringMatching(/its headers have more than 16777216 bytes/),
    });
  });

  it('that goes on for ever after its end is not read for ever', async () => {
    const end = Buffer.alloc(1 << 20);
    async function* endless(): AsyncGenerator<Buffer> {
      yield await tarBytes(dockerArchive([[['app:v1'], app]], 'podman'));
      for (;;) yield end;
    }
    const scratch = { write: async () => ({ blob: {} }), find: async () => undefined } as unknown as Scratch;
    const reading = readTarStream(endless(), () => {}, 'the archive', scratch, new AbortController().signal);
    expect(await failureOf(reading)).toMatchObject({
      code: 'ARCHIVE_INVALID',
      message: 'the archive goes on for 67108864 bytes after its end',
    });
  });

  it('with more small files than may be open at a time, in a stream, is refused by name', async () => {
    const tar = await tarBytes(times(4050, index => ({ name: `${index}`, content: Buffer.from(`file ${index}`) })));
    const scratch = { write: async () => ({ blob: {} }), find: async () => undefined } as unknown as Scratch;
    const reading = readTarStream(Readable.from([tar]), () => {}, 'the archive', scratch, new AbortController().signal);
    expect(await failureOf(reading)).toMatchObject({
      code: 'ARCHIVE_INVALID',
      message: 'the archive has more than 4000 files that may be layers',
    });
  });

  it('a job that is cancelled meanwhile ends there', async () => {
    const cancelled = new AbortController();
    const nodes = times(200, index => ({ image: app, annotations: named(`docker.io/library/app:v${index}`) }));
    const path = await archive(ociArchive(nodes));
    const opening = place.open({ archive: path, signal: cancelled.signal });
    cancelled.abort();
    expect(await failureOf(opening)).toMatchObject({ code: 'CANCELLED' });
  });
});

describe('a layout in a directory with links', () => {
  const layout = async (target: string) => {
    const directory = join(place.directory, 'layout');
    await mkdir(directory);
    await symlink(target, join(directory, 'index.json'));
    return directory;
  };

  it.each<[file: string, code: ErrorCode]>([
    ['/etc/passwd', 'ARCHIVE_INVALID'],
    ['/proc/kmsg', 'ARCHIVE_INVALID'],
    ['/dev/zero', 'ARCHIVE_INVALID'],
  ])('%s in the place of index.json is refused, and nothing of it is told', async (file, code) => {
    const failure = await failureOf(place.openArchive(await layout(file)));
    expect(failure.code).toBe(code);
    expect(JSON.stringify([failure.message, failure.hint, String(failure.cause)])).not.toContain('root');
    expect(await readdir(place.scratch)).toEqual([]);
  });
});

async function readAll(stream: AsyncIterable<unknown>): Promise<Buffer> {
  const chunks: Buffer[] = [];
  for await (const chunk of stream) chunks.push(chunk as Buffer);
  return Buffer.concat(chunks);
}

import { Readable } from 'node:stream';
import { expect, it } from 'vitest';
import { SideloadError } from '../../../src/errors.ts';
import type { Scratch } from '../../../src/image/scratch.ts';
import { readTarStream } from '../../../src/image/tar-pipe.ts';
import { dockerArchive, sampleImage, sampleLayer, tarBytes } from './archives.ts';
import { failureOf } from './opening.ts';

const archive = await tarBytes(
  dockerArchive([[['app:v1'], sampleImage([await sampleLayer('base', 'x'.repeat(9_000_000))])]], 'docker'),
);

function chunksOf(bytes: Buffer): Readable {
  const chunks: Buffer[] = [];
  for (let offset = 0; offset < bytes.length; offset += 65_536) chunks.push(bytes.subarray(offset, offset + 65_536));
  return Readable.from(chunks);
}

it('a disk that is full while a layer passes is what the error says', async () => {
  const scratch = {
    write: async open => {
      for await (const _ of open()) throw new SideloadError('DISK_FULL', 'no space left');
      return expect.unreachable();
    },
    find: async () => undefined,
  } as Partial<Scratch> as Scratch;
  const source = chunksOf(archive);
  const reading = readTarStream(source, () => source.destroy(), 'the archive', scratch, new AbortController().signal);
  expect(await failureOf(reading)).toMatchObject({ code: 'DISK_FULL' });
  expect(source.destroyed).toBe(true);
});

it('JSON without end is refused before it fills the memory', async () => {
  const json = Buffer.from(`[${' '.repeat(4_000_000)}]`);
  const entries = Array.from({ length: 20 }, (_, index) => ({ name: `${index}.json`, content: json }));
  const reading = readTarStream(
    chunksOf(await tarBytes(entries)),
    () => {},
    'the archive',
    {} as Scratch,
    new AbortController().signal,
  );
  expect(await failureOf(reading)).toMatchObject({ code: 'ARCHIVE_INVALID', message: expect.stringContaining('JSON') });
});

it.each([512, 5000, 70_000])('a source that stalls after %i bytes of nonsense is not waited for', async sizeBytes => {
  let stop = () => {};
  const stopped = new Promise<void>(resolve => {
    stop = resolve;
  });
  async function* stalling(): AsyncGenerator<Buffer> {
    yield Buffer.alloc(sizeBytes, 'nonsense');
    await stopped;
  }
  const reading = readTarStream(stalling(), stop, 'the archive', {} as Scratch, new AbortController().signal);
  expect(await failureOf(reading)).toMatchObject({ code: 'ARCHIVE_INVALID' });
});

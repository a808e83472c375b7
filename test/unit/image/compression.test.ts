import { once } from 'node:events';
import { describe, expect, it } from 'vitest';
import { chooseCodec, chooseCompression } from '../../../src/image/compression.ts';
import type { Compression } from '../../../src/image/image.ts';

const LINKS = [undefined, 100e3, 1.25e6, 25e6, 125e6, 1.25e9];
const choose = (link: number | undefined, ...available: Compression[]) => chooseCompression(link, new Set(available));

describe('what is soonest on a node', () => {
  it.each(LINKS)('is zstd at %s bytes/s, and gzip without it', link => {
    expect(choose(link, 'zstd', 'gzip', 'none')).toBe('zstd');
    expect(choose(link, 'gzip', 'none')).toBe('gzip');
    expect(choose(link, 'none')).toBe('none');
  });
});

it('gives equal bytes for equal input, however soon the end comes', async () => {
  const never = new AbortController().signal;
  const codec = await chooseCodec('zstd', never);
  const input = Array.from({ length: 4 }, (_, index) => Buffer.alloc(700_000, index));
  const compress = async (endSoon: boolean) => {
    const { stream } = codec.start?.(never) ?? expect.unreachable();
    const output: Buffer[] = [];
    stream.on('data', (chunk: Buffer) => output.push(chunk));
    for (const chunk of input) {
      if (endSoon) stream.write(chunk);
      else await new Promise(resolve => stream.write(chunk, resolve));
    }
    stream.end();
    await once(stream, 'end');
    return Buffer.concat(output).toString('hex');
  };
  expect(await compress(true)).toBe(await compress(false));
});

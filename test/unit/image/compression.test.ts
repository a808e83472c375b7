import { describe, expect, it } from 'vitest';
import { chooseCompression } from '../../../src/image/compression.ts';
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

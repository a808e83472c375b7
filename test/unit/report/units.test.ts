import { expect, it } from 'vitest';
import { formatBytes, formatDuration } from '../../../src/report/units.ts';

it.each([
  [0, '0 B'],
  [999, '999 B'],
  [1000, '1.0 kB'],
  [999_949, '999.9 kB'],
  [999_999, '1.0 MB'],
  [650_100_000, '650.1 MB'],
  [41_830_297 * 1024, '42.8 GB'],
  [5e15, '5000.0 TB'],
])('prints %d bytes as %s', (bytes, text) => {
  expect(formatBytes(bytes)).toBe(text);
});

it.each([
  [0, '0.0 s'],
  [449, '0.4 s'],
  [12_300, '12.3 s'],
  [59_949, '59.9 s'],
  [59_999, '1 min 0 s'],
  [119_700, '2 min 0 s'],
  [125_000, '2 min 5 s'],
])('prints %d milliseconds as %s', (milliseconds, text) => {
  expect(formatDuration(milliseconds)).toBe(text);
});

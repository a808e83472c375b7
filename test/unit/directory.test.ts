import { mkdtempSync, readdirSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, expect, it } from 'vitest';
import { directoryFault, makeDirectory } from '../../src/directory.ts';

const root = mkdtempSync(join(tmpdir(), 'kube-sideload-directory-'));
writeFileSync(join(root, 'file'), '');
afterAll(() => rmSync(root, { recursive: true, force: true }));

it('a directory is made with those above it, and is no fault when it is there', async () => {
  const path = join(root, 'one', 'two');
  await Promise.all([makeDirectory(path, { mode: 0o700 }), makeDirectory(path, { mode: 0o700 })]);
  await makeDirectory(path);
  expect(statSync(path).mode & 0o777).toBe(0o700);
});

it.each([
  ['below a file', join(root, 'file', 'x'), /not a directory/],
  ['below /proc', '/proc/nope/x', /\/proc \(/],
])('one that cannot be made is an error, and was one beforehand: %s', async (_what, path, fault) => {
  expect(directoryFault(path)).toMatch(fault);
  await expect(makeDirectory(path)).rejects.toThrow(/ENOENT|ENOTDIR|EACCES/);
});

it('a place that can be written is left as it is', () => {
  const before = readdirSync(root);
  expect(directoryFault(join(root, 'three', 'four'))).toBeUndefined();
  expect(readdirSync(root)).toEqual(before);
});

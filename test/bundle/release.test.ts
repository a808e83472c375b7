import { spawnSync } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { afterAll, expect, it } from 'vitest';

const root = resolve(import.meta.dirname, '..', '..');
const base = mkdtempSync(join(tmpdir(), 'kube-sideload-release-'));
const { version, dependencies, devDependencies } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as {
  readonly version: string;
  readonly dependencies: Readonly<Record<string, string>>;
  readonly devDependencies: Readonly<Record<string, string>>;
};

afterAll(() => rmSync(base, { recursive: true, force: true }));

function release(
  name: string,
  ...args: readonly string[]
): { readonly status: number | null; readonly stderr: string } {
  return spawnSync(process.execPath, [join(root, 'scripts', 'release.ts'), ...args, join(base, name)], {
    encoding: 'utf8',
  });
}

it('makes the same files every time, which their checksums fit', () => {
  for (const name of ['one', 'two']) {
    expect(release(name)).toMatchObject({ status: 0 });
  }
  const files = readdirSync(join(base, 'one')).sort();
  expect(files).toEqual([
    'NOTES.md',
    'SHA256SUMS',
    `kube-sideload-${version}.tar.gz`,
    'kube-sideload.cjs',
    'kube-sideload.licenses.txt',
    'sbom.cdx.json',
  ]);
  for (const file of files) {
    expect(readFileSync(join(base, 'one', file)).equals(readFileSync(join(base, 'two', file))), file).toBe(true);
  }
  const checked = spawnSync('sha256sum', ['--check', 'SHA256SUMS'], { cwd: join(base, 'one'), encoding: 'utf8' });
  expect(checked.stdout.match(/: OK$/gm)).toHaveLength(4);
  expect(checked.status).toBe(0);
});

it('has the command line in one file that needs nothing beside it', () => {
  const file = join(base, 'one', 'kube-sideload.cjs');
  expect(statSync(file).mode & 0o777).toBe(0o755);
  const said = spawnSync(file, ['--version'], { cwd: '/', encoding: 'utf8', env: { PATH: process.env.PATH } });
  expect(said.stdout).toBe(`${version}\n`);
});

it('lists the packages of the bundle, and no others, and no place on this machine', () => {
  const text = readFileSync(join(base, 'one', 'sbom.cdx.json'), 'utf8');
  const { components } = JSON.parse(text) as { readonly components: readonly { readonly 'bom-ref': string }[] };
  const names = components.map(component => component['bom-ref'].replace(/@[^@]*$/, ''));
  expect(names).toEqual(expect.arrayContaining(Object.keys(dependencies)));
  // The loader of the bundle is ncc's.
  expect(names.filter(name => Object.hasOwn(devDependencies, name))).toEqual(['@vercel/ncc']);
  expect(text).not.toContain(root);
  expect(text).not.toContain('"distribution"');
});

it.each([
  ['another version', ['--tag', 'v99.0.0'], /the tag is v99\.0\.0/],
  ['a tag without its v', ['--tag', version], /the tag is/],
])('refuses %s', (what, args, message) => {
  const { status, stderr } = release(what, ...args);
  expect(stderr).toMatch(message);
  expect(status).not.toBe(0);
});

it('refuses a directory that has something in it, which would be released too', () => {
  const { status, stderr } = release('one');
  expect(stderr).toMatch(/is not empty/);
  expect(status).not.toBe(0);
});

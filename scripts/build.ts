/**
 * Builds `dist/action` and `dist/cli`: TypeScript to `lib/`, then one file each by ncc.
 *
 * ncc must not see `"type": "module"`: its output would be an ES module without `__dirname`, which ssh2 needs. So the
 * compiled sources get a package.json of their own, and the bundles one that says CommonJS.
 */
import { execFileSync } from 'node:child_process';
import { chmodSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';

const root = resolve(import.meta.dirname, '..');
const bin = (name: string) => join(root, 'node_modules', '.bin', name);
const output = resolve(root, process.argv[2] ?? 'dist');
const lib = join(root, 'lib');

rmSync(lib, { recursive: true, force: true });
execFileSync(bin('tsc'), ['-p', 'tsconfig.build.json'], { cwd: root, stdio: 'inherit' });
writeFileSync(join(lib, 'package.json'), '{}\n');

for (const entry of ['action', 'cli']) {
  const directory = join(output, entry);
  rmSync(directory, { recursive: true, force: true });
  mkdirSync(directory, { recursive: true });
  execFileSync(
    bin('ncc'),
    ['build', join(lib, `${entry}.js`), '--out', directory, '--license', 'licenses.txt', '--no-cache', '--quiet'],
    {
      cwd: root,
      stdio: ['ignore', 'ignore', 'inherit'],
    },
  );
  writeFileSync(join(directory, 'package.json'), `${JSON.stringify({ type: 'commonjs' })}\n`);
  // ssh2 offers a way to talk to PuTTY's agent on Windows through this program; nothing here uses it.
  for (const file of readdirSync(directory, { recursive: true, encoding: 'utf8' })) {
    if (file.endsWith('pagent.exe')) {
      rmSync(join(directory, file));
    } else if (/\.(node|exe|dll|so)$/.test(file)) {
      throw new Error(`a native file got into the bundle: ${join(directory, file)}`);
    }
  }
  if (entry === 'cli') {
    const file = join(directory, 'index.js');
    writeFileSync(file, `#!/usr/bin/env node\n${readFileSync(file, 'utf8')}`);
    chmodSync(file, 0o755);
  }
}
rmSync(lib, { recursive: true, force: true });

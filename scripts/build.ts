/**
 * Builds `dist/action` and `dist/cli`: TypeScript to JavaScript, then one file each by ncc. Everything is made aside and
 * moved into place at the end, so that whoever runs the bundles meanwhile finds the old ones or the new ones.
 *
 * ncc must not see `"type": "module"`: its output would be an ES module without `__dirname`, which ssh2 needs. So the
 * compiled sources get a package.json of their own, and the bundles one that says CommonJS.
 */
import { execFileSync } from 'node:child_process';
import {
  chmodSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { join, resolve } from 'node:path';

const root = resolve(import.meta.dirname, '..');
const bin = (name: string) => join(root, 'node_modules', '.bin', name);
const output = resolve(root, process.argv[2] ?? 'dist');
const cache = join(root, 'node_modules', '.cache');
mkdirSync(cache, { recursive: true });
const aside = mkdtempSync(join(cache, 'build-'));
// ncc writes this path into the bundle: it must always be the same.
const lib = join(root, 'lib');

try {
  rmSync(lib, { recursive: true, force: true });
  execFileSync(bin('tsc'), ['-p', 'tsconfig.build.json', '--outDir', lib], { cwd: root, stdio: 'inherit' });
  writeFileSync(join(lib, 'package.json'), '{}\n');
  mkdirSync(output, { recursive: true });
  for (const entry of ['action', 'cli']) {
    const directory = join(aside, entry);
    const options = ['--out', directory, '--license', 'licenses.txt', '--no-cache', '--quiet'];
    execFileSync(bin('ncc'), ['build', join(lib, `${entry}.js`), ...options], {
      cwd: root,
      stdio: ['ignore', 'ignore', 'inherit'],
    });
    finish(directory, entry);
    const target = join(output, entry);
    rmSync(target, { recursive: true, force: true });
    renameSync(directory, target);
  }
} finally {
  rmSync(lib, { recursive: true, force: true });
  rmSync(aside, { recursive: true, force: true });
}

function finish(directory: string, entry: string): void {
  writeFileSync(join(directory, 'package.json'), `${JSON.stringify({ type: 'commonjs' })}\n`);
  for (const file of readdirSync(directory, { recursive: true, encoding: 'utf8' })) {
    // ssh2 talks to PuTTY's agent on Windows through this program; nothing here uses it.
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

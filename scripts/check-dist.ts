/** Fails unless `dist/` is what `npm run build` makes of `src/`, byte for byte. */
import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';

const root = resolve(import.meta.dirname, '..');
const fresh = mkdtempSync(join(tmpdir(), 'kube-sideload-dist-'));
try {
  execFileSync(process.execPath, [join(root, 'scripts', 'build.ts'), fresh], { cwd: root, stdio: 'inherit' });
  execFileSync('diff', ['--recursive', '--brief', fresh, join(root, 'dist')], { stdio: 'inherit' });
} catch {
  console.error('dist/ is not what src/ gives; run `npm run build` and commit dist/');
  process.exitCode = 1;
} finally {
  rmSync(fresh, { recursive: true, force: true });
}

/** A realistic image: three layers out of the machine's own /usr, 650 MB together, in the runner's docker. */
import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { readdir } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Lab } from '../test/lab/index.ts';

/** Sizes of the layers in bytes, lowest first. */
const LAYERS = [400e6, 190e6, 60e6];
const SOURCES = ['/usr/lib', '/usr/local', '/usr/share', '/usr/bin'];

export interface BenchImage {
  readonly name: string;
  readonly sizeBytes: number;
}

/** Builds the image unless the engine has it already. */
export async function buildBenchImage(lab: Lab, name: string): Promise<BenchImage> {
  const env = { ...process.env, PATH: `${lab.bin}:${process.env.PATH}` };
  const docker = (args: readonly string[], cwd?: string) =>
    execFileSync('docker', args, { env, cwd, encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] }).trim();
  const directory = mkdtempSync(join(tmpdir(), 'kube-sideload-bench-'));
  try {
    const files = await filesOf(SOURCES);
    const lines = ['FROM scratch'];
    for (const [index, size] of LAYERS.entries()) {
      writeFileSync(join(directory, 'list'), `${take(files, size).join('\n')}\n`);
      execFileSync('tar', [
        '-cf',
        join(directory, `${index}.tar`),
        '-C',
        '/',
        '--no-recursion',
        '-T',
        join(directory, 'list'),
      ]);
      lines.push(`ADD ${index}.tar /`);
    }
    writeFileSync(join(directory, 'Dockerfile'), `${lines.join('\n')}\nCMD ["/bin/true"]\n`);
    docker(['build', '--quiet', '--tag', name, directory]);
    return { name, sizeBytes: Number(docker(['image', 'inspect', '--format', '{{.Size}}', name])) };
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}

async function filesOf(roots: readonly string[]): Promise<{ path: string; sizeBytes: number }[]> {
  const files: { path: string; sizeBytes: number }[] = [];
  for (const root of roots) {
    for (const entry of await readdir(root, { recursive: true, withFileTypes: true })) {
      const path = join(entry.parentPath, entry.name);
      if (entry.isFile() && !path.includes('\n')) {
        files.push({ path: path.slice(1), sizeBytes: statSync(path).size });
      }
    }
  }
  return files;
}

/** Takes files from the front until they have the size. */
function take(files: { path: string; sizeBytes: number }[], size: number): readonly string[] {
  const taken: string[] = [];
  for (let sum = 0; sum < size && files.length > 0; ) {
    const file = files.shift();
    if (file !== undefined && sum + file.sizeBytes < size * 1.02) {
      taken.push(file.path);
      sum += file.sizeBytes;
    }
  }
  return taken;
}

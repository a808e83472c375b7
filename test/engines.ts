/** Builds images where CI would: in the runner's docker and podman, and as archives. */
import { execFileSync } from 'node:child_process';
import { copyFileSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type Image, type ImageSpec, type Lab, makeImage } from './lab/index.ts';

export type Engine = 'docker' | 'podman';

/** Runs a program of the runner. */
export function onRunner(lab: Lab, program: string, args: readonly string[], cwd = tmpdir()): string {
  const env = { ...process.env, PATH: `${lab.bin}:${process.env.PATH}` };
  return execFileSync(program, args, { env, cwd, encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] }).trim();
}

/** Builds an image whose container sleeps, or does what `command` says. Each `seed` gives another image. */
export function build(
  lab: Lab,
  engine: Engine,
  reference: string,
  seed: string,
  command = ['/bin/busybox', 'sleep', '1000'],
): void {
  const directory = mkdtempSync(join(tmpdir(), 'kube-sideload-build-'));
  try {
    copyFileSync(join(lab.runner.root, 'usr', 'bin', 'busybox'), join(directory, 'busybox'));
    writeFileSync(join(directory, 'seed'), seed);
    const lines = [
      'FROM scratch',
      'COPY busybox /bin/busybox',
      'COPY busybox /bin/sh',
      'COPY seed /seed',
      `CMD ${JSON.stringify(command)}`,
    ];
    writeFileSync(join(directory, 'Dockerfile'), `${lines.join('\n')}\n`);
    onRunner(lab, engine, ['build', '--quiet', '--tag', reference, '.'], directory);
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}

/** An OCI archive in a directory, by the lab's own writer. */
export function archive(directory: string, spec: Omit<ImageSpec, 'file'>): Promise<Image> {
  const name = `${spec.reference.replaceAll(/[^a-z0-9]+/gi, '-')}.tar`;
  return makeImage({ ...spec, file: join(directory, name) });
}

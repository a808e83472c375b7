/** The images of the benchmarks: three layers out of the machine's own /usr, 650 MB together, in the runner's docker. */
import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { onRunner } from '../test/engines.ts';
import type { Lab } from '../test/lab/index.ts';

/** Sizes of the layers in bytes, lowest first. The last one is what changes from build to build. */
const LAYERS = [400e6, 190e6, 60e6];
const BASE = 'bench-base:1';
const SOURCES = ['/usr/lib', '/usr/local', '/usr/share', '/usr/bin'];

export interface BenchImage {
  /** As docker and pods write it. */
  readonly name: string;
  /** As runtimes have it. */
  readonly reference: string;
  readonly imageId: string;
  readonly sizeBytes: number;
}

export interface BenchImages {
  readonly first: BenchImage;
  /** The first one under another tag. */
  readonly retagged: BenchImage;
  /** The first one with another layer on top. */
  readonly changed: BenchImage;
  /** With yet another. */
  readonly changedAgain: BenchImage;
  /** Another name, and the same two layers below another third. */
  readonly second: BenchImage;
}

/** Builds the images in docker. @param scale what their sizes are multiplied by */
export async function buildImages(lab: Lab, workspace: string, scale: number): Promise<BenchImages> {
  const directory = mkdtempSync(join(workspace, 'build-'));
  try {
    const files = await filesOf(SOURCES);
    const context = (name: string, layers: readonly number[], from: string) => {
      const path = join(directory, name);
      mkdirSync(path);
      const archives = layers.map((size, index) => {
        pack(join(path, `${index}.tar`), take(files, size * scale));
        return `${index}.tar`;
      });
      writeFileSync(join(path, 'Dockerfile'), dockerfile(from, archives));
      return path;
    };
    const build = (name: string, path: string) =>
      onRunner(lab, 'docker', ['build', '--quiet', '--tag', name, '.'], path);
    build(BASE, context('base', LAYERS.slice(0, -1), 'scratch'));
    const top = context('top', LAYERS.slice(-1), BASE);
    const make = (name: string): BenchImage => {
      // The same 60 MB and one file that no other build has: another layer, as when an application is built again.
      writeFileSync(join(top, 'build-id'), name);
      execFileSync('tar', ['-rf', join(top, '0.tar'), '-C', top, 'build-id']);
      build(name, top);
      return inspect(lab, name);
    };
    const first = make('bench:1');
    onRunner(lab, 'docker', ['tag', first.name, 'bench:1-again']);
    return {
      first,
      retagged: inspect(lab, 'bench:1-again'),
      changed: make('bench:2'),
      changedAgain: make('bench:3'),
      second: make('bench-second:1'),
    };
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}

/** The image as `docker save` writes it; made when first asked for. */
export function archiveOf(lab: Lab, image: BenchImage, workspace: string): string {
  const file = join(workspace, 'archives', `${image.name.replace(':', '-')}.tar`);
  if (!existsSync(file)) {
    mkdirSync(join(workspace, 'archives'), { recursive: true });
    onRunner(lab, 'docker', ['save', '--output', file, image.name]);
  }
  return file;
}

/** Puts the image into the runner's podman too, unless it is there, under the same name and with the same ID. */
export function loadIntoPodman(lab: Lab, image: BenchImage, workspace: string): void {
  const id = () =>
    onRunner(lab, 'podman', [
      'images',
      '--no-trunc',
      '--format',
      '{{.ID}}',
      '--filter',
      `reference=${image.reference}`,
    ]);
  if (id() !== '') {
    return;
  }
  onRunner(lab, 'podman', ['load', '--quiet', '--input', archiveOf(lab, image, workspace)]);
  if (id() !== image.imageId) {
    throw new Error(`podman has ${id() || 'no image'} as ${image.reference}, and docker ${image.imageId}`);
  }
}

export function dockerfile(from: string, layers: readonly string[]): string {
  return [`FROM ${from}`, ...layers.map(layer => `ADD ${layer} /`), 'CMD ["/bin/true"]', ''].join('\n');
}

export function inspect(lab: Lab, name: string): BenchImage {
  const said = onRunner(lab, 'docker', ['image', 'inspect', '--format', '{{.Id}} {{.Size}}', name]);
  const [imageId = '', size = ''] = said.split(' ');
  return { name, reference: `docker.io/library/${name}`, imageId, sizeBytes: Number(size) };
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

function pack(file: string, paths: readonly string[]): void {
  execFileSync('tar', ['-cf', file, '-C', '/', '--no-recursion', '--null', '-T', '-'], {
    input: paths.join('\0'),
    stdio: ['pipe', 'ignore', 'inherit'],
  });
}

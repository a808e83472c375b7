/** Opens images from producers, and holds what is opened against what other programs say of the same image. */
import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { copyFileSync, createWriteStream, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { chmod, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pipeline } from 'node:stream/promises';
import { afterAll, beforeAll, expect, inject } from 'vitest';
import type { ImageSet, PlatformImage, SourceImage } from '../../src/image/image.ts';
import { layoutArchive } from '../../src/image/layout.ts';
import { type OpenImagesOptions, openImages } from '../../src/image/open.ts';
import type { Lab } from '../lab/index.ts';
import { producer } from './producers.ts';

export const never = new AbortController().signal;

/** One file's place for archives, with a build context in it, and what `openImages` is to be called with. */
export interface Workshop {
  readonly lab: Lab;
  /** For archives; the runner sees it under the same path. */
  directory: string;
  /** With a Dockerfile that needs no base image. */
  context: string;
  lines: string[];
  at(name: string): string;
  open(options: Partial<OpenImagesOptions>): Promise<ImageSet>;
}

/** Sets up a {@link Workshop} for a file of tests; nothing is left in the scratch directory after them. */
export function useWorkshop(): Workshop {
  const lab = inject('lab');
  const sets: ImageSet[] = [];
  let scratch = '';
  const shop: Workshop = {
    lab,
    directory: '',
    context: '',
    lines: [],
    at: name => join(shop.directory, name),
    async open(options) {
      shop.lines = [];
      const bin = (name: string) => join(lab.bin, name);
      const set = await openImages({
        references: [],
        source: 'auto',
        docker: bin('docker'),
        podman: bin('podman'),
        buildah: producer(lab, 'buildah'),
        nerdctl: producer(lab, 'nerdctl'),
        ctr: producer(lab, 'ctr'),
        directory: scratch,
        log: line => shop.lines.push(line),
        signal: never,
        ...options,
      });
      sets.push(set);
      return set;
    },
  };
  beforeAll(async () => {
    shop.directory = await mkdtemp(join(tmpdir(), 'kube-sideload-sources-'));
    scratch = await mkdtemp(join(tmpdir(), 'kube-sideload-scratch-'));
    shop.context = shop.at('context');
    mkdirSync(shop.context);
    copyFileSync(join(lab.runner.root, 'usr', 'bin', 'busybox'), join(shop.context, 'busybox'));
    seed(shop, 'one');
  });
  afterAll(async () => {
    for (const set of sets) await set.close();
    expect(await readdir(scratch)).toEqual([]);
    await rm(scratch, { recursive: true });
    await rm(shop.directory, { recursive: true, force: true });
  });
  return shop;
}

/**
 * Writes the Dockerfile. Each seed gives another image. The top layer differs by platform; the base layer is that of all
 * platforms of an image, or of several images, or of none but one: docker's containerd store loses a layer everywhere
 * when it removes it from one.
 */
export function seed(shop: Workshop, text: string, base: { text?: string; apart?: boolean } = {}): void {
  writeFileSync(join(shop.context, 'base'), base.text ?? text);
  writeFileSync(join(shop.context, 'seed'), text);
  const lines = [
    'FROM scratch',
    'ARG TARGETARCH',
    base.apart === true ? 'COPY busybox base /bin-$TARGETARCH/' : 'COPY busybox base /bin/',
    'COPY seed /seed-$TARGETARCH',
    'CMD ["/bin/busybox", "sleep", "1000"]',
  ];
  writeFileSync(join(shop.context, 'Dockerfile'), `${lines.join('\n')}\n`);
}

/** Runs a program and returns what it printed. */
export function run(program: string, args: readonly string[], env = process.env): string {
  return execFileSync(program, args, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'], env }).trim();
}

/** The program, and beside it a list of what it was called with; lines of shell may answer in its place. */
export async function recording(
  shop: Workshop,
  program: string,
  answer = '',
): Promise<{ path: string; calls(): Promise<readonly string[]> }> {
  const path = shop.at(`recording-${performance.now()}`);
  const log = `${path}.calls`;
  await writeFile(path, `#!/bin/sh\necho "$1" >>'${log}'\n${answer}\nexec '${program}' "$@"\n`);
  await chmod(path, 0o755);
  return { path, calls: async () => (await readFile(log, 'utf8')).trim().split('\n') };
}

/** What skopeo finds in an archive or a store: the config's bytes decide, and these are their digest and diffIDs. */
export function told(lab: Lab, transport: string, ...flags: readonly string[]): Identity {
  const args = [...flags, 'inspect', '--config', '--raw', transport];
  return identityOf(execFileSync(join(lab.bin, 'skopeo'), args, { stdio: ['ignore', 'pipe', 'pipe'] }));
}

export interface Identity {
  readonly imageId: string;
  readonly diffIds: readonly string[];
}

export function identityOf(config: Buffer): Identity {
  return { imageId: sha256(config), diffIds: JSON.parse(String(config)).rootfs.diff_ids };
}

function sha256(bytes: Buffer | string): string {
  return `sha256:${createHash('sha256').update(bytes).digest('hex')}`;
}

/** The only image of a set. */
export function only(set: ImageSet): SourceImage {
  expect(set.images).toHaveLength(1);
  return set.images[0] ?? expect.unreachable();
}

/** The variant for amd64, or whichever is wanted. */
export function variantOf(set: ImageSet, architecture = hostArchitecture()): PlatformImage {
  const image = only(set).variants.find(({ platform }) => platform.architecture === architecture);
  return image ?? expect.unreachable(`no variant for ${architecture}`);
}

export function hostArchitecture(): string {
  return process.arch === 'x64' ? 'amd64' : process.arch;
}

/**
 * Opens to the image that another program found there, and the archive that a node would get unpacks (with `tar` and
 * `zstd` or `gzip`) to blobs that have the digests that their names and manifests promise.
 */
export async function expectImage(shop: Workshop, set: ImageSet, identity: Identity, reference: string): Promise<void> {
  const image = variantOf(set);
  expect(only(set).reference).toBe(reference);
  expect(image.imageId).toBe(identity.imageId);
  expect(image.layers.map(({ diffId }) => diffId)).toEqual(identity.diffIds);
  await expectSendable(shop, reference, image);
}

/** Unpacks what would be sent for an image; returns the manifest's digest. */
export async function expectSendable(shop: Workshop, reference: string, image: PlatformImage): Promise<string> {
  const directory = await mkdtemp(shop.at('sent-'));
  const archive = join(directory, 'sent.tar');
  const blobs = await Promise.all(image.layers.map(layer => layer.store(never)));
  const layout = layoutArchive({ reference, image, blobs });
  const { manifestDigest } = await layout.summary();
  await pipeline(layout.stream(), createWriteStream(archive));
  run('tar', ['-xf', archive, '-C', directory]);
  const blob = (digest: string) => readFileSync(join(directory, 'blobs', 'sha256', digest.replace('sha256:', '')));
  for (const name of await readdir(join(directory, 'blobs', 'sha256'))) {
    expect(sha256(blob(name))).toBe(`sha256:${name}`);
  }
  const index = JSON.parse(readFileSync(join(directory, 'index.json'), 'utf8'));
  expect(index.manifests[0].digest).toBe(manifestDigest);
  const manifest = JSON.parse(String(blob(manifestDigest)));
  expect(manifest.config.digest).toBe(image.imageId);
  expect(sha256(blob(manifest.config.digest))).toBe(image.imageId);
  const diffIds = manifest.layers.map(({ digest }: { digest: string }) => sha256(decompressed(shop.lab, blob(digest))));
  expect(diffIds).toEqual(image.layers.map(({ diffId }) => diffId));
  return manifestDigest;
}

function decompressed(lab: Lab, bytes: Buffer): Buffer {
  const options = { input: bytes, maxBuffer: 1 << 28 };
  if (bytes.readUInt16BE(0) === 0x1f8b) return execFileSync('gzip', ['-dc'], options);
  return bytes.readUInt32LE(0) === 0xfd2fb528 ? execFileSync(join(lab.bin, 'zstd'), ['-dc'], options) : bytes;
}

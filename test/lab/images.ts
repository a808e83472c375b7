import { createCipheriv, createHash } from 'node:crypto';
import { createWriteStream } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { gzipSync } from 'node:zlib';
import { type TarEntry, tar, tarEnd, tarHeader, tarPadding } from './tar.ts';

/** This machine's architecture, as images and platforms call it. */
export const hostArchitecture = process.arch === 'x64' ? 'amd64' : process.arch;

/** A layer of a test image: files by path, and filler of a size. The same description always gives the same digest. */
export interface LayerSpec {
  readonly files?: Readonly<Record<string, string>>;
  /** Bytes that compress to about half, in one file; `seed` tells fillers of one size apart. */
  readonly fillBytes?: number;
  readonly seed?: string;
}

export interface ImageSpec {
  /** Where the archive is written. */
  readonly file: string;
  /** Fully qualified, such as `docker.io/library/app:v1`; it is what `io.containerd.image.name` says. */
  readonly reference: string;
  /** What the image's config claims; the content is this machine's whatever it claims. The machine's unless told. */
  readonly architecture?: string;
  /** The lowest layer: busybox as /bin/sh and more (the default), or nothing. */
  readonly base?: 'busybox' | 'none';
  /** Layers above it, lowest first. */
  readonly layers?: readonly LayerSpec[];
  /** What the container runs; to sleep, unless told. */
  readonly command?: readonly string[];
  readonly compression?: 'none' | 'gzip';
  /** Also `manifest.json`, as `docker save` has written since Docker 25: a Docker engine loads no archive without it. */
  readonly dockerManifest?: boolean;
  readonly labels?: Readonly<Record<string, string>>;
  /** Whether the config says when the image was made. True unless told. */
  readonly isDated?: boolean;
}

/** What was written, for tests to compare with. */
export interface Image {
  readonly file: string;
  readonly reference: string;
  /** The image's ID: the config's digest. */
  readonly id: string;
  readonly manifestDigest: string;
  readonly layers: readonly { readonly digest: string; readonly diffId: string; readonly sizeBytes: number }[];
}

/** Where Debian's static busybox is in a root filesystem. */
export function busyboxOf(rootfs: string): string {
  return `${rootfs}/usr/bin/busybox`;
}

/** Writes a small image as an OCI archive (OCI image-spec 1.1: image layout, in a tar), out of nothing but its description. */
export async function makeImage(spec: ImageSpec, busybox: string): Promise<Image> {
  const layers = [
    ...((spec.base ?? 'busybox') === 'busybox' ? [await busyboxLayer(busybox)] : []),
    ...(spec.layers ?? []).map(fill),
  ];
  return writeArchive(spec, layers, spec.command ?? ['/bin/sh', '-c', 'trap exit TERM; sleep 1d & wait']);
}

/** The sandbox image of every node. Runtimes are told its name: nothing here could pull another. */
export const pauseReference = 'registry.k8s.io/pause:3.10';

/** Writes the image of a pod's first container: one static program. */
export async function makePauseImage(file: string, program: string): Promise<Image> {
  const layer = tar([{ path: 'pause', mode: 0o755, content: await readFile(program) }]);
  return writeArchive({ file, reference: pauseReference, dockerManifest: true }, [layer], ['/pause']);
}

async function writeArchive(spec: ImageSpec, layerTars: readonly Buffer[], command: readonly string[]): Promise<Image> {
  const gzip = spec.compression === 'gzip';
  const layers = layerTars.map(plain => {
    const blob = gzip ? gzipSync(plain, { level: 1 }) : plain;
    return { blob, digest: digestOf(blob), diffId: digestOf(plain), sizeBytes: blob.length };
  });
  const config = json({
    architecture: spec.architecture ?? hostArchitecture,
    os: 'linux',
    ...((spec.isDated ?? true) && { created: '2020-01-01T00:00:00Z' }),
    config: { Cmd: command, Env: ['PATH=/bin'], ...(spec.labels && { Labels: spec.labels }) },
    rootfs: { type: 'layers', diff_ids: layers.map(({ diffId }) => diffId) },
    history: layers.map(() => ({ created: '2020-01-01T00:00:00Z', created_by: 'kube-sideload lab' })),
  });
  const mediaType = `application/vnd.oci.image.layer.v1.tar${gzip ? '+gzip' : ''}`;
  const manifest = json({
    schemaVersion: 2,
    mediaType: 'application/vnd.oci.image.manifest.v1+json',
    config: { mediaType: 'application/vnd.oci.image.config.v1+json', digest: digestOf(config), size: config.length },
    layers: layers.map(({ digest, sizeBytes }) => ({ mediaType, digest, size: sizeBytes })),
  });
  const index = json({
    schemaVersion: 2,
    mediaType: 'application/vnd.oci.image.index.v1+json',
    manifests: [
      {
        mediaType: 'application/vnd.oci.image.manifest.v1+json',
        digest: digestOf(manifest),
        size: manifest.length,
        platform: { architecture: spec.architecture ?? hostArchitecture, os: 'linux' },
        annotations: {
          'io.containerd.image.name': spec.reference,
          'org.opencontainers.image.ref.name': spec.reference.slice(spec.reference.lastIndexOf(':') + 1),
        },
      },
    ],
  });
  const dockerManifest = json([
    {
      Config: blobPath(digestOf(config)),
      RepoTags: [spec.reference],
      Layers: layers.map(({ digest }) => blobPath(digest)),
    },
  ]);
  const blobs = new Map([...layers.map(({ blob }) => blob), config, manifest].map(blob => [digestOf(blob), blob]));
  const members: TarEntry[] = [
    { path: 'oci-layout', content: json({ imageLayoutVersion: '1.0.0' }) },
    { path: 'index.json', content: index },
    ...(spec.dockerManifest ? [{ path: 'manifest.json', content: dockerManifest }] : []),
    ...[...blobs].map(([digest, content]) => ({ path: blobPath(digest), content })),
  ];
  await pipeline(Readable.from(archive(members)), createWriteStream(spec.file));
  return {
    file: spec.file,
    reference: spec.reference,
    id: digestOf(config),
    manifestDigest: digestOf(manifest),
    layers: layers.map(({ digest, diffId, sizeBytes }) => ({ digest, diffId, sizeBytes })),
  };
}

function blobPath(digest: string): string {
  return `blobs/${digest.replace(':', '/')}`;
}

function* archive(members: readonly TarEntry[]): Generator<Uint8Array> {
  for (const member of members) {
    const content = member.content ?? new Uint8Array();
    yield tarHeader(member, content.length);
    if (content.length > 0) yield content;
    yield tarPadding(content.length);
  }
  yield tarEnd;
}

async function busyboxLayer(busybox: string): Promise<Buffer> {
  const applets = ['sh', 'sleep', 'cat', 'echo', 'true', 'false', 'ls', 'env', 'id'];
  return tar([
    { path: 'bin', type: 'directory' },
    { path: 'bin/busybox', mode: 0o755, content: await readFile(busybox) },
    ...applets.map(applet => ({ path: `bin/${applet}`, link: 'busybox' })),
    { path: 'tmp', type: 'directory', mode: 0o1777 },
  ]);
}

function fill({ files = {}, fillBytes = 0, seed = '' }: LayerSpec): Buffer {
  const entries: TarEntry[] = Object.entries(files).map(([path, text]) => ({
    path: path.replace(/^\//, ''),
    content: Buffer.from(text),
  }));
  if (fillBytes > 0) entries.push({ path: `filler-${seed || fillBytes}`, content: filler(fillBytes, seed) });
  return tar(entries);
}

/** Half noise, half zeros, in stripes of 4 KiB: so that compression has about as much to do as with programs. */
function filler(sizeBytes: number, seed: string): Buffer {
  const key = createHash('sha256').update(`filler ${seed}`).digest();
  const noise = createCipheriv('aes-256-ctr', key, Buffer.alloc(16)).update(Buffer.alloc(sizeBytes));
  for (let offset = 0; offset < sizeBytes; offset += 8192) noise.fill(0, offset, Math.min(offset + 4096, sizeBytes));
  return noise;
}

function json(value: unknown): Buffer {
  return Buffer.from(JSON.stringify(value));
}

function digestOf(bytes: Uint8Array): string {
  return `sha256:${createHash('sha256').update(bytes).digest('hex')}`;
}

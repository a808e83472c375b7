import { createHash } from 'node:crypto';
import { writeFile } from 'node:fs/promises';
import { gzipSync } from 'node:zlib';
import { pack } from 'tar-stream';
import type { Platform } from '../../../src/image/platform.ts';

/** One entry of a tar to be written; a file unless it says otherwise. */
export interface TarEntry {
  readonly name: string;
  readonly content?: Buffer;
  readonly type?: 'symlink' | 'link' | 'directory';
  readonly linkname?: string;
}

/** A layer: its tar, and optionally the bytes that an archive carries instead (compressed). */
export interface SampleLayer {
  readonly tar: Buffer;
  readonly blob?: Buffer;
  readonly mediaType?: string;
}

/** An image for one platform. */
export interface SampleImage {
  readonly config: Buffer;
  readonly imageId: string;
  readonly platform: Platform;
  readonly layers: readonly SampleLayer[];
}

export const LINUX_AMD64: Platform = { os: 'linux', architecture: 'amd64' };
export const LINUX_ARM64: Platform = { os: 'linux', architecture: 'arm64', variant: 'v8' };

export function sha256(bytes: Buffer | string): string {
  return createHash('sha256').update(bytes).digest('hex');
}

/** The bytes of a tar with these entries, as GNU tar, Go and tar-stream would all read it. */
export async function tarBytes(entries: readonly TarEntry[]): Promise<Buffer> {
  const tar = pack();
  for (const { name, content = Buffer.alloc(0), type, linkname } of entries) {
    const header = { name, mtime: new Date(0) };
    if (type === undefined) tar.entry(header, content);
    else tar.entry({ ...header, type, ...(linkname === undefined ? {} : { linkname }) });
  }
  tar.finalize();
  const chunks: Buffer[] = [];
  for await (const chunk of tar) chunks.push(chunk as Buffer);
  return Buffer.concat(chunks);
}

/** Writes a tar to a file and returns its path. */
export async function writeTar(path: string, entries: readonly TarEntry[]): Promise<string> {
  await writeFile(path, await tarBytes(entries));
  return path;
}

/** A layer with one file in it. */
export async function sampleLayer(name: string, content: Buffer | string = name): Promise<SampleLayer> {
  return { tar: await tarBytes([{ name, content: Buffer.from(content) }]) };
}

/** The same layer as kaniko, buildx or a registry has it. */
export function gzipped(layer: SampleLayer): SampleLayer {
  return { ...layer, blob: gzipSync(layer.tar), mediaType: 'application/vnd.oci.image.layer.v1.tar+gzip' };
}

/** An image of layers; `label` makes two images of equal layers differ. */
export function sampleImage(
  layers: readonly SampleLayer[],
  platform: Platform = LINUX_AMD64,
  label = 'sample',
): SampleImage {
  const config = Buffer.from(
    JSON.stringify({
      ...platform,
      config: { Labels: { label } },
      rootfs: { type: 'layers', diff_ids: layers.map(({ tar }) => `sha256:${sha256(tar)}`) },
    }),
  );
  return { config, imageId: `sha256:${sha256(config)}`, platform, layers };
}

/** Who writes a docker-archive; each has its own names for config and layers. */
export type DockerWriter = 'docker' | 'docker before 25' | 'podman' | 'kaniko';

/** A docker-archive: `manifest.json`, configs and layers under the names that the writer gives them. */
export function dockerArchive(
  images: readonly (readonly [names: readonly string[], image: SampleImage])[],
  writer: DockerWriter,
): readonly TarEntry[] {
  const entries = new Map<string, TarEntry>();
  const add = (entry: TarEntry) => entries.set(entry.name, entry);
  const manifest = images.map(([names, image]) => {
    const hex = sha256(image.config);
    const config = { docker: `blobs/sha256/${hex}`, kaniko: `sha256:${hex}` }[writer as string] ?? `${hex}.json`;
    add({ name: config, content: image.config });
    const layers = image.layers.map(({ tar, blob = tar }, index) => {
      const name = { docker: `blobs/sha256/${sha256(tar)}`, kaniko: `${sha256(blob)}.tar.gz` }[writer as string];
      const id = sha256(`${hex} ${index}`);
      const legacyLayer = `${id}/layer.tar`;
      if (name !== undefined) {
        add({ name, content: blob });
        return name;
      }
      add({ name: `${id}/`, type: 'directory' });
      add({ name: `${id}/VERSION`, content: Buffer.from('1.0') });
      add({ name: `${id}/json`, content: Buffer.from('{}') });
      if (writer === 'docker before 25') {
        add({ name: legacyLayer, content: blob });
        return legacyLayer;
      }
      add({ name: `${sha256(tar)}.tar`, content: blob });
      add({ name: legacyLayer, type: 'symlink', linkname: `../${sha256(tar)}.tar` });
      return `${sha256(tar)}.tar`;
    });
    return { Config: config, RepoTags: names.length === 0 ? null : names, Layers: layers };
  });
  add({ name: 'manifest.json', content: Buffer.from(JSON.stringify(manifest)) });
  return [...entries.values()];
}

/** A node of the graph that `index.json` spans: an image, or an index of further nodes. */
export interface OciNode {
  readonly image?: SampleImage;
  readonly children?: readonly OciNode[];
  /** Written into the descriptor. */
  readonly annotations?: Readonly<Record<string, string>>;
  readonly platform?: Platform;
  /** The blob itself, for what is neither; also to put something else than the truth there. */
  readonly content?: object;
}

/** An OCI archive of these nodes; a node's `platform` is only written when it is given. */
export function ociArchive(nodes: readonly OciNode[]): readonly TarEntry[] {
  const entries = new Map<string, TarEntry>();
  const addBlob = (content: Buffer) => {
    const name = `blobs/sha256/${sha256(content)}`;
    entries.set(name, { name, content });
    return { digest: `sha256:${sha256(content)}`, size: content.length };
  };
  const descriptorOf = ({ image, children, annotations, platform, content }: OciNode): object => ({
    ...addBlob(Buffer.from(JSON.stringify(content ?? blobOf(image, children)))),
    mediaType: `application/vnd.oci.image.${children === undefined ? 'manifest' : 'index'}.v1+json`,
    ...(annotations === undefined ? {} : { annotations }),
    ...(platform === undefined ? {} : { platform }),
  });
  const blobOf = (image: SampleImage | undefined, children: readonly OciNode[] = []): object =>
    image === undefined
      ? { schemaVersion: 2, manifests: children.map(descriptorOf) }
      : {
          schemaVersion: 2,
          config: { mediaType: 'application/vnd.oci.image.config.v1+json', ...addBlob(image.config) },
          layers: image.layers.map(({ tar, blob = tar, mediaType = 'application/vnd.oci.image.layer.v1.tar' }) => ({
            mediaType,
            ...addBlob(blob),
          })),
        };
  const index = { schemaVersion: 2, manifests: nodes.map(descriptorOf) };
  return [
    { name: 'oci-layout', content: Buffer.from('{"imageLayoutVersion":"1.0.0"}') },
    ...entries.values(),
    { name: 'index.json', content: Buffer.from(JSON.stringify(index)) },
  ];
}

/** The annotations of a name, as BuildKit and docker write them. */
export function named(name: string): Readonly<Record<string, string>> {
  return { 'io.containerd.image.name': name, 'org.opencontainers.image.ref.name': name.split(':')[1] ?? 'latest' };
}

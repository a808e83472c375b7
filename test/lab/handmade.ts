import { createHash } from 'node:crypto';
import { gzipSync, zstdCompressSync } from 'node:zlib';
import { hostArchitecture } from './images.ts';
import { type TarEntry, tar } from './tar.ts';

/** How a layer appears in an archive. */
export interface HandmadeLayer {
  /** The uncompressed tar. */
  readonly plain: Buffer;
  /** The form of the blob that the manifest names; zstd unless told. */
  readonly form?: keyof typeof FORMS;
  /** The manifest names the blob, and the archive lacks it. */
  readonly isOmitted?: boolean;
  /** Stands in the archive in place of the blob. */
  readonly body?: Buffer;
}

export interface Handmade {
  /** Written as it is, whether or not it is a full name. */
  readonly reference: string;
  /** Lowest first. */
  readonly layers: readonly HandmadeLayer[];
  /** What the config claims; this machine's unless told. */
  readonly architecture?: string;
  /** Whether the index says the platform; it does unless told. */
  readonly hasPlatform?: boolean;
  /** What the archive can be read as; both unless told, as a push sends it. */
  readonly kind?: 'both' | 'oci' | 'docker';
}

const FORMS = {
  plain: { suffix: '', compress: (bytes: Buffer) => bytes },
  gzip: { suffix: '+gzip', compress: (bytes: Buffer) => gzipSync(bytes, { level: 1 }) },
  zstd: { suffix: '+zstd', compress: zstdCompressSync },
};

/** A layer of one file. */
export function layerOf(path: string, text: string): Buffer {
  return tar([{ path, content: Buffer.from(text) }]);
}

/**
 * An image archive made by hand, with everything that may be left out of one left out as told: what importers make of it
 * is what tests ask.
 */
export function handmade({ reference, layers, architecture, hasPlatform = true, kind = 'both' }: Handmade): {
  readonly archive: Buffer;
  /** The image ID. */
  readonly id: string;
  /** Digests of the blobs that the manifest names. */
  readonly digests: readonly string[];
} {
  const platform = { architecture: architecture ?? hostArchitecture, os: 'linux' };
  const named = layers.map(({ plain, form = 'zstd', isOmitted = false, body }) => {
    const { suffix, compress } = FORMS[form];
    const blob = compress(plain);
    const mediaType = `application/vnd.oci.image.layer.v1.tar${suffix}`;
    return { descriptor: { mediaType, digest: digestOf(blob), size: blob.length }, blob: body ?? blob, isOmitted };
  });
  const config = json({
    ...platform,
    created: '2020-01-01T00:00:00Z',
    config: { Cmd: ['/bin/sh'] },
    rootfs: { type: 'layers', diff_ids: layers.map(({ plain }) => digestOf(plain)) },
  });
  const manifest = json({
    schemaVersion: 2,
    mediaType: 'application/vnd.oci.image.manifest.v1+json',
    config: { mediaType: 'application/vnd.oci.image.config.v1+json', digest: digestOf(config), size: config.length },
    layers: named.map(({ descriptor }) => descriptor),
  });
  const index = json({
    schemaVersion: 2,
    mediaType: 'application/vnd.oci.image.index.v1+json',
    manifests: [
      {
        mediaType: 'application/vnd.oci.image.manifest.v1+json',
        digest: digestOf(manifest),
        size: manifest.length,
        ...(hasPlatform && { platform }),
        annotations: {
          'io.containerd.image.name': reference,
          'org.opencontainers.image.ref.name': reference.slice(reference.lastIndexOf(':') + 1),
        },
      },
    ],
  });
  const dockerManifest = json([
    {
      Config: pathOf(digestOf(config)),
      RepoTags: [reference],
      Layers: named.map(({ descriptor }) => pathOf(descriptor.digest)),
    },
  ]);
  const members: readonly TarEntry[] = [
    ...(kind === 'docker'
      ? []
      : [
          { path: 'oci-layout', content: json({ imageLayoutVersion: '1.0.0' }) },
          { path: 'index.json', content: index },
          { path: pathOf(digestOf(manifest)), content: manifest },
        ]),
    ...(kind === 'oci' ? [] : [{ path: 'manifest.json', content: dockerManifest }]),
    { path: pathOf(digestOf(config)), content: config },
    ...named
      .filter(({ isOmitted }) => !isOmitted)
      .map(({ descriptor, blob }) => ({ path: pathOf(descriptor.digest), content: blob })),
  ];
  return {
    archive: tar(members),
    id: digestOf(config),
    digests: named.map(({ descriptor }) => descriptor.digest),
  };
}

function pathOf(digest: string): string {
  return `blobs/${digest.replace(':', '/')}`;
}

function json(value: unknown): Buffer {
  return Buffer.from(JSON.stringify(value));
}

function digestOf(bytes: Uint8Array): string {
  return `sha256:${createHash('sha256').update(bytes).digest('hex')}`;
}

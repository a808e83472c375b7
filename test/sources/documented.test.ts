import { createWriteStream, readFileSync } from 'node:fs';
import { pipeline } from 'node:stream/promises';
import { gzipSync } from 'node:zlib';
import { describe, it } from 'vitest';
import { type SampleLayer, sampleImage, sampleLayer, sha256, type TarEntry, tarBytes } from '../unit/image/archives.ts';
import { expectImage, hostArchitecture, identityOf, told, useWorkshop } from './images.ts';

/*
 * Archives of producers that cannot be had here, written to the shape that their sources show. skopeo, which reads
 * what docker reads, has to find the same image in them.
 */

const shop = useWorkshop();
const REFERENCE = 'registry.example/team/app:v1';
const layers: readonly SampleLayer[] = [await sampleLayer('base', 'x'.repeat(100_000)), await sampleLayer('top')];
const image = sampleImage(layers, { os: 'linux', architecture: hostArchitecture() });
const hex = sha256(image.config);

function entry(name: string, content: Buffer | string): TarEntry {
  return { name, content: Buffer.from(content) };
}

function manifest(Config: string, Layers: readonly string[], RepoTags = [REFERENCE]): TarEntry {
  return entry('manifest.json', JSON.stringify([{ Config, RepoTags, Layers }]));
}

async function expectOpens(name: string, entries: readonly TarEntry[], compress = (bytes: Buffer) => bytes) {
  const archive = shop.at(name);
  await pipeline([compress(await tarBytes(entries))], createWriteStream(archive));
  const identity = identityOf(image.config);
  await expectImage(shop, await shop.open({ archive }), identity, REFERENCE);
  expectSame(told(shop.lab, `docker-archive:${archive}`), identity);
  return readFileSync(archive);
}

function expectSame(found: object, identity: object): void {
  if (JSON.stringify(found) !== JSON.stringify(identity)) throw new Error('skopeo finds another image in it');
}

describe('an archive (documented shape)', () => {
  // kaniko: pkg/executor/push.go writes it by go-containerregistry's tarball.MultiWriteToFile, here for two tags.
  it('as kaniko writes it', async () => {
    const blobs = layers.map(({ tar }) => gzipSync(tar));
    const names = blobs.map(blob => `${sha256(blob)}.tar.gz`);
    const config = `sha256:${hex}`;
    const entries = [entry(config, image.config), ...blobs.map((blob, index) => entry(names[index] ?? '', blob))];
    await expectOpens('kaniko.tar', [...entries, manifest(config, names)]);
  });

  // bazel-contrib/rules_oci: oci/private/tarball.sh.tpl; the suffix is there whether the blob is compressed or not.
  it.each([true, false])('as rules_oci’s oci_load writes it (layers compressed: %s)', async compressed => {
    const blobs = layers.map(({ tar }) => (compressed ? gzipSync(tar) : tar));
    const names = blobs.map(blob => `blobs/sha256/${sha256(blob)}.tar.gz`);
    const entries = blobs.map((blob, index) => entry(names[index] ?? '', blob));
    const config = entry(`blobs/sha256/${hex}`, image.config);
    await expectOpens(`rules_oci-${compressed}.tar`, [manifest(config.name, names), config, ...entries]);
  });

  // NixOS/nixpkgs: pkgs/build-support/docker/stream_layered_image.py, and default.nix, which puts gzip around it.
  it('as Nix’ dockerTools.buildLayeredImage writes it', async () => {
    const names = layers.map(({ tar }) => `${sha256(tar)}/layer.tar`);
    const entries = layers.flatMap(({ tar }, index): readonly TarEntry[] => [
      { name: `${sha256(tar)}/`, type: 'directory' },
      entry(names[index] ?? '', tar),
    ]);
    await expectOpens(
      'nix.tar.gz',
      [...entries, entry(`${hex}.json`, image.config), manifest(`${hex}.json`, names)],
      gzipSync,
    );
  });

  // GoogleContainerTools/jib: jib-core, docker/ImageTarball.java.
  it('as jib’s jibBuildTar writes it', async () => {
    const blobs = layers.map(({ tar }) => gzipSync(tar));
    const names = blobs.map(blob => `${sha256(blob)}.tar.gz`);
    const entries = blobs.map((blob, index) => entry(names[index] ?? '', blob));
    await expectOpens('jib.tar', [...entries, entry('config.json', image.config), manifest('config.json', names)]);
  });
});

import { execFileSync } from 'node:child_process';
import { createWriteStream } from 'node:fs';
import { join } from 'node:path';
import { pipeline } from 'node:stream/promises';
import { beforeAll, describe, expect, it } from 'vitest';
import { layoutArchive } from '../../src/image/layout.ts';
import { digestFate } from '../../src/image/names.ts';
import { never, only, run, seed, useWorkshop, variantOf } from './images.ts';
import { producer } from './producers.ts';

const shop = useWorkshop();
const { lab } = shop;
const skopeo = join(lab.bin, 'skopeo');
const podman = join(lab.bin, 'podman');
const ctr = producer(lab, 'ctr');

/** What a node gets for `registry.example/app@DIGEST` out of a layout, as an archive, and the digest that it carries. */
async function send(directory: string): Promise<{ reference: string; archive: string; manifestDigest: string }> {
  const digest = run(skopeo, ['inspect', '--format', '{{.Digest}}', `oci:${directory}`]);
  const set = await shop.open({ archive: directory, references: [`registry.example/app@${digest}`] });
  const image = variantOf(set);
  const { reference } = only(set);
  expect(reference).toBe(`registry.example/app@${digest}`);
  const blobs = await Promise.all(image.layers.map(layer => layer.store(never)));
  const layout = layoutArchive({ reference, image, blobs });
  const archive = `${directory}.tar`;
  await pipeline(layout.stream(), createWriteStream(archive));
  return { reference, archive, manifestDigest: (await layout.summary()).manifestDigest };
}

/** The digest under which containerd has a name after the import. */
function targetInContainerd(reference: string, archive: string): string | undefined {
  run(ctr, ['-n', 'digests', 'images', 'import', archive]);
  const rows = run(ctr, ['-n', 'digests', 'images', 'list']).split('\n');
  return rows.map(row => row.split(/\s+/)).find(([name]) => name === reference)?.[2];
}

describe('a reference with a digest', () => {
  const compressed = () => shop.at('gzip');
  const plain = () => shop.at('plain');

  beforeAll(() => {
    seed(shop, 'digests');
    for (const [directory, compression] of [
      [compressed(), 'gzip'],
      [plain(), 'uncompressed'],
    ]) {
      const output = `type=oci,tar=false,dest=${directory},compression=${compression},force-compression=true`;
      const flags = ['--provenance=false', '--output', output];
      run(producer(lab, 'docker-containerd'), ['buildx', 'build', ...flags, shop.context]);
    }
  });

  it('is kept when layers are compressed already: containerd and containers-storage both have it', async () => {
    const { reference, archive, manifestDigest } = await send(compressed());
    expect(digestFate(reference, manifestDigest)).toBe('kept');
    expect(reference).toContain(manifestDigest);
    expect(targetInContainerd(reference, archive)).toBe(manifestDigest);
    run(skopeo, ['copy', '--quiet', `oci-archive:${archive}`, `containers-storage:${reference}`]);
    run(podman, ['image', 'exists', reference]);
  });

  it('is a name only when they are not: containerd takes it, containers-storage refuses', async () => {
    const { reference, archive, manifestDigest } = await send(plain());
    expect(digestFate(reference, manifestDigest)).toBe('name only');
    expect(targetInContainerd(reference, archive)).toBe(manifestDigest);
    expect(reference).not.toContain(manifestDigest);
    const copy = ['copy', '--quiet', `oci-archive:${archive}`, `containers-storage:${reference}`];
    expect(() => execFileSync(skopeo, copy, { stdio: ['ignore', 'pipe', 'pipe'], encoding: 'utf8' })).toThrow(
      /[Dd]igest/,
    );
  });
});

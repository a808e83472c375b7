import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import type { ImageSet, Layer } from '../../../src/image/image.ts';
import { dockerArchive, LINUX_AMD64, sampleImage, sampleLayer, writeTar } from './archives.ts';
import { bytesOf, failureOf, useWorkplace } from './opening.ts';

const place = useWorkplace();
const base = await sampleLayer('base', 'x'.repeat(2_000_000));
const app = sampleImage([base], LINUX_AMD64, 'app');
const other = sampleImage([base, await sampleLayer('top')], LINUX_AMD64, 'other');
const never = new AbortController().signal;

async function opened(): Promise<{ readonly set: ImageSet; readonly layer: Layer }> {
  const path = await writeTar(
    join(place.directory, 'image.tar'),
    dockerArchive(
      [
        [['app:v1'], app],
        [['other:v1'], other],
      ],
      'docker',
    ),
  );
  const set = await place.openArchive(path);
  return { set, layer: set.images[0]?.variants[0]?.layers[0] ?? expect.unreachable() };
}

async function scratchFiles(): Promise<readonly string[]> {
  const [root = ''] = await readdir(place.scratch);
  return await readdir(join(place.scratch, root));
}

describe('a layer', () => {
  it('is not read before somebody wants it', async () => {
    await opened();
    expect(await scratchFiles()).toEqual([]);
  });

  it('is stored once for all callers and all images that share it', async () => {
    const { set, layer } = await opened();
    const shared = set.images[1]?.variants[0]?.layers[0] ?? expect.unreachable();
    const blobs = await Promise.all([layer.store(never), shared.store(never), layer.store(never)]);
    expect(new Set(blobs).size).toBe(1);
    expect(await layer.store(never)).toBe(blobs[0]);
    expect(await scratchFiles()).toHaveLength(1);
  });

  it('is stored for those who stay when one caller leaves', async () => {
    const { layer } = await opened();
    const leaving = new AbortController();
    const left = failureOf(layer.store(leaving.signal));
    const stayed = layer.store(never);
    leaving.abort();
    expect(await left).toMatchObject({ code: 'CANCELLED' });
    const blob = await stayed;
    expect((await bytesOf(blob.open())).length).toBe(blob.sizeBytes);
  });

  it('can be asked for again after all callers have left', async () => {
    const { layer } = await opened();
    const leaving = new AbortController();
    const left = failureOf(layer.store(leaving.signal));
    leaving.abort();
    expect(await left).toMatchObject({ code: 'CANCELLED' });
    await expect(layer.store(never)).resolves.toMatchObject({ digest: expect.stringMatching(/^sha256:/) });
  });

  it('stays stored when a caller’s signal fires afterwards', async () => {
    const { layer } = await opened();
    const caller = new AbortController();
    const blob = await layer.store(caller.signal);
    caller.abort();
    expect(await layer.store(never)).toBe(blob);
    expect(await failureOf(layer.store(caller.signal))).toMatchObject({ code: 'CANCELLED' });
  });

  it('leaves nothing behind when the images are closed half-way', async () => {
    const { set, layer } = await opened();
    const storing = failureOf(layer.store(never));
    await set.close();
    expect(await storing).toMatchObject({ code: 'CANCELLED' });
    expect(await readdir(place.scratch)).toEqual([]);
    expect(await failureOf(layer.store(never))).toMatchObject({ code: 'CANCELLED' });
  });
});

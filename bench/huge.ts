/** The push of an image of 5 GB: for its memory, which has to be that of a small one. */
import { randomBytes } from 'node:crypto';
import { createWriteStream, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { onRunner } from '../test/engines.ts';
import type { Lab } from '../test/lab/index.ts';
import { type BenchImage, dockerfile, inspect } from './images.ts';

/** Sizes of the layers in bytes, lowest first. */
const LAYERS = [2.5e9, 1.5e9, 1e9];
const FILE_BYTES = 250e6;
const BLOCK_BYTES = 1 << 20;

/** Builds the image in docker: minutes, and 15 GB of disk. @param scale what its size is multiplied by */
export async function buildHugeImage(lab: Lab, workspace: string, scale: number): Promise<BenchImage> {
  const directory = mkdtempSync(join(workspace, 'huge-'));
  try {
    for (const [layer, size] of LAYERS.entries()) {
      mkdirSync(join(directory, String(layer)));
      for (let file = 0; file * FILE_BYTES < size * scale; file++) {
        await pipeline(
          Readable.from(varied(FILE_BYTES)),
          createWriteStream(join(directory, String(layer), `${layer}-${file}`)),
        );
      }
    }
    writeFileSync(
      join(directory, 'Dockerfile'),
      dockerfile(
        'scratch',
        LAYERS.map((_, layer) => String(layer)),
      ),
    );
    onRunner(lab, 'docker', ['build', '--quiet', '--tag', 'bench-huge:1', '.'], directory);
    return inspect(lab, 'bench-huge:1');
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}

/** Data of which zstd makes about a half: a part that no compressor gains by, and a part that repeats. */
function* varied(sizeBytes: number): Generator<Buffer> {
  for (let made = 0; made < sizeBytes; made += BLOCK_BYTES) {
    const half = randomBytes(BLOCK_BYTES / 2);
    const line = randomBytes(2048).toString('hex');
    yield Buffer.concat([half, Buffer.alloc(BLOCK_BYTES / 2, line)]);
  }
}

import { mkdtemp, readdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect } from 'vitest';
import type { SideloadError } from '../../../src/errors.ts';
import type { ImageSet, StoredBlob } from '../../../src/image/image.ts';
import { type OpenImagesOptions, openImages } from '../../../src/image/open.ts';

/** The places and the log of one test; everything is gone after it, and nothing may be left in the scratch directory. */
export interface Workplace {
  /** For files that the test makes. */
  directory: string;
  /** Handed to `openImages`. */
  scratch: string;
  lines: string[];
  open(options: Partial<OpenImagesOptions>): Promise<ImageSet>;
  openArchive(archive: string, ...references: string[]): Promise<ImageSet>;
}

/** Sets up a {@link Workplace} for each test of a file. */
export function useWorkplace(): Workplace {
  const sets: ImageSet[] = [];
  const place: Workplace = {
    directory: '',
    scratch: '',
    lines: [],
    async open(options) {
      const set = await openImages({
        references: [],
        source: 'auto',
        directory: place.scratch,
        log: line => place.lines.push(line),
        signal: new AbortController().signal,
        ...options,
      });
      sets.push(set);
      return set;
    },
    openArchive: (archive, ...references) => place.open({ archive, references }),
  };
  beforeEach(async () => {
    place.directory = await mkdtemp(join(tmpdir(), 'kube-sideload-image-'));
    place.scratch = await mkdtemp(join(place.directory, 'scratch-'));
    place.lines = [];
  });
  afterEach(async () => {
    for (const set of sets.splice(0)) await set.close();
    const left = await readdir(place.scratch);
    await rm(place.directory, { recursive: true, force: true });
    expect(left).toEqual([]);
  });
  return place;
}

/** The error that a promise ends in. */
export async function failureOf(promise: Promise<unknown>): Promise<SideloadError> {
  return await promise.then(
    () => expect.unreachable('it should have failed'),
    error => error,
  );
}

/** The layers of the first image's first variant, stored. */
export async function storeAll(set: ImageSet): Promise<readonly StoredBlob[]> {
  const layers = set.images[0]?.variants[0]?.layers ?? [];
  return await Promise.all(layers.map(layer => layer.store(new AbortController().signal)));
}

/** The bytes of a stream. */
export async function bytesOf(stream: AsyncIterable<Buffer>): Promise<Buffer> {
  const chunks: Buffer[] = [];
  for await (const chunk of stream) chunks.push(chunk);
  return Buffer.concat(chunks);
}

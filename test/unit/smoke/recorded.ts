import { readdirSync, readFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import type { Pod, PodEvent, WatchEvent } from '../../../src/smoke/objects.ts';

/** What a real API server said of one pod, from its creation on: see `test/fixtures/recorded/README.md`. */
export interface Recording {
  readonly watch: readonly (WatchEvent & { readonly object: Pod })[];
  readonly events: readonly PodEvent[];
}

const directory = resolve(import.meta.dirname, '..', '..', 'fixtures', 'recorded');

/** Names of all recordings: NODE-SCENARIO. */
export const RECORDINGS = readdirSync(directory)
  .filter(file => file.endsWith('.jsonl'))
  .map(file => file.replace(/\.jsonl$/, ''));

export function recording(name: string): Recording {
  const lines = readFileSync(join(directory, `${name}.jsonl`), 'utf8')
    .split('\n')
    .filter(line => line !== '')
    .map(line => JSON.parse(line));
  return {
    watch: lines.filter(({ type }) => type !== 'EVENT'),
    events: lines.filter(({ type }) => type === 'EVENT').map(({ object }) => object),
  };
}

/** Image ID of `myimage` in the recordings, as containerd reports it. */
export const RECORDED_IMAGE_ID = 'sha256:a31ede1c19d0ba4d08bd68bd4a31c7c678f2922e17a4f5384ceb4bca5a8d8052';

import { describe, expect, it } from 'vitest';
import { repositoryOf } from '../../src/image/reference.ts';
import type { RecordEntry } from '../../src/node/record.ts';
import { decide } from '../../src/retention.ts';
import type { HeldImage } from '../../src/runtime/runtime.ts';

function id(character: string): string {
  return `sha256:${character.repeat(64)}`;
}

function entry(reference: string, character: string): RecordEntry {
  return { reference, imageId: id(character), placedAt: 0, run: 't4y1q2abcdef' };
}

function held(images: Readonly<Record<string, string>>): ReadonlyMap<string, HeldImage> {
  return new Map(
    Object.entries(images).map(([reference, character]) => [
      reference,
      { imageId: id(character), os: 'linux', architecture: 'amd64', unpacked: true, witness: 'crictl' },
    ]),
  );
}

const UNUSED = { names: new Set<string>(), ids: new Set<string>() };

/** What becomes of each entry. */
function fates(
  entries: readonly RecordEntry[],
  there: Readonly<Record<string, string>>,
  { keep = 1, used = UNUSED }: { readonly keep?: number; readonly used?: Parameters<typeof decide>[2] } = {},
): readonly string[] {
  return decide(entries, held(there), used, keep).map(one => `${one.entry.reference} ${one.fate}`);
}

describe('of what we have put on a node', () => {
  const three = [entry('app:1', 'a'), entry('app:2', 'b'), entry('app:3', 'c')];
  const there = { 'app:1': 'a', 'app:2': 'b', 'app:3': 'c' };

  it('the newest releases stay, and the older ones may go', () => {
    expect(fates(three, there)).toEqual(['app:1 remove', 'app:2 remove', 'app:3 kept']);
    expect(fates(three, there, { keep: 2 })).toEqual(['app:1 remove', 'app:2 kept', 'app:3 kept']);
    expect(fates(three, there, { keep: 3 })).toEqual(['app:1 kept', 'app:2 kept', 'app:3 kept']);
  });

  it('what came last is the newest, whatever its tag', () => {
    expect(fates(three.toReversed(), there)).toEqual(['app:3 remove', 'app:2 remove', 'app:1 kept']);
  });

  it('each repository keeps its own', () => {
    const entries = [entry('app:1', 'a'), entry('db:1', 'b'), entry('app:2', 'c')];
    expect(fates(entries, { 'app:1': 'a', 'db:1': 'b', 'app:2': 'c' })).toEqual([
      'app:1 remove',
      'db:1 kept',
      'app:2 kept',
    ]);
  });

  it('a release has all its names in the repository', () => {
    const entries = [entry('app:1', 'a'), entry('app:2', 'b'), entry('app:latest', 'b')];
    expect(fates(entries, { 'app:1': 'a', 'app:2': 'b', 'app:latest': 'b' }, { keep: 2 })).toEqual([
      'app:1 kept',
      'app:2 kept',
      'app:latest kept',
    ]);
  });

  it('what a container was made from stays, by its name or by its ID', () => {
    const byName = { ...UNUSED, names: new Set(['app:1']) };
    expect(fates(three, there, { used: byName })).toEqual(['app:1 in-use', 'app:2 remove', 'app:3 kept']);
    const byId = { ...UNUSED, ids: new Set([id('b')]) };
    expect(fates(three, there, { used: byId })).toEqual(['app:1 remove', 'app:2 in-use', 'app:3 kept']);
  });

  it('what somebody has changed or taken away is not ours any more, and takes no place of a release', () => {
    expect(fates(three, { 'app:1': 'a', 'app:2': 'b', 'app:3': 'd' })).toEqual([
      'app:1 remove',
      'app:2 kept',
      'app:3 changed',
    ]);
    expect(fates(three, { 'app:1': 'a', 'app:2': 'b' })).toEqual(['app:1 remove', 'app:2 kept', 'app:3 gone']);
  });
});

it.each([
  ['docker.io/library/app:1.2', 'docker.io/library/app'],
  ['registry.example:5000/team/app:1', 'registry.example:5000/team/app'],
  ['registry.example:5000/team/app', 'registry.example:5000/team/app'],
  [`registry.example/app@${id('a')}`, 'registry.example/app'],
  [`registry.example/app:1@${id('a')}`, 'registry.example/app'],
])('the repository of %s is %s', (reference, repository) => {
  expect(repositoryOf(reference)).toBe(repository);
});

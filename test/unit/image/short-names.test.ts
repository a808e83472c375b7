import { describe, expect, it } from 'vitest';
import { crioCandidates, type ShortNameRules } from '../../../src/image/short-names.ts';

const DIGEST = `sha256:${'0123456789abcdef'.repeat(4)}`;
const searchRegistries = ['docker.io', 'registry.example:5000'];
const candidates = (text: string, rules: Partial<ShortNameRules> = {}) =>
  crioCandidates(text, { searchRegistries, ...rules }).candidates;

describe('the names that CRI-O looks for', () => {
  it.each([
    ['docker.io/app:1', ['docker.io/library/app:1']],
    ['localhost/app', ['localhost/app:latest']],
    ['localhost:5000/app:1', ['localhost:5000/app:1']],
    ['registry.example/app:1', ['registry.example/app:1']],
    [`registry.example/app:1@${DIGEST}`, [`registry.example/app@${DIGEST}`]],
  ])('a full name, %s, is looked for as it is', (text, names) => {
    expect(candidates(text)).toEqual(names);
    expect(candidates(text, { searchRegistries: [], mode: 'enforcing' })).toEqual(names);
  });

  it.each([
    ['app:1', ['docker.io/library/app:1', 'registry.example:5000/app:1']],
    ['u/app', ['docker.io/u/app:latest', 'registry.example:5000/u/app:latest']],
    [`app:1@${DIGEST}`, [`docker.io/library/app@${DIGEST}`, `registry.example:5000/app@${DIGEST}`]],
  ])('a short one, %s, in every search registry, and never below localhost/', (text, names) => {
    expect(candidates(text)).toEqual(names);
    expect(candidates(text, { mode: 'permissive' })).toEqual(names);
  });

  it('a short one with an alias, there alone, with the tag that was written', () => {
    const aliases = new Map([
      ['app', 'registry.example/team/app'],
      ['u/app', 'docker.io/app'],
      ['reset', ''],
    ]);
    expect(candidates('app:1', { aliases, mode: 'enforcing' })).toEqual(['registry.example/team/app:1']);
    expect(candidates(`u/app@${DIGEST}`, { aliases })).toEqual([`docker.io/library/app@${DIGEST}`]);
    expect(candidates('other/app:1', { aliases })).toHaveLength(2);
    expect(candidates('reset:1', { aliases })).toHaveLength(2);
    expect(candidates('constructor:1', { aliases })).toHaveLength(2);
  });

  it('none for a short one that could be several, in enforcing mode', () => {
    expect(crioCandidates('app:1', { searchRegistries, mode: 'enforcing' })).toMatchObject({
      candidates: [],
      refused: expect.stringMatching(/docker.io\/library\/app:1 or registry.example:5000\/app:1, .*enforcing/),
    });
    expect(candidates('app:1', { searchRegistries: ['docker.io'], mode: 'enforcing' })).toEqual([
      'docker.io/library/app:1',
    ]);
  });

  it.each(['https://registry.example', 'registry example', 'registry.example/app:1', ''])(
    'none where the node has %j to search',
    search => {
      const answer = crioCandidates('app:1', { searchRegistries: ['docker.io', search] });
      expect(answer).toMatchObject({ candidates: [], refused: expect.stringContaining('no name of an image') });
    },
  );

  it('none for a first part with an uppercase letter, which is a registry for Docker alone', () => {
    expect(crioCandidates('Team/app:1', { searchRegistries: ['docker.io'] })).toMatchObject({
      short: true,
      candidates: [],
    });
  });

  it('none for a short one where no search registry is configured', () => {
    expect(crioCandidates('app:1', { searchRegistries: [] })).toMatchObject({ candidates: [], short: true });
  });
});

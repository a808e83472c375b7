import { describe, expect, it } from 'vitest';
import { describeNames, digestFate } from '../../../src/image/names.ts';

const DIGEST = `sha256:${'0123456789abcdef'.repeat(4)}`;

describe('what is said of names near the one that a pod asks for', () => {
  it.each([
    ['app:1', 'localhost/app:1', /^the node has localhost\/app:1, the pod asks for docker.io\/library\/app:1$/],
    ['app:1', 'registry.example/app:1', /has registry.example\/app:1, the pod asks/],
    ['registry.example/team/app:1', 'localhost/app:1', /has localhost\/app:1, the pod asks/],
    ['app:1', 'app:1', /under that short name, .* it must be docker.io\/library\/app:1/],
    ['app', 'docker.io/library/app:1', /has docker.io\/library\/app:1, .* docker.io\/library\/app:latest/],
    [`app@${DIGEST}`, 'docker.io/library/app:1', /has docker.io\/library\/app:1/],
  ])('%s where %s is', (requested, present, sentence) => {
    expect(describeNames(requested, [present])).toEqual([expect.stringMatching(sentence)]);
  });

  it('is nothing when the name is there, or only others are', () => {
    expect(describeNames('app:1', ['localhost/app:1', 'docker.io/library/app:1'])).toEqual([]);
    expect(describeNames('app:1', ['docker.io/library/web:1', 'registry.example/app:2', '<none>', ''])).toEqual([]);
  });

  it('starts with the nearest, and does not list everything', () => {
    const present = ['docker.io/library/app:2', 'localhost/team/app:1', 'localhost/app:1', 'docker.io/library/app:3'];
    const said = describeNames('app:1', present, 'the archive');
    expect(said).toHaveLength(3);
    expect(said[0]).toMatch(/^the archive has localhost\/app:1,/);
    expect(said[1]).toMatch(/^the archive has localhost\/team\/app:1,/);
  });
});

describe('a digest in a reference', () => {
  it.each([
    ['app:1', DIGEST, 'none'],
    [`app@${DIGEST}`, DIGEST, 'kept'],
    [`app:1@${DIGEST}`, `sha256:${'f'.repeat(64)}`, 'name only'],
  ])('%s, sent as %s: %s', (reference, sent, fate) => {
    expect(digestFate(reference, sent)).toBe(fate);
  });
});

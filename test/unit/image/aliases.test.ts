import { describe, expect, it } from 'vitest';
import { parseAlias, withAliases } from '../../../src/image/aliases.ts';
import type { SourceImage } from '../../../src/image/image.ts';
import { dockerArchive, sampleImage, sampleLayer, writeTar } from './archives.ts';
import { failureOf, useWorkplace } from './opening.ts';

const place = useWorkplace();
const APP = 'docker.io/library/app:1';
const WEB = 'registry.example/web:2';
const image = (reference: string): SourceImage => ({ reference, origin: 'podman', variants: [] });
const aliasesOf = (texts: readonly string[], ...references: string[]) =>
  withAliases(references.map(image), texts).map(({ aliases = [] }) => aliases);

describe('a further name', () => {
  it.each([
    ['localhost/app:1', { alias: 'localhost/app:1', image: undefined }],
    ['app=web', { alias: 'docker.io/library/app:latest', image: 'docker.io/library/web:latest' }],
    ['localhost:5000/app:1=app:1', { alias: 'localhost:5000/app:1', image: APP }],
    ['index.docker.io/app:1', { alias: APP, image: undefined }],
  ])('%s is read by the grammar of references, and normalised', (text, alias) => {
    expect(parseAlias(text)).toEqual({ ...alias, spelling: text.replace(/=.*/, '') });
  });

  it.each(['', '=', 'app=', '=app', 'app=web=x', 'App', 'app: 1', 'app;id=web'])('%j is refused', text => {
    expect(() => parseAlias(text)).toThrow(expect.objectContaining({ code: 'INPUT_INVALID' }));
  });

  it('belongs to the only image, or to the one that it names', () => {
    expect(aliasesOf(['localhost/app:1', 'app:latest'], APP)).toEqual([
      ['localhost/app:1', 'docker.io/library/app:latest'],
    ]);
    expect(aliasesOf([`web:2=${WEB}`, 'localhost/app:1=app:1'], APP, WEB)).toEqual([
      ['localhost/app:1'],
      ['docker.io/library/web:2'],
    ]);
    expect(aliasesOf([], APP, WEB)).toEqual([[], []]);
  });

  it.each([
    ['that an image has already', ['app:1=registry.example/web:2'], /names docker.io\/library\/app:1 more than once/],
    ['that is given twice', ['x:1=app:1', 'docker.io/x:1=web:2'], /docker.io\/library\/x:1 more than once/],
    ['for nobody of several', ['x:1'], /does not say which image docker.io\/library\/x:1 is for/],
    ['for an image that is not there', ['x:1=gone:1'], /docker.io\/library\/gone:1, which is not among .*app:1/],
  ])('%s is refused', (_what, texts, message) => {
    expect(() => aliasesOf(texts, APP, WEB)).toThrow(message);
  });

  it('comes with the images that are opened, and is checked against the names in an archive', async () => {
    const app = sampleImage([await sampleLayer('layer')]);
    const archive = await writeTar(`${place.directory}/image.tar`, dockerArchive([[['app:1'], app]], 'docker'));
    const set = await place.open({ archive, aliases: ['localhost/app:1'] });
    expect(set.images).toMatchObject([{ reference: APP, aliases: ['localhost/app:1'] }]);
    expect(await failureOf(place.open({ archive, aliases: ['x=gone:1'] }))).toMatchObject({ code: 'INPUT_INVALID' });
  });
});

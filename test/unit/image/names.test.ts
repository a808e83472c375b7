import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { dockerArchive, LINUX_AMD64, named, ociArchive, sampleImage, sampleLayer, writeTar } from './archives.ts';
import { failureOf, useWorkplace } from './opening.ts';

const place = useWorkplace();
const layer = await sampleLayer('layer');
const app = sampleImage([layer], LINUX_AMD64, 'app');
const other = sampleImage([layer], LINUX_AMD64, 'other');

/** Opens a docker-archive of images with these names, and returns which names were asked for and found. */
async function open(stored: readonly (readonly string[])[], ...requests: string[]): Promise<readonly string[]> {
  const images = stored.map((names, index) => [names, index === 0 ? app : other] as const);
  const path = await writeTar(join(place.directory, 'image.tar'), dockerArchive(images, 'podman'));
  const set = await place.openArchive(path, ...requests);
  return set.images.map(({ reference }) => reference);
}

describe('the name that an image of an archive gets', () => {
  it.each([
    ['app:v1', 'app:v1', 'docker.io/library/app:v1'],
    ['docker.io/library/app:v1', 'app:v1', 'docker.io/library/app:v1'],
    ['localhost/app:v1', 'app:v1', 'docker.io/library/app:v1'],
    ['localhost/app:v1', 'localhost/app:v1', 'localhost/app:v1'],
    ['localhost/app:v1', 'docker.io/library/app:v1', 'docker.io/library/app:v1'],
    ['host:5000/app:v1', 'host:5000/app:v1', 'host:5000/app:v1'],
    ['app:latest', 'app', 'docker.io/library/app:latest'],
  ])('stored as %s and wanted as %s: %s', async (stored, wanted, name) => {
    expect(await open([[stored]], wanted)).toEqual([name]);
  });

  it('is the wanted one when the only image has none', async () => {
    expect(await open([[]], 'registry.example/app:v2')).toEqual(['registry.example/app:v2']);
  });

  it('is its own when nothing is asked for, for all images and names', async () => {
    expect(await open([['app:v1', 'host:5000/app:v1'], ['other:v1']])).toEqual([
      'docker.io/library/app:v1',
      'host:5000/app:v1',
      'docker.io/library/other:v1',
    ]);
  });

  it('must be given when there is none to take', async () => {
    expect(await failureOf(open([[]]))).toMatchObject({
      code: 'INPUT_INVALID',
      hint: expect.stringContaining('images'),
    });
  });

  it.each([
    [['app:v1'], 'app:v2'],
    [['app:v1'], 'app'],
    [['host:5000/app:v1'], 'app:v1'],
    [['app:v1'], 'localhost/app:v1'],
  ])('stored as %s is not what %s asks for, and the error lists what is there', async (stored, wanted) => {
    const failure = await failureOf(open([stored], wanted));
    expect(failure.code).toBe('IMAGE_NOT_FOUND');
    expect(failure.message).toMatch(/app:v1$/);
  });

  it('does not mix images up', async () => {
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
    const set = await place.openArchive(path, 'other:v1', 'app:v1');
    expect(set.images.map(image => image.variants[0]?.imageId)).toEqual([other.imageId, app.imageId]);
  });
});

describe('the names in an OCI archive', () => {
  const names = async (annotations: Record<string, string>, ...requests: string[]) => {
    const path = await writeTar(join(place.directory, 'image.tar'), ociArchive([{ image: app, annotations }]));
    return (await place.openArchive(path, ...requests)).images.map(({ reference }) => reference);
  };

  it('come from the annotation of containerd', async () => {
    expect(await names(named('docker.io/u/app:v1'))).toEqual(['docker.io/u/app:v1']);
  });

  it('come from the annotation of the specification when it is a name', async () => {
    expect(await names({ 'org.opencontainers.image.ref.name': 'localhost/app:v1' }, 'app:v1')).toEqual([
      'docker.io/library/app:v1',
    ]);
  });

  it('do not come from it when it is only a tag', async () => {
    const tagOnly = { 'org.opencontainers.image.ref.name': 'v1' };
    expect(await names(tagOnly, 'app:v1')).toEqual(['docker.io/library/app:v1']);
    expect(await failureOf(names(tagOnly))).toMatchObject({ code: 'INPUT_INVALID' });
  });

  it('are not needed for a request by digest', async () => {
    const entries = ociArchive([{ image: app }]);
    const index = JSON.parse(String(entries.find(({ name }) => name === 'index.json')?.content));
    const path = await writeTar(join(place.directory, 'image.tar'), entries);
    const reference = `app@${index.manifests[0].digest}`;
    const set = await place.openArchive(path, reference);
    expect(set.images[0]?.reference).toBe(`docker.io/library/${reference}`);
    const wrong = `app@sha256:${'0'.repeat(64)}`;
    expect(await failureOf(place.openArchive(path, wrong))).toMatchObject({ code: 'IMAGE_NOT_FOUND' });
  });
});

import { describe, expect, it } from 'vitest';
import type { SideloadError } from '../../../src/errors.ts';
import type { InputName } from '../../../src/inputs.ts';
import { readSettings, type Settings } from '../../../src/settings.ts';
import { KEYS } from '../../ssh/server.ts';
import { recordingHost } from '../recording-host.ts';

/** The inputs that say where images are and what they are called, among others with which nothing is wrong. */
function read(texts: Partial<Record<InputName, string>>): Settings {
  const others = {
    images: 'app:1',
    nodes: '10.0.0.11',
    'ssh-private-key': KEYS.user.privateKey,
    'ssh-known-hosts': `10.0.0.11 ${KEYS.ed25519.publicKey}\n`,
  };
  return readSettings(recordingHost({ ...others, ...texts }), {});
}

function failure(texts: Partial<Record<InputName, string>>): SideloadError {
  try {
    read(texts);
  } catch (error) {
    return error as SideloadError;
  }
  return expect.unreachable('it should have failed');
}

describe('the inputs of a source', () => {
  it.each(['auto', 'docker', 'podman', 'buildah', 'nerdctl', 'containerd'] as const)('take %s', source => {
    expect(read({ source }).source).toBe(source);
  });

  it('take further names and a namespace', () => {
    const texts = { images: 'app:1\nweb:2', aliases: 'localhost/app:1=app:1, w=docker.io/library/web:2' };
    expect(read({ ...texts, 'containerd-namespace': 'k8s.io' })).toMatchObject({
      aliases: ['localhost/app:1=app:1', 'w=docker.io/library/web:2'],
      containerdNamespace: 'k8s.io',
    });
    expect(read({})).toMatchObject({ aliases: [], containerdNamespace: undefined });
  });

  it('take a name alone for an archive, whose images nobody knows yet', () => {
    expect(read({ images: '', archive: 'image.tar', aliases: 'app:1' }).aliases).toEqual(['app:1']);
  });

  it.each<[string, Partial<Record<InputName, string>>, RegExp]>([
    ['a further name that is none', { aliases: 'App' }, /repository must be lowercase/],
    ['one with two equals signs', { aliases: 'a=b=c' }, /more than one `=`/],
    ['one that `images` has already', { aliases: 'docker.io/library/app:1' }, /as `images` does/],
    ['one that is there twice', { aliases: 'b:1,docker.io/library/b:1' }, /`aliases` names .*b:1" more than once/],
    ['one for an image that is not pushed', { aliases: 'b:1=web:2' }, /web:2" is not in `images`/],
    ['one for nobody of two', { images: 'app:1,web:2', aliases: 'b:1' }, /does not say which image .*b:1/],
    ['a namespace that is none', { 'containerd-namespace': '-n x' }, /not a name of a namespace/],
    ['an engine and an archive', { source: 'containerd', archive: 'a.tar' }, /exclude each other/],
  ])('refuse %s', (_what, texts, message) => {
    expect(failure(texts)).toMatchObject({ code: 'INPUT_INVALID', message: expect.stringMatching(message) });
  });
});

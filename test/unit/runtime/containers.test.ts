import { expect, it } from 'vitest';
import { usedImages } from '../../../src/runtime/containers.ts';

function id(character: string): string {
  return `sha256:${character.repeat(64)}`;
}

function used(sections: Readonly<Record<string, string>>) {
  const { names, ids } = usedImages(new Map(Object.entries(sections)));
  return { names: [...names], ids: [...ids] };
}

it('are those that the CRI tells of a container, by each of its names and IDs', () => {
  const containers = [
    {
      image: { image: id('a'), userSpecifiedImage: 'app:1' },
      imageRef: `docker.io/library/app@${id('b')}`,
      imageId: 'c'.repeat(64),
    },
    { image: {}, imageRef: `docker://${id('d')}` },
    { imageRef: `docker-pullable://app@${id('e')}` },
    {},
  ];
  expect(used({ cri: JSON.stringify({ containers }) })).toEqual({
    names: ['docker.io/library/app:1', `docker.io/library/app@${id('b')}`, `docker.io/library/app@${id('e')}`],
    ids: [id('a'), id('c'), id('d')],
  });
});

it('are those of containers that people have made beside the CRI', () => {
  const ctr =
    'CONTAINER    IMAGE    RUNTIME\none    docker.io/library/by-ctr:1    io.containerd.runc.v2\ntwo    -    x\n';
  const podman = `${'a'.repeat(64)} docker.io/library/by-podman:1\n${'b'.repeat(64)} \n`;
  expect(used({ ctr, docker: `by-docker:1\n${id('c')}\n`, podman })).toEqual({
    names: ['docker.io/library/by-ctr:1', 'docker.io/library/by-docker:1', 'docker.io/library/by-podman:1'],
    ids: [id('c'), id('a'), id('b')],
  });
});

it('are none where there are no containers, and unknown where the answer is none', () => {
  expect(used({})).toEqual({ names: [], ids: [] });
  expect(used({ cri: '{"containers":[]}', ctr: 'CONTAINER IMAGE RUNTIME' })).toEqual({ names: [], ids: [] });
  expect(used({ cri: '{}' })).toEqual({ names: [], ids: [] });
  expect(() => used({ cri: 'time="x" level=fatal' })).toThrow(/no list of containers/);
});

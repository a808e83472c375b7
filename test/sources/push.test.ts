import { createServer } from 'node:net';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { SideloadError } from '../../src/errors.ts';
import { readArchive } from '../../src/image/archive.ts';
import type { Digest } from '../../src/image/digest.ts';
import type { ImageSet } from '../../src/image/image.ts';
import type { ReceiverStore } from '../../src/image/received.ts';
import { openScratch, type Scratch } from '../../src/image/scratch.ts';
import { readSaved } from '../../src/image/sources/engine.ts';
import { type PushCommand, readPushed } from '../../src/image/sources/push.ts';
import { failureOf } from '../unit/image/opening.ts';
import {
  expectImage,
  expectSendable,
  hostArchitecture,
  never,
  only,
  recording,
  run,
  seed,
  told,
  useWorkshop,
  variantOf,
} from './images.ts';
import { producer } from './producers.ts';

const shop = useWorkshop();
const { lab } = shop;
const classic = join(lab.bin, 'docker');
const podman = join(lab.bin, 'podman');
const containerdStore = producer(lab, 'docker-containerd');
const ctr = producer(lab, 'ctr');

function build(program: string, reference: string, text: string, base: string, ...flags: readonly string[]): void {
  seed(shop, text, { text: base });
  run(program, ['build', ...flags, '--tag', reference, shop.context]);
}

/** Reads what was opened by the engine's word alone. */
async function readAll({ images }: ImageSet): Promise<void> {
  for (const { variants } of images) for (const variant of variants) await variant.config();
}

function tagsOf(program: string): string {
  return run(program, ['image', 'ls', '--format', '{{.Repository}}:{{.Tag}} {{.Digest}}']);
}

afterEach(() => {
  for (const program of [classic, containerdStore, podman]) expect(tagsOf(program)).not.toContain('kube-sideload-');
});

describe('docker with the classic store', () => {
  it('saves an image of new layers, and pushes one that has a layer of it', async () => {
    build(classic, 'first:v1', 'first', 'a base of both', '--quiet');
    build(classic, 'second:v1', 'second', 'a base of both', '--quiet');
    run(classic, ['save', '--output', shop.at('second.tar'), 'second:v1']);
    const docker = await recording(shop, classic);
    const set = await shop.open({ source: 'docker', docker: docker.path, references: ['first:v1', 'second:v1'] });
    await readAll(set);
    expect(await docker.calls()).toEqual([
      ...['image', 'image', 'save'], // inspect both; the first
      ...['context', 'image', 'tag', 'push', 'image'], // list of leftovers; untag
    ]);
    const [, second] = set.images;
    await expectImage(
      shop,
      { ...set, images: second === undefined ? [] : [second] },
      told(lab, `docker-archive:${shop.at('second.tar')}`),
      'docker.io/library/second:v1',
    );
  });

  it('is not read again by a later run that finds all layers and the config on the runner', async () => {
    build(classic, 'again:v1', 'again', 'a base of again', '--quiet');
    const cache = { directory: shop.at('cache'), maxBytes: 1e9 };
    const first = await shop.open({ source: 'docker', docker: classic, references: ['again:v1'], cache });
    await readAll(first);
    await first.close();
    const docker = await recording(shop, classic);
    const second = await shop.open({ source: 'docker', docker: docker.path, references: ['again:v1'], cache });
    run(classic, ['save', '--output', shop.at('again.tar'), 'again:v1']);
    await expectImage(shop, second, told(lab, `docker-archive:${shop.at('again.tar')}`), 'docker.io/library/again:v1');
    expect(await docker.calls()).toEqual(['image']);
  });

  it('that runs elsewhere is not asked to push', async () => {
    build(classic, 'remote:v1', 'remote', 'a base of both', '--quiet');
    build(classic, 'remote:v2', 'remote too', 'a base of both', '--quiet');
    const docker = await recording(shop, classic, 'case "$1" in context) echo tcp://builder:2375; exit ;; esac');
    await readAll(await shop.open({ source: 'docker', docker: docker.path, references: ['remote:v1', 'remote:v2'] }));
    expect(await docker.calls()).not.toContain('push');
    expect(shop.lines).toContain('the whole image is saved: docker engine runs elsewhere (tcp://builder:2375)');
  });

  it('that does not push saves, and says why', async () => {
    build(classic, 'refused:v1', 'refused', 'a base of both', '--quiet');
    build(classic, 'refused:v2', 'refused too', 'a base of both', '--quiet');
    const refusal = 'echo "connect: connection refused" >&2; exit 1';
    const docker = await recording(shop, classic, `case "$1" in push) ${refusal} ;; esac`);
    const set = await shop.open({ source: 'docker', docker: docker.path, references: ['refused:v1', 'refused:v2'] });
    await readAll(set);
    expect(shop.lines).toContain(
      'the whole image is saved: docker engine did not push refused:v2: connect: connection refused',
    );
  });
});

it('podman pushes, and gives the image that skopeo finds', async () => {
  build(podman, 'pushed:v1', 'pushed', 'pushed', '--quiet');
  const recorded = await recording(shop, podman);
  const set = await shop.open({ source: 'podman', podman: recorded.path, references: ['pushed:v1'] });
  await readAll(set);
  expect(await recorded.calls()).toEqual(['image', 'image', 'push']);
  await expectImage(shop, set, told(lab, 'containers-storage:localhost/pushed:v1'), 'docker.io/library/pushed:v1');
});

it('docker with containerd’s store pushes every platform, with an attestation beside it', async () => {
  const other = hostArchitecture() === 'amd64' ? 'arm64' : 'amd64';
  const platforms = `linux/${hostArchitecture()},linux/${other}`;
  build(containerdStore, 'pushed:both', 'both', 'both', '--platform', platforms);
  const docker = await recording(shop, containerdStore);
  const set = await shop.open({ source: 'docker', docker: docker.path, references: ['pushed:both'] });
  expect(await docker.calls()).not.toContain('save');
  expect(only(set).variants).toHaveLength(2);
  for (const architecture of [hostArchitecture(), other]) {
    await expectSendable(shop, 'docker.io/library/pushed:both', variantOf(set, architecture));
  }
});

it('containerd pushes', async () => {
  build(containerdStore, 'pushed:ctr', 'ctr', 'ctr', '--provenance=false');
  run(containerdStore, ['save', '--output', shop.at('ctr.tar'), 'pushed:ctr']);
  run(ctr, ['images', 'import', '--local', shop.at('ctr.tar')]);
  const recorded = await recording(shop, ctr, 'case "$*" in *export*) exit 64 ;; esac');
  const set = await shop.open({ source: 'containerd', ctr: recorded.path, references: ['pushed:ctr'] });
  await expectImage(shop, set, told(lab, `docker-archive:${shop.at('ctr.tar')}`), 'docker.io/library/pushed:ctr');
});

describe('a push', () => {
  let scratch: Scratch;
  let written: number;
  let store: ReceiverStore;
  beforeEach(async () => {
    scratch = await openScratch(shop.directory, () => {}, never);
    written = 0;
    store = {
      find: scratch.find,
      write: (open, signal) => {
        written += 1;
        return scratch.write(open, signal);
      },
    };
  });
  afterEach(() => scratch.close());

  const idOf = (program: string, reference: string) =>
    `sha256:${run(program, ['image', 'inspect', '--format', '{{.Id}}', reference]).replace('sha256:', '')}`;
  const dockerPush = (reference: string, id: string): PushCommand => ({
    engine: 'docker engine',
    program: classic,
    reference,
    id,
    push: destination => ['push', '--quiet', destination],
    tags: {
      add: destination => ['tag', reference, destination],
      remove: destination => ['image', 'rm', destination],
      list: pattern => ['image', 'ls', '--filter', `reference=${pattern}`, '--format', '{{.Repository}}:{{.Tag}}'],
    },
  });
  const podmanPush = (reference: string, id: string): PushCommand => ({
    engine: 'podman',
    program: podman,
    reference,
    id,
    push: destination => [
      ...['push', '--quiet', '--tls-verify=false', '--compression-format', 'zstd', '--force-compression=false'],
      ...[reference, `docker://${destination}`],
    ],
  });
  const imageIdsOf = async (entries: Awaited<ReturnType<typeof readPushed>>) =>
    (await readArchive(entries, () => {}, new AbortController().signal)).flatMap(({ variants }) =>
      variants.map(({ imageId }) => imageId),
    );

  it.each(['docker', 'podman'] as const)('of an image that %s has pushed before uploads no layer', async engine => {
    const program = { docker: classic, podman }[engine];
    build(program, 'again:v1', `again ${engine}`, `again ${engine}`, '--quiet');
    const id = idOf(program, 'again:v1');
    const command = { docker: dockerPush, podman: podmanPush }[engine]('again:v1', id);
    expect(await imageIdsOf(await readPushed(command, store, never))).toEqual([id]);
    expect(written).toBe(2);
    expect(await imageIdsOf(await readPushed(command, store, never))).toEqual([id]);
    expect(written).toBe(2);
  });

  it('by podman uploads no layer whose diffID is stored, although it never pushed it', async () => {
    build(podman, 'saved:v1', 'saved', 'saved', '--quiet');
    const args = ['save', '--format', 'docker-archive', 'saved:v1'];
    await readSaved({ engine: 'podman', program: podman, args, reference: 'saved:v1' }, scratch, never);
    const id = idOf(podman, 'saved:v1');
    expect(await imageIdsOf(await readPushed(podmanPush('saved:v1', id), store, never))).toEqual([id]);
    expect(written).toBe(0);
  });

  it('of another image than the engine told is refused', async () => {
    build(classic, 'wrong:v1', 'wrong', 'wrong', '--quiet');
    const failure = await failureOf(readPushed(dockerPush('wrong:v1', `sha256:${'0'.repeat(64)}`), store, never));
    expect(failure).toMatchObject({ code: 'SOURCE_UNAVAILABLE', message: expect.stringContaining('in place of') });
  });

  it('that cannot be stored ends with the reason, and at once', async () => {
    build(classic, 'full:v1', 'full', 'full', '--quiet');
    const full = new SideloadError('DISK_FULL', 'no space left');
    const write: Scratch['write'] = async open => {
      open().destroy();
      throw full;
    };
    const command = dockerPush('full:v1', idOf(classic, 'full:v1'));
    expect(await failureOf(readPushed(command, { ...store, write }, never))).toBe(full);
  });

  it('that is cancelled leaves no tag and no file', async () => {
    build(classic, 'cancelled:v1', 'cancelled', 'cancelled', '--quiet');
    const job = new AbortController();
    const command = dockerPush('cancelled:v1', idOf(classic, 'cancelled:v1'));
    const find = (digest: Digest) => {
      job.abort();
      return scratch.find(digest);
    };
    expect(await failureOf(readPushed(command, { ...store, find }, job.signal))).toMatchObject({ code: 'CANCELLED' });
  });

  it('removes the tags of runs that are no more, and not those of one that listens', async () => {
    build(classic, 'stale:v1', 'stale', 'stale', '--quiet');
    const server = createServer().listen(0, '127.0.0.1');
    await new Promise(resolve => server.once('listening', resolve));
    const { port } = server.address() as { port: number };
    const [dead, alive] = [1, port].map(it => `127.0.0.1:${it}/kube-sideload-${'a'.repeat(32)}/image:pushed`);
    for (const name of [dead, alive]) run(classic, ['tag', 'stale:v1', name ?? '']);
    await readPushed(dockerPush('stale:v1', idOf(classic, 'stale:v1')), store, never);
    expect(tagsOf(classic)).not.toContain(dead);
    expect(tagsOf(classic)).toContain(alive);
    run(classic, ['image', 'rm', alive ?? '']);
    server.close();
  });
});

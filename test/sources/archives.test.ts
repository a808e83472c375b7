import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { failureOf } from '../unit/image/opening.ts';
import {
  expectImage,
  expectSendable,
  hostArchitecture,
  type Identity,
  never,
  only,
  run,
  seed,
  told,
  useWorkshop,
  variantOf,
} from './images.ts';
import { producer } from './producers.ts';

const shop = useWorkshop();
const { lab } = shop;
const REFERENCE = 'docker.io/library/app:v1';
const skopeo = join(lab.bin, 'skopeo');
const podman = join(lab.bin, 'podman');
const umoci = join(lab.bin, 'umoci');
const buildah = producer(lab, 'buildah');
const other = hostArchitecture() === 'amd64' ? 'arm64' : 'amd64';

/** Opens an archive by `app:v1` and holds it against what skopeo finds there. */
async function expectArchive(archive: string, identity: Identity, request = 'app:v1', reference = REFERENCE) {
  const set = await shop.open({ archive, references: [request] });
  await expectImage(shop, set, identity, reference);
  return set;
}

describe('buildx writes', () => {
  const build = (output: string, ...flags: readonly string[]) => {
    seed(shop, 'buildx');
    run(producer(lab, 'docker-containerd'), ['buildx', 'build', ...flags, '--output', output, shop.context]);
  };
  const named = 'name=docker.io/library/app:v1';

  it('type=oci', async () => {
    const archive = shop.at('oci.tar');
    build(`type=oci,dest=${archive},${named}`);
    await expectArchive(archive, told(lab, `oci-archive:${archive}`));
  });

  it('type=oci for two platforms, with attestations', async () => {
    const archive = shop.at('oci-multi.tar');
    const platforms = `linux/${hostArchitecture()},linux/${other}`;
    build(`type=oci,dest=${archive},${named}`, '--platform', platforms, '--provenance=mode=max');
    const set = await expectArchive(archive, told(lab, `oci-archive:${archive}`));
    expect(only(set).variants).toHaveLength(2);
    await expectSendable(shop, REFERENCE, variantOf(set, other));
  });

  it('type=oci without a name', async () => {
    const archive = shop.at('oci-nameless.tar');
    build(`type=oci,dest=${archive}`);
    await expectArchive(archive, told(lab, `oci-archive:${archive}`));
    expect(await failureOf(shop.open({ archive }))).toMatchObject({ code: 'INPUT_INVALID' });
  });

  it('type=oci with zstd layers, which are sent as they are', async () => {
    const archive = shop.at('oci-zstd.tar');
    build(`type=oci,dest=${archive},${named},compression=zstd,force-compression=true`);
    const set = await expectArchive(archive, told(lab, `oci-archive:${archive}`));
    expect(await Promise.all(variantOf(set).layers.map(layer => layer.store(never)))).toMatchObject([
      { compression: 'zstd' },
      { compression: 'zstd' },
    ]);
  });

  it('type=oci,tar=false: a directory', async () => {
    const directory = shop.at('oci-directory');
    build(`type=oci,tar=false,dest=${directory},${named}`);
    await expectArchive(directory, told(lab, `oci:${directory}`));
  });

  it('type=docker', async () => {
    const archive = shop.at('docker.tar');
    build(`type=docker,dest=${archive},name=app:v1`);
    await expectArchive(archive, told(lab, `docker-archive:${archive}`));
  });
});

describe('of one image in containers-storage', () => {
  const stored = 'localhost/app:v1';
  const storage = `containers-storage:${stored}`;
  let identity: Identity;
  beforeAll(() => {
    seed(shop, 'storage');
    run(buildah, ['build', '--quiet', '--layers', '--tag', stored, shop.context]);
    identity = told(lab, storage);
  });

  it.each(['docker-archive', 'oci-archive', 'oci-dir'])('podman save --format %s', async format => {
    const archive = shop.at(`podman-${format}`);
    run(podman, ['save', '--quiet', '--format', format, '--output', archive, stored]);
    await expectArchive(archive, identity);
  });

  it('podman save --multi-image-archive, of which one is wanted', async () => {
    const archive = shop.at('podman-multi.tar');
    run(podman, ['tag', stored, 'localhost/app:v2']);
    seed(shop, 'another');
    run(buildah, ['build', '--quiet', '--tag', 'localhost/another:v1', shop.context]);
    const names = [stored, 'localhost/app:v2', 'localhost/another:v1'];
    run(podman, ['save', '--quiet', '--multi-image-archive', '--output', archive, ...names]);
    await expectArchive(archive, identity);
    const another = told(lab, 'containers-storage:localhost/another:v1');
    await expectArchive(archive, another, 'another:v1', 'docker.io/library/another:v1');
  });

  it.each(['docker-archive:%:app:v1', 'oci-archive:%:v1', 'oci:%:v1', 'oci:%:localhost/app:v1'])(
    'buildah push %s',
    async destination => {
      const archive = shop.at(`buildah-${destination.replaceAll(/\W/g, '-')}`);
      run(buildah, ['push', '--quiet', stored, destination.replace('%', archive)]);
      await expectArchive(archive, identity);
    },
  );

  it.each(['docker-archive:%', 'docker-archive:%:app:v1', 'oci-archive:%', 'oci-archive:%:v1', 'oci:%:app:v1'])(
    'skopeo copy %s',
    async destination => {
      const archive = shop.at(`skopeo-${destination.replaceAll(/\W/g, '-')}`);
      run(skopeo, ['copy', '--quiet', storage, destination.replace('%', archive)]);
      await expectArchive(archive, identity);
    },
  );

  it('skopeo copy --dest-compress-format zstd:chunked', async () => {
    const directory = shop.at('skopeo-chunked');
    const flags = ['--dest-compress-format', 'zstd:chunked', '--dest-force-compress-format'];
    run(skopeo, ['copy', '--quiet', ...flags, storage, `oci:${directory}:v1`]);
    await expectArchive(directory, identity);
  });
});

describe('a layout that several images were put into', () => {
  const directory = () => shop.at('umoci');
  beforeAll(() => {
    run(umoci, ['init', '--layout', directory()]);
    for (const [tag, text] of [
      ['one', 'first'],
      ['two', 'second'],
    ]) {
      const bundle = shop.at(`bundle-${tag}`);
      run(umoci, ['new', '--image', `${directory()}:${tag}`]);
      run(umoci, ['unpack', '--image', `${directory()}:${tag}`, bundle]);
      writeFileSync(join(bundle, 'rootfs', 'file'), String(text));
      run(umoci, ['repack', '--image', `${directory()}:${tag}`, bundle]);
    }
    run(umoci, ['tag', '--image', `${directory()}:two`, 'again']);
  });

  it.each(['one', 'two', 'again'])('by umoci gives the one of the tag %s', async tag => {
    const reference = `registry.example/app:${tag}`;
    await expectArchive(directory(), told(lab, `oci:${directory()}:${tag}`), reference, reference);
  });

  it('says which tags are there, for one that is not', async () => {
    const failure = await failureOf(shop.open({ archive: directory(), references: ['app:three'] }));
    expect(failure).toMatchObject({ code: 'IMAGE_NOT_FOUND', message: expect.stringContaining('tagged two') });
  });

  it('gives the one of a digest, and keeps its manifest', async () => {
    const index = JSON.parse(readFileSync(join(directory(), 'index.json'), 'utf8'));
    const reference = `registry.example/app@${index.manifests[1].digest}`;
    const set = await expectArchive(directory(), told(lab, `oci:${directory()}:two`), reference, reference);
    expect(await expectSendable(shop, reference, variantOf(set))).toBe(index.manifests[1].digest);
  });

  it('lacks what somebody deleted', async () => {
    const damaged = shop.at('umoci-damaged');
    run('cp', ['-r', directory(), damaged]);
    const [layer] =
      (await shop.open({ archive: damaged, references: ['app:two'] })).images[0]?.variants[0]?.layers ?? [];
    const blob = await layer?.store(never);
    rmSync(join(damaged, 'blobs', 'sha256', String(blob?.digest).replace('sha256:', '')));
    const failure = await failureOf(shop.open({ archive: damaged, references: ['app:two'] }));
    expect(failure).toMatchObject({ code: 'ARCHIVE_INCOMPLETE' });
  });
});

describe('go-containerregistry', () => {
  const crane = producer(lab, 'crane');
  let registry: ChildProcess;
  let base = '';
  beforeAll(async () => {
    // Only so that there is something to pull: crane and ko start from a registry.
    registry = spawn(crane, ['registry', 'serve', '--address', '127.0.0.1:0'], { stdio: ['ignore', 'ignore', 'pipe'] });
    let said = '';
    registry.stderr?.setEncoding('utf8').on('data', text => {
      said += text;
    });
    while (!/port \d+\n/.test(said)) await once(registry.stderr ?? expect.unreachable(), 'data');
    const host = `127.0.0.1:${/port (\d+)/.exec(said)?.[1]}`;
    run('tar', ['-cf', shop.at('layer.tar'), '-C', shop.context, 'busybox', 'seed']);
    run(crane, ['append', '--oci-empty-base', '-f', shop.at('layer.tar'), '-t', `${host}/raw:v1`]);
    run(crane, ['mutate', `${host}/raw:v1`, '--set-platform', `linux/${hostArchitecture()}`, '-t', `${host}/app:v1`]);
    base = `${host}/app:v1`;
  });
  afterAll(() => registry.kill());

  it('crane pull', async () => {
    const archive = shop.at('crane.tar');
    run(crane, ['pull', base, archive]);
    await expectArchive(archive, told(lab, `docker-archive:${archive}`), base, base);
  });

  it('crane pull --format=oci: a layout without a name', async () => {
    const directory = shop.at('crane-oci');
    run(crane, ['pull', '--format=oci', base, directory]);
    await expectArchive(directory, told(lab, `oci:${directory}`));
  });

  it('crane append to nothing: an image for no platform, which no node could be given', async () => {
    const archive = shop.at('crane-append.tar');
    run(crane, ['append', '--oci-empty-base', '-f', shop.at('layer.tar'), '-t', 'app:v1', '-o', archive]);
    const failure = await failureOf(shop.open({ archive, references: ['app:v1'] }));
    expect(failure).toMatchObject({
      code: 'ARCHIVE_INVALID',
      message: expect.stringContaining('no os and architecture'),
    });
  });

  it('ko build --tarball and --oci-layout-path', async () => {
    const program = shop.at('program');
    mkdirSync(program);
    writeFileSync(join(program, 'go.mod'), 'module program.example/app\n\ngo 1.26\n');
    writeFileSync(join(program, 'main.go'), 'package main\n\nfunc main() { select {} }\n');
    writeFileSync(join(program, '.ko.yaml'), '');
    const [archive, directory] = [shop.at('ko.tar'), shop.at('ko-oci')];
    // Its layout's path becomes part of a name, in which the temporary directory's own would not be allowed.
    const output = ['--push=false', '--sbom=none', '--bare', '-t', 'v1', `--tarball=${archive}`];
    run(
      'sh',
      [
        '-c',
        'cd "$1" && shift && exec "$@"',
        'sh',
        program,
        producer(lab, 'ko'),
        'build',
        ...output,
        '--oci-layout-path=../ko-oci',
        '.',
      ],
      {
        ...process.env,
        KO_DEFAULTBASEIMAGE: base,
        KO_DOCKER_REPO: 'registry.example/app',
      },
    );
    const reference = 'registry.example/app:v1';
    const identity = told(lab, `docker-archive:${archive}`);
    await expectArchive(archive, identity, reference, reference);
    await expectArchive(directory, identity, reference, reference);
  });
});

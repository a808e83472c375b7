import { join } from 'node:path';
import { beforeAll, describe, expect, it } from 'vitest';
import { failureOf } from '../unit/image/opening.ts';
import {
  expectImage,
  expectSendable,
  hostArchitecture,
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
const podman = join(lab.bin, 'podman');
const classic = join(lab.bin, 'docker');
const containerdStore = producer(lab, 'docker-containerd');
const buildah = producer(lab, 'buildah');
const ctr = producer(lab, 'ctr');
const nowhere = { docker: '/nonexistent/program', podman: '/nonexistent/program', buildah: '/nonexistent/program' };
const other = hostArchitecture() === 'amd64' ? 'arm64' : 'amd64';
const both = `linux/${hostArchitecture()},linux/${other}`;

function build(program: string, reference: string, text: string, ...flags: readonly string[]): void {
  seed(shop, text);
  run(program, ['build', ...flags, '--tag', reference, shop.context]);
}

describe('docker with the classic store', () => {
  it('gives the image that podman finds in the same archive', async () => {
    build(classic, 'classic:v1', 'classic', '--quiet');
    run(classic, ['save', '--output', shop.at('classic.tar'), 'classic:v1']);
    const set = await shop.open({ source: 'docker', references: ['classic:v1'] });
    await expectImage(shop, set, told(lab, `docker-archive:${shop.at('classic.tar')}`), 'docker.io/library/classic:v1');
    expect(variantOf(set).imageId).toBe(run(classic, ['image', 'inspect', '--format', '{{.Id}}', 'classic:v1']));
  });
});

describe('docker with containerd’s store', () => {
  const options = { source: 'docker', docker: containerdStore } as const;
  const idOf = (name: string) => run(containerdStore, ['image', 'inspect', '--format', '{{.Id}}', name]);

  it('gives an image with an attestation beside it, whose ID there is no config’s digest', async () => {
    build(containerdStore, 'single:v1', 'single');
    const set = await shop.open({ ...options, references: ['single:v1'] });
    run(containerdStore, ['save', '--output', shop.at('single.tar'), 'single:v1']);
    await expectImage(shop, set, told(lab, `docker-archive:${shop.at('single.tar')}`), 'docker.io/library/single:v1');
    expect(only(set).variants).toHaveLength(1);
    expect(variantOf(set).imageId).not.toBe(idOf('single:v1'));
  });

  it('gives every platform of an image, each with its own layers', async () => {
    build(containerdStore, 'multi:v1', 'multi', '--platform', both);
    const set = await shop.open({ ...options, references: ['multi:v1'] });
    expect(
      only(set)
        .variants.map(({ platform }) => platform.architecture)
        .toSorted(),
    ).toEqual([hostArchitecture(), other].toSorted());
    const [own, foreign] = [variantOf(set), variantOf(set, other)];
    expect(own.layers[0]?.diffId).toBe(foreign.layers[0]?.diffId);
    expect(own.layers[1]?.diffId).not.toBe(foreign.layers[1]?.diffId);
    for (const image of [own, foreign]) await expectSendable(shop, 'docker.io/library/multi:v1', image);
  });

  it('gives the platform that is left of an index that names more (kind#3795)', async () => {
    seed(shop, 'partial', { apart: true });
    run(containerdStore, ['build', '--platform', both, '--tag', 'partial:v1', shop.context]);
    run(containerdStore, ['image', 'rm', '--force', '--platform', `linux/${other}`, 'partial:v1']);
    const set = await shop.open({ ...options, references: ['partial:v1'] });
    expect(only(set).variants.map(({ platform }) => platform.architecture)).toEqual([hostArchitecture()]);
    expect(shop.lines).toContainEqual(expect.stringMatching(`left out: .*linux/${other}`));
    await expectSendable(shop, 'docker.io/library/partial:v1', variantOf(set));
  });

  it('that has lost a layer which two images shared (moby#49473) gives no image at all', async () => {
    for (const name of ['loses:v1', 'keeps:v1']) {
      seed(shop, name, { text: 'shared base' });
      run(containerdStore, ['build', '--provenance=false', '--platform', both, '--tag', name, shop.context]);
    }
    run(containerdStore, ['image', 'rm', '--force', '--platform', `linux/${hostArchitecture()}`, 'loses:v1']);
    run(containerdStore, ['save', '--output', shop.at('keeps.tar'), 'keeps:v1']); // says nothing, and exits with 0
    const failure = await failureOf(shop.open({ ...options, references: ['keeps:v1'] }));
    expect(failure).toMatchObject({ code: 'ARCHIVE_INCOMPLETE', hint: expect.stringContaining('containerd') });
  });

  it('gives an image that was loaded from an index of two platforms', async () => {
    build(containerdStore, 'loaded:v1', 'loaded', '--platform', both);
    run(containerdStore, ['save', '--output', shop.at('loaded.tar'), 'loaded:v1']);
    run(containerdStore, ['image', 'rm', '--force', 'loaded:v1']);
    run(containerdStore, ['load', '--input', shop.at('loaded.tar')]);
    const set = await shop.open({ ...options, references: ['loaded:v1'] });
    expect(only(set).variants).toHaveLength(2);
  });

  it('gives what a reference with a digest names, and keeps that manifest', async () => {
    build(containerdStore, 'digested:v1', 'digested', '--provenance=false');
    const reference = `digested@${idOf('digested:v1')}`;
    const set = await shop.open({ ...options, references: [reference] });
    expect(only(set).reference).toBe(`docker.io/library/${reference}`);
    expect(await expectSendable(shop, only(set).reference, variantOf(set))).toBe(idOf('digested:v1'));
  });
});

describe('podman and buildah', () => {
  beforeAll(() => build(buildah, 'shared:v1', 'shared', '--quiet'));
  const truth = () => told(lab, 'containers-storage:localhost/shared:v1');

  it.each(['podman', 'buildah'] as const)('are one store: %s has what buildah built', async source => {
    const set = await shop.open({ source, references: ['shared:v1'] });
    expect(only(set).origin).toBe('podman');
    await expectImage(shop, set, truth(), 'docker.io/library/shared:v1');
  });

  it('buildah gives its image itself where podman is not installed', async () => {
    const set = await shop.open({ source: 'buildah', podman: '/nonexistent/program', references: ['shared:v1'] });
    expect(only(set).origin).toBe('buildah');
    await expectImage(shop, set, truth(), 'docker.io/library/shared:v1');
  });

  it('both say no for what is not there', async () => {
    const failure = await failureOf(shop.open({ source: 'buildah', references: ['nobody-built:v1'] }));
    expect(failure).toMatchObject({ code: 'IMAGE_NOT_FOUND', message: 'no image nobody-built:v1 in podman, buildah' });
  });
});

describe('containerd without docker', () => {
  const imported = 'docker.io/library/alone:v1';
  const archive = () => shop.at('alone.tar');
  const sources = { 'containerd (ctr)': 'containerd', 'nerdctl (emulated over ctr)': 'nerdctl' } as const;

  beforeAll(() => {
    build(containerdStore, 'alone:v1', 'alone', '--platform', both);
    run(containerdStore, ['save', '--output', archive(), 'alone:v1']);
    for (const namespace of ['default', 'k8s.io']) {
      run(ctr, ['-n', namespace, 'images', 'import', '--all-platforms', '--local', archive()]);
    }
    // The namespaces then differ in what they have.
    build(containerdStore, 'alone:k8s', 'k8s', '--provenance=false');
    run(containerdStore, ['save', '--output', shop.at('k8s.tar'), 'alone:k8s']);
    run(ctr, ['-n', 'k8s.io', 'images', 'import', '--local', shop.at('k8s.tar')]);
  });

  describe.each(Object.entries(sources))('%s', (_name, source) => {
    it('gives every platform of an image', async () => {
      const set = await shop.open({ source, references: ['alone:v1'] });
      expect(only(set).variants).toHaveLength(2);
      const flags = ['--override-arch', hostArchitecture()];
      await expectImage(shop, set, told(lab, `docker-archive:${archive()}`, ...flags), imported);
    });

    it('looks into the namespace that is named, and only there', async () => {
      const set = await shop.open({ source, containerdNamespace: 'k8s.io', references: ['alone:k8s'] });
      expect(only(set).origin).toContain('(namespace k8s.io)');
      await expectImage(shop, set, told(lab, `docker-archive:${shop.at('k8s.tar')}`), 'docker.io/library/alone:k8s');
      expect(await failureOf(shop.open({ source, references: ['alone:k8s'] }))).toMatchObject({
        code: 'IMAGE_NOT_FOUND',
      });
    });

    it('gives this platform where the content of another one is not there', async () => {
      const index = JSON.parse(run('tar', ['-xOf', archive(), 'index.json']));
      const platforms = JSON.parse(
        run('tar', ['-xOf', archive(), `blobs/sha256/${index.manifests[0].digest.slice('sha256:'.length)}`]),
      );
      const foreign = platforms.manifests.find(
        (entry: { platform: { architecture: string } }) => entry.platform.architecture === other,
      );
      const namespace = `partial-${source}`;
      run(ctr, ['-n', namespace, 'images', 'import', '--all-platforms', '--local', archive()]);
      run(ctr, ['-n', namespace, 'content', 'rm', foreign.digest]);
      const set = await shop.open({ source, containerdNamespace: namespace, references: ['alone:v1'] });
      expect(only(set).variants.map(({ platform }) => platform.architecture)).toEqual([hostArchitecture()]);
      await expectSendable(shop, imported, variantOf(set));
    });
  });

  it('is found by `auto`, after the others were asked', async () => {
    const set = await shop.open({ references: ['alone:v1'], ...nowhere, nerdctl: '/nonexistent/program' });
    expect(only(set).origin).toBe('containerd');
    expect(shop.lines).toContainEqual(
      'alone:v1 is taken from containerd; docker engine is not installed; podman is not installed; buildah is not installed; nerdctl is not installed',
    );
  });

  it('that is not running is said to be so, at once', async () => {
    const started = performance.now();
    const failure = await failureOf(
      shop.open({ source: 'containerd', references: ['alone:v1'], ctr: '/usr/bin/false' }),
    );
    expect(failure).toMatchObject({ code: 'SOURCE_UNAVAILABLE' });
    expect(performance.now() - started).toBeLessThan(10_000);
  });
});

describe('`auto` with the same name in docker (containerd’s store) and podman', () => {
  it('takes it when both hold one image, although their IDs differ', async () => {
    build(containerdStore, 'equal:v1', 'equal', '--provenance=false');
    run(containerdStore, ['save', '--output', shop.at('equal.tar'), 'equal:v1']);
    run(podman, ['load', '--quiet', '--input', shop.at('equal.tar')]);
    const ids = [containerdStore, podman].map(program =>
      run(program, ['image', 'inspect', '--format', '{{.Id}}', 'equal:v1']),
    );
    expect(ids[0]).not.toContain(ids[1]);
    const set = await shop.open({ docker: containerdStore, references: ['equal:v1'] });
    expect(only(set).origin).toBe('docker engine');
    expect(variantOf(set).imageId).toBe(`sha256:${ids[1]}`);
  });

  it.each([
    ['layers', []],
    ['labels', ['--label', 'other=true']],
  ])('refuses when they differ in their %s', async (what, flags) => {
    const name = `unequal-${what}:v1`;
    build(containerdStore, name, 'unequal', '--provenance=false');
    run(containerdStore, ['save', '--output', shop.at('unequal.tar'), name]);
    if (what === 'layers') build(podman, name, 'unequal too', '--quiet');
    else {
      build(containerdStore, name, 'unequal', '--provenance=false', ...flags);
      run(podman, ['load', '--quiet', '--input', shop.at('unequal.tar')]);
    }
    const failure = await failureOf(shop.open({ docker: containerdStore, references: [name] }));
    expect(failure).toMatchObject({ code: 'IMAGE_AMBIGUOUS', message: expect.stringContaining('podman') });
  });
});

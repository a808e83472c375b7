import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { afterAll, afterEach, describe, expect, inject, it } from 'vitest';
import { EXIT } from '../../src/host/host.ts';
import { archive, build, onRunner } from '../engines.ts';
import { enter } from '../lab/index.ts';
import { leftOnNode, nodeNamed, push, reach, referencesOn, runCli } from '../shipped.ts';

const lab = inject('lab');
const n1 = nodeNamed(lab, 'n1');
const directory = mkdtempSync(join(tmpdir(), 'kube-sideload-bundle-'));
afterAll(() => rmSync(directory, { recursive: true, force: true }));

afterEach(async () => {
  expect(await leftOnNode(lab)).toEqual([]);
});

/** `kube-sideload bundle` as on a machine that has an engine and knows nothing of any node. */
const bundle = (...args: readonly string[]) => runCli(['bundle', ...args], { lab });
const onN1 = reach(lab, [n1.address]);
const imageIds = (text = '{}') => JSON.parse(text) as Record<string, Record<string, string>>;
const entry = (file: string, name: string) => onRunner(lab, 'tar', ['-xOf', file, name]);

describe('a bundle', () => {
  it('is the same image to a node as the one that was pushed from docker, and only new layers travel', async () => {
    build(lab, 'docker', 'carried:1', 'carried first');
    const first = await push({ ...onN1, images: 'carried:1' }, { lab });
    expect(first.code).toBe(0);
    const file = join(directory, 'carried.tar');
    const written = await bundle('--images=carried:1', `--bundle=${file}`);
    expect(written.code).toBe(0);
    expect(written.outputs.bundle).toBe(file);
    expect(imageIds(written.outputs['image-ids'])).toEqual(imageIds(first.outputs['image-ids']));
    const sum = execFileSync('sha256sum', [file], { encoding: 'utf8' }).slice(0, 64);
    expect(written.log).toContain(`sha256:${sum}`);

    const same = await push({ ...onN1, archive: file });
    expect(same.nodes[0]?.images[0]).toMatchObject({ outcome: 'present', bytesSent: 0 });
    expect(same.nodes[0]?.images[0]?.imageId).toBe(first.nodes[0]?.images[0]?.imageId);

    build(lab, 'docker', 'carried:1', 'carried second');
    expect((await bundle('--images=carried:1', `--bundle=${file}`)).code).toBe(0);
    const second = await push({ ...onN1, archive: file });
    expect(second.nodes[0]?.images[0]?.outcome).toBe('sent');
    // The two layers with busybox are a megabyte each; the third has a line of text.
    expect(second.nodes[0]?.images[0]?.bytesSent).toBeLessThan(20_000);
    expect(second.code).toBe(0);
  });

  it('is read by skopeo, ctr and docker under each of its names, and tells what is in it', async () => {
    build(lab, 'docker', 'stock:1', 'stock');
    const file = join(directory, 'stock.tar');
    const alias = 'registry.example/team/stock:1';
    const written = await bundle('--images=stock:1', `--aliases=${alias}`, `--bundle=${file}`);
    const [[, id] = []] = Object.entries(imageIds(written.outputs['image-ids'])[alias] ?? {});
    for (const name of ['docker.io/library/stock:1', alias]) {
      const config = onRunner(lab, 'skopeo', ['inspect', '--config', '--raw', `oci-archive:${file}:${name}`]);
      expect(config).toContain('rootfs');
    }
    const layers = onRunner(lab, 'skopeo', ['inspect', '--raw', `oci-archive:${file}:${alias}`]);
    expect(layers.match(/tar\+zstd/g)).toHaveLength(3);
    await enter(n1, ['ctr', '-n', 'k8s.io', 'images', 'import', '-'], { input: readFileSync(file) });
    expect(await referencesOn(lab, 'n1')).toEqual(expect.arrayContaining(['docker.io/library/stock:1', alias]));
    onRunner(lab, 'docker', ['rmi', '--force', 'stock:1']);
    onRunner(lab, 'docker', ['load', '--input', file]);
    expect(onRunner(lab, 'docker', ['image', 'inspect', '--format', '{{.Id}}', alias])).toBe(id);
    expect(JSON.parse(entry(file, 'kube-sideload.json'))).toMatchObject({
      tool: { name: 'kube-sideload' },
      images: [
        { reference: 'docker.io/library/stock:1', aliases: [alias], platforms: { 'linux/amd64': { imageId: id } } },
      ],
    });
  });

  it('has every platform of its source, and a node gets its own', async () => {
    const reference = 'registry.example/wide:1';
    const one = await archive(directory, { reference, layers: [] });
    const layout = join(directory, 'wide');
    onRunner(lab, 'skopeo', ['copy', '--quiet', `oci-archive:${one.file}`, `oci:${layout}:here`]);
    const other = await archive(directory, { reference, architecture: 'arm64', layers: [] });
    onRunner(lab, 'skopeo', ['copy', '--quiet', `oci-archive:${other.file}`, `oci:${layout}:there`]);
    // One tag for both, as buildx writes the platforms of an image.
    const index = join(layout, 'index.json');
    writeFileSync(index, readFileSync(index, 'utf8').replaceAll(/"(here|there)"/g, '"1"'));
    const file = join(directory, 'wide.tar');
    const written = await bundle(`--archive=${layout}`, `--images=${reference}`, `--bundle=${file}`);
    expect(written.code).toBe(0);
    const ids = imageIds(written.outputs['image-ids'])[reference];
    expect(ids).toEqual({ 'linux/amd64': one.id, 'linux/arm64': other.id });
    const { manifests } = JSON.parse(entry(file, 'index.json')) as { manifests: readonly object[] };
    expect(manifests).toEqual([expect.objectContaining({ mediaType: 'application/vnd.oci.image.index.v1+json' })]);
    expect(onRunner(lab, 'tar', ['-tf', file])).not.toMatch(/^manifest\.json$/m);
    const pushed = await push({ ...onN1, archive: file });
    expect(pushed.nodes[0]?.images).toMatchObject([{ reference, imageId: one.id, outcome: 'sent' }]);
  });
});

describe('no bundle is left, and the old one is as it was', () => {
  it('when the disk is full', async () => {
    build(lab, 'docker', 'ample:1', 'ample');
    const small = join(directory, 'small');
    mkdirSync(small);
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=512k', 'tmpfs', small]);
    try {
      writeFileSync(join(small, 'ample.tar'), 'the old one');
      const outcome = await bundle('--images=ample:1', `--bundle=${join(small, 'ample.tar')}`);
      expect(outcome.log).toMatch(/no space left for \S+\/ample\.tar[\s\S]*\[DISK_FULL\]/);
      expect(outcome.outputs.bundle).toBeUndefined();
      expect(outcome.code).toBe(EXIT.failed);
      expect(readdirSync(small)).toEqual(['ample.tar']);
      expect(readFileSync(join(small, 'ample.tar'), 'utf8')).toBe('the old one');
    } finally {
      execFileSync('umount', [small]);
    }
  });

  it('when its place has become a directory meanwhile', async () => {
    build(lab, 'docker', 'misplaced:1', 'misplaced');
    const file = join(directory, 'misplaced', 'app.tar');
    mkdirSync(dirname(file));
    const outcome = await runCli(['bundle', '--images=misplaced:1', `--bundle=${file}`], {
      lab,
      onLine: line => {
        if (line.includes('Open the images')) mkdirSync(file);
      },
    });
    expect(outcome.log).toContain('[BUNDLE_FAILED]');
    expect(outcome.code).toBe(EXIT.failed);
    expect(readdirSync(dirname(file))).toEqual(['app.tar']);
  });

  it('when the job is cancelled', async () => {
    const reference = 'registry.example/long:1';
    const layers = [{ seed: 'long', fillBytes: 300_000_000 }];
    const { file: source } = await archive(directory, { reference, layers });
    const place = join(directory, 'cancelled');
    mkdirSync(place);
    const file = join(place, 'long.tar');
    writeFileSync(file, 'the old one');
    const outcome = await runCli(['bundle', `--archive=${source}`, `--bundle=${file}`], {
      lab,
      onLine: (line, pid) => {
        if (line.includes('Write the bundle')) process.kill(pid, 'SIGTERM');
      },
    });
    expect(outcome.code).toBe(EXIT.SIGTERM);
    expect(outcome.log).toContain('[CANCELLED]');
    expect(readdirSync(place)).toEqual(['long.tar']);
    expect(readFileSync(file, 'utf8')).toBe('the old one');
    expect(outcome.leftOnRunner).toEqual([]);
  });
});

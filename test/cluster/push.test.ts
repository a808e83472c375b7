import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { gzipSync, zstdCompressSync } from 'node:zlib';
import { afterAll, afterEach, describe, expect, inject, it } from 'vitest';
import { archive, build, onRunner } from '../engines.ts';
import { leftOnNode, push, reach, runAction, runPost } from '../shipped.ts';
import { criImageId, smokePods, withRole } from './kubernetes.ts';

const lab = inject('lab');
const directory = mkdtempSync(join(tmpdir(), 'kube-sideload-cluster-'));
afterAll(() => rmSync(directory, { recursive: true, force: true }));

afterEach(async () => {
  expect(smokePods(lab)).toEqual([]);
  expect(await leftOnNode(lab)).toEqual([]);
});

describe('push to a real cluster', () => {
  it.for(['docker', 'podman'] as const)(
    'takes an image from %s to Running on every node',
    async (engine, { expect }) => {
      const name = `from-${engine}:1`;
      build(lab, engine, name, engine);
      const outcome = await push({ ...reach(lab), images: name }, { lab });
      expect(outcome.log).toContain('Running');
      expect(outcome.code).toBe(0);
      const reference = `docker.io/library/${name}`;
      const built = onRunner(lab, engine, ['image', 'inspect', '--format', '{{.Id}}', name]).replace(
        /^(?!sha256:)/,
        'sha256:',
      );
      for (const node of lab.nodes) {
        expect(await criImageId(lab, node, reference)).toBe(built);
      }
      expect(outcome.nodes.map(({ images }) => images)).toMatchObject(
        lab.nodes.map(() => [
          {
            reference,
            imageId: built,
            outcome: 'sent',
            estimatedBytes: expect.any(Number),
            bytesSent: expect.any(Number),
            smoke: 'Running',
          },
        ]),
      );
      expect(outcome.leftOnRunner).toEqual([]);
    },
  );

  it('takes docker archives and OCI archives, plain, gzip and zstd', async () => {
    const oci = await archive(directory, {
      reference: 'docker.io/library/from-archive:1',
      layers: [{ fillBytes: 3_000_000 }],
    });
    build(lab, 'docker', 'from-archive:2', 'archive');
    const dockerArchive = join(directory, 'docker.tar');
    onRunner(lab, 'docker', ['save', '-o', dockerArchive, 'from-archive:2']);
    const gzip = join(directory, 'oci.tar.gz');
    writeFileSync(gzip, gzipSync(readFileSync(oci.file)));
    const zstd = join(directory, 'docker.tar.zst');
    writeFileSync(zstd, zstdCompressSync(readFileSync(dockerArchive)));
    const n1 = reach(lab, [lab.nodes[0]?.address ?? '']);
    for (const [file, name] of [
      [oci.file, 'from-archive:1'],
      [dockerArchive, 'from-archive:2'],
      [gzip, 'from-archive:1'],
      [zstd, 'from-archive:2'],
    ] as const) {
      const outcome = await push({ ...n1, archive: file, images: name }, { lab });
      expect(outcome.log).toContain('Running');
      expect(outcome.code).toBe(0);
    }
  });

  it('sends nothing to a node that holds the image, and asks the kubelet all the same', async () => {
    build(lab, 'docker', 'again:1', 'again');
    const first = await push({ ...reach(lab), images: 'again:1' }, { lab });
    const second = await push({ ...reach(lab), images: 'again:1' }, { lab });
    expect([first.outputs.changed, second.outputs.changed]).toEqual(['true', 'false']);
    expect(second.outputs['bytes-sent']).toBe('0');
    expect(second.nodes.flatMap(node => node.images.map(({ outcome, smoke }) => [outcome, smoke]))).toEqual(
      lab.nodes.map(() => ['present', 'Running']),
    );
    expect(second.code).toBe(0);
  });

  it('replaces the image under a tag that is already there', async () => {
    build(lab, 'docker', 'moving:latest', 'one');
    await push({ ...reach(lab), images: 'moving:latest' }, { lab });
    const before = onRunner(lab, 'docker', ['image', 'inspect', '--format', '{{.Id}}', 'moving:latest']);
    build(lab, 'docker', 'moving:latest', 'two');
    const after = onRunner(lab, 'docker', ['image', 'inspect', '--format', '{{.Id}}', 'moving:latest']);
    const outcome = await push({ ...reach(lab), images: 'moving:latest' }, { lab });
    expect(outcome.code).toBe(0);
    expect(after).not.toBe(before);
    for (const node of lab.nodes) {
      expect(await criImageId(lab, node, 'docker.io/library/moving:latest')).toBe(after);
    }
  });

  it('works as a user with sudo, with several images, and from an inventory with `images` alone', async () => {
    build(lab, 'docker', 'team/one:1', 'one');
    build(lab, 'podman', 'localhost/two:1', 'two');
    const inventory = join(directory, 'inventory.yaml');
    const [first, ...others] = lab.nodes;
    writeFileSync(
      inventory,
      [
        'nodes:',
        `  - deploy@${first?.address}`,
        ...others.map(node => `  - { host: ${node.address}, name: ${node.name}, user: root, port: 22 }`),
        'settings:',
        `  ssh-private-key-file: ${lab.privateKeyFile}`,
        `  ssh-known-hosts-file: ${lab.knownHostsFile}`,
        `  kubeconfig: ${lab.kubeconfig}`,
        '  connect-timeout: 10s',
      ].join('\n'),
    );
    const outcome = await push(
      { images: 'team/one:1,localhost/two:1' },
      { lab, env: { KUBE_SIDELOAD_INVENTORY: inventory } },
    );
    expect(outcome.log).toContain('as sudo');
    expect(outcome.outputs.images).toBe(JSON.stringify('docker.io/team/one:1\nlocalhost/two:1'));
    expect(outcome.nodes.flatMap(node => node.images.map(image => image.smoke))).toEqual(Array(6).fill('Running'));
    expect(outcome.code).toBe(0);
  });

  it('gives an image further names, sends it once for all of them, and starts a pod by each', async () => {
    build(lab, 'podman', 'localhost/named:1', 'named');
    const inputs = { ...reach(lab), images: 'localhost/named:1', aliases: 'named:1,registry.example/team/named:2' };
    const outcome = await push(inputs, { lab });
    expect(outcome.code).toBe(0);
    for (const node of outcome.nodes) {
      expect(node.images.map(image => [image.reference, image.smoke])).toEqual([
        ['localhost/named:1', 'Running'],
        ['docker.io/library/named:1', 'Running'],
        ['registry.example/team/named:2', 'Running'],
      ]);
      expect(node.images.filter(image => image.bytesSent > 0)).toHaveLength(1);
    }
  });

  it('passes an image that finishes with exit code 0', async () => {
    build(lab, 'docker', 'job:1', 'job', ['/bin/busybox', 'true']);
    const outcome = await push({ ...reach(lab), images: 'job:1' }, { lab });
    expect(outcome.nodes.map(node => node.images[0]?.smoke)).toEqual(lab.nodes.map(() => 'Completed with exit code 0'));
    expect(outcome.code).toBe(0);
  });

  it('runs as a GitHub action: outputs, summary, and a post step that finds nothing to do', async () => {
    build(lab, 'docker', 'action:1', 'action');
    const { 'ssh-private-key-file': keyFile = '', kubeconfig = '', ...rest } = reach(lab);
    const key = readFileSync(keyFile, 'utf8');
    const inputs = {
      ...rest,
      images: 'action:1',
      'ssh-private-key': key,
      kubeconfig: readFileSync(kubeconfig, 'utf8'),
    };
    const outcome = await runAction(inputs, { lab });
    expect(outcome.code).toBe(0);
    expect(outcome.outputs).toMatchObject({ images: 'docker.io/library/action:1', changed: 'true' });
    expect(outcome.summary).toContain('| n1 | linux/amd64 | containerd');
    expect(outcome.log).toMatch(/^::group::Start smoke pods$/m);
    // Each line of the key is masked, unless it is too short to be one; no line of it appears otherwise.
    for (const line of key.trim().split('\n')) {
      const masks = line.length < 8 ? [] : [`::add-mask::${line}`];
      expect(outcome.log.split('\n').filter(logged => logged.includes(line))).toEqual(masks);
    }
    expect(outcome.leftOnRunner).toEqual([]);
    const post = await runPost(outcome, inputs, { lab });
    expect(post.code).toBe(0);
    expect(post.log.replaceAll(/^::add-mask::.*\n/gm, '')).toBe('');
  });

  it('needs no more in the cluster than the rights on pods that SECURITY.md lists', async () => {
    build(lab, 'docker', 'roled:1', 'roled');
    await withRole(lab, 'create,get,list,watch,delete', async kubeconfig => {
      const outcome = await push({ ...reach(lab), images: 'roled:1', namespace: 'smoke', kubeconfig }, { lab });
      expect(outcome.log).toContain('Running');
      expect(outcome.code).toBe(0);
    });
  });

  it('says before anything is sent which right is missing', async () => {
    build(lab, 'docker', 'roled:2', 'roled twice');
    await withRole(lab, 'get,list,watch,delete', async kubeconfig => {
      const outcome = await push({ ...reach(lab), images: 'roled:2', namespace: 'smoke', kubeconfig }, { lab });
      expect(outcome.log).toContain('[CLUSTER_REFUSED]');
      expect(outcome.log).toContain('cannot create resource "pods"');
      expect(outcome.outputs['bytes-sent']).toBe('0');
      expect(outcome.code).toBe(1);
    });
  });
});

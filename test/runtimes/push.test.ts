import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, describe, expect, inject, it } from 'vitest';
import { criImageId, smokePods } from '../cluster/kubernetes.ts';
import { archive, build, onRunner } from '../engines.ts';
import { until } from '../lab/command.ts';
import { enter, setRate } from '../lab/index.ts';
import { crictl, leftOnNode, plan, push, reach, referencesOn } from '../shipped.ts';

const lab = inject('lab');
const all = lab.nodes.map(() => expect.anything());
const directory = mkdtempSync(join(tmpdir(), 'kube-sideload-runtimes-'));
afterAll(() => rmSync(directory, { recursive: true, force: true }));

afterEach(async () => {
  expect(smokePods(lab)).toEqual([]);
  expect(await leftOnNode(lab)).toEqual([]);
});

function imageId(name: string): string {
  return onRunner(lab, 'docker', ['image', 'inspect', '--format', '{{.Id}}', name]);
}

describe('one run for containerd 1.6, 1.7 and 2, CRI-O and Docker, and the emulated layouts of distributions, side by side', () => {
  it('gives every node the same image ID, and every kubelet starts it', async () => {
    build(lab, 'docker', 'every:1', 'every');
    const outcome = await push({ ...reach(lab), images: 'docker.io/library/every:1', source: 'docker' }, { lab });
    expect(outcome.log).toContain('Start smoke pods');
    expect(
      outcome.nodes.map(node => [node.node, node.error?.code, node.images[0]?.outcome, node.images[0]?.smoke]),
    ).toEqual(lab.nodes.map(node => [node.name, undefined, 'sent', 'Running']));
    expect(outcome.code).toBe(0);
    for (const node of lab.nodes) {
      expect(await criImageId(lab, node, 'docker.io/library/every:1'), node.kind).toBe(imageId('every:1'));
    }
    const names = new Set(outcome.nodes.map(node => node.runtime?.replace(/ v?(\d+\.\d+).*/, ' $1')));
    expect(names.size).toBeGreaterThanOrEqual(5);
  });

  it('sends nothing to nodes that have it, whichever runtime they have', async () => {
    build(lab, 'docker', 'every:1', 'every');
    const outcome = await push({ ...reach(lab), images: 'docker.io/library/every:1', source: 'docker' }, { lab });
    expect(outcome.nodes.map(node => node.images[0]?.outcome)).toEqual(all.map(() => 'present'));
    expect(outcome.outputs).toMatchObject({ changed: 'false', 'bytes-sent': '0' });
  });

  it('moves a tag, as a user with sudo, with several images at once', async () => {
    build(lab, 'docker', 'every:1', 'another');
    build(lab, 'docker', 'localhost/team/second:latest', 'second');
    const outcome = await push(
      {
        ...reach(lab),
        images: 'docker.io/library/every:1,localhost/team/second',
        source: 'docker',
        'ssh-user': 'deploy',
      },
      { lab },
    );
    expect(outcome.nodes.flatMap(node => node.images.map(image => [node.node, image.smoke]))).toEqual(
      lab.nodes.flatMap(node => [
        [node.name, 'Running'],
        [node.name, 'Running'],
      ]),
    );
    expect(outcome.code).toBe(0);
    for (const node of lab.nodes) {
      expect(await criImageId(lab, node, 'docker.io/library/every:1'), node.kind).toBe(imageId('every:1'));
      expect(await criImageId(lab, node, 'localhost/team/second:latest'), node.kind).toBe(
        imageId('localhost/team/second'),
      );
    }
  });

  it('takes gzip layers as they are, and layers that many images share', async () => {
    const image = await archive(directory, {
      reference: 'docker.io/library/gzipped:1',
      compression: 'gzip',
      layers: [{ files: { 'etc/one': '1' } }, { fillBytes: 2_000_000 }, { files: { 'etc/one': '2' } }],
    });
    const outcome = await push({ ...reach(lab), archive: image.file }, { lab });
    expect(outcome.nodes.map(node => node.images[0]?.smoke)).toEqual(all.map(() => 'Running'));
    for (const node of lab.nodes) {
      expect(await criImageId(lab, node, image.reference), node.kind).toBe(image.id);
    }
  });

  it('refuses an image for another architecture everywhere, before a byte is sent', async () => {
    const image = await archive(directory, { reference: 'docker.io/library/foreign:1', architecture: 'arm64' });
    const outcome = await push({ ...reach(lab), archive: image.file }, { lab });
    expect(outcome.nodes.map(node => node.error?.code)).toEqual(all.map(() => 'PLATFORM_MISMATCH'));
    expect(outcome.outputs['bytes-sent']).toBe('0');
    for (const node of lab.nodes) {
      expect(await referencesOn(lab, node.name), node.kind).not.toContain(image.reference);
    }
  });

  it('leaves nothing on any runtime when it is cancelled while sending', async () => {
    const image = await archive(directory, {
      reference: 'docker.io/library/cancelled:1',
      layers: [{ fillBytes: 30_000_000 }],
    });
    let cancelled = false;
    const outcome = await push(
      { ...reach(lab), archive: image.file },
      {
        lab,
        onLine: (line, pid) => {
          if (!cancelled && line.includes('imported and verified')) {
            cancelled = true;
            process.kill(pid, 'SIGTERM');
          }
        },
      },
    );
    expect(outcome.code).toBe(143);
    for (const node of lab.nodes) {
      expect(await referencesOn(lab, node.name), node.kind).not.toContain(image.reference);
    }
  });
});

describe('CRI-O', () => {
  const crio = lab.nodes.filter(node => node.runtime === 'crio');

  it.for(crio)('takes images by podman alone where skopeo is missing ($kind)', async (node, { expect }) => {
    build(lab, 'docker', 'podman-only:1', node.kind);
    await enter(node, ['mv', '/usr/bin/skopeo', '/usr/bin/skopeo.away']);
    try {
      const inputs = {
        ...reach(lab, [`${node.address}=${node.name}`]),
        images: 'docker.io/library/podman-only:1',
        source: 'docker',
      };
      const outcome = await push(inputs, { lab });
      expect(outcome.nodes[0]?.images[0]?.smoke).toBe('Running');
      expect(await criImageId(lab, node, 'docker.io/library/podman-only:1')).toBe(imageId('podman-only:1'));
    } finally {
      await enter(node, ['mv', '/usr/bin/skopeo.away', '/usr/bin/skopeo']);
    }
  });

  it.for(crio)('is sent nothing that /var/tmp has no room for ($kind)', async (node, { expect }) => {
    const image = await archive(directory, {
      reference: 'docker.io/library/roomy:1',
      layers: [{ fillBytes: 12_000_000 }],
    });
    const inputs = { ...reach(lab, [`${node.address}=${node.name}`]), archive: image.file };
    await enter(node, ['mount', '-t', 'tmpfs', '-o', 'size=2m', 'tmpfs', '/var/tmp']);
    try {
      const outcome = await push(inputs, { lab });
      expect(outcome.nodes[0]?.findings).toMatchObject([{ code: 'DISK_TIGHT', severity: 'warning' }]);
      expect(outcome.nodes[0]?.error).toMatchObject({
        code: 'DISK_FULL',
        message: expect.stringMatching(/on \/var\/tmp of the node/),
      });
      expect(outcome.outputs['bytes-sent']).toBe('0');
    } finally {
      await enter(node, ['umount', '/var/tmp']);
    }
  });

  it.for(crio)('is not used without crictl ($kind)', async (node, { expect }) => {
    build(lab, 'docker', 'unasked:1', 'unasked');
    const program = (await enter(node, ['which', 'crictl'])).stdout.trim();
    // Over it something that nobody can execute: to a shell that is as good as nothing.
    await enter(node, ['mount', '--bind', '/etc/hostname', program]);
    try {
      const inputs = {
        ...reach(lab, [`${node.address}=${node.name}`]),
        images: 'docker.io/library/unasked:1',
        source: 'docker',
      };
      const outcome = await push(inputs, { lab });
      expect(outcome.nodes[0]?.error).toMatchObject({
        code: 'RUNTIME_NOT_FOUND',
        message: 'the runtime is CRI-O, and the node has no crictl, which alone says what CRI-O holds',
        hint: expect.stringContaining('Install crictl'),
      });
    } finally {
      await enter(node, ['umount', program]);
    }
  });

  it.for(crio)('takes away a stage name without the image that others use ($kind)', async (node, { expect }) => {
    build(lab, 'docker', 'shared:1', 'shared');
    build(lab, 'docker', 'shared:2', 'shared');
    for (const images of ['docker.io/library/shared:1', 'docker.io/library/shared:2']) {
      const outcome = await push(
        { ...reach(lab, [`${node.address}=${node.name}`]), images, source: 'docker' },
        { lab },
      );
      expect(outcome.code).toBe(0);
    }
    await crictl(lab, node, ['inspecti', 'docker.io/library/shared:1']);
    await crictl(lab, node, ['inspecti', 'docker.io/library/shared:2']);
  });
});

describe('a kubelet that is part of another process', () => {
  const kinds = {
    'k3s-layout': ['/etc/rancher/k3s/config.yaml', 'well-known socket'],
    'microk8s-layout': ['/var/snap/microk8s/current/args/kubelet', 'kubelet settings of the distribution'],
  } as const;

  it.for(lab.nodes.filter(({ kind }) => kind in kinds))('has settings that count ($kind)', async (node, { expect }) => {
    build(lab, 'docker', 'embedded:1', 'embedded');
    const [file, origin] = kinds[node.kind as keyof typeof kinds];
    await enter(node, ['sed', '-i.before', 's/high-threshold=[0-9]*/high-threshold=1/', file]);
    try {
      const inputs = {
        ...reach(lab, [`${node.address}=${node.name}`]),
        images: 'docker.io/library/embedded:1',
        source: 'docker',
      };
      const outcome = await plan(inputs, { lab });
      expect(outcome.log).toContain(
        `(from: ${origin}), laid out as ${node.kind === 'k3s-layout' ? 'k3s' : 'MicroK8s'}`,
      );
      expect(outcome.nodes[0]?.findings).toMatchObject([
        { code: 'IMAGE_GC_LIKELY', message: expect.stringContaining('from 1 % on') },
      ]);
    } finally {
      await enter(node, ['mv', `${file}.before`, file]);
    }
  });
});

describe('CRI-O, for a user who may do nothing by sudo but load images by podman and ask for them (rhcos-layout)', () => {
  const node = lab.nodes.find(({ kind }) => kind === 'rhcos-layout') ?? expect.unreachable();
  const inputs = { ...reach(lab, [`${node.address}=${node.name}`]), source: 'docker', 'ssh-user': 'loader' };

  it('brings an image, moves its tag, gives it two names, and sends nothing twice', async () => {
    for (const seed of ['first', 'second']) {
      build(lab, 'docker', 'loaded:1', seed);
      const outcome = await push(
        { ...inputs, images: 'docker.io/library/loaded:1', aliases: 'localhost/loaded:1' },
        { lab },
      );
      expect(outcome.log).toContain('as a user who may load images by podman');
      expect(outcome.nodes[0]?.images.map(({ outcome, smoke }) => [outcome, smoke])).toEqual([
        ['sent', 'Running'],
        ['sent', 'Running'],
      ]);
      expect(outcome.code).toBe(0);
      for (const name of ['docker.io/library/loaded:1', 'localhost/loaded:1']) {
        expect(await criImageId(lab, node, name)).toBe(imageId('loaded:1'));
      }
    }
    const again = await push({ ...inputs, images: 'docker.io/library/loaded:1' }, { lab });
    expect(again.outputs).toMatchObject({ changed: 'false', 'bytes-sent': '0' });
  });

  it('believes root’s podman, not its own exit code', async () => {
    build(lab, 'docker', 'loaded:2', 'two');
    // As if somebody moved the tag between the load and the question.
    const script = `#!/bin/sh\n[ "$1" != load ] || { /usr/libexec/podman.real "$@" && [ -d "$4" ] || exec /usr/libexec/podman.real tag registry.k8s.io/pause:3.10 docker.io/library/loaded:2; exit; }\nexec /usr/libexec/podman.real "$@"\n`;
    await enter(
      node,
      [
        'sh',
        '-c',
        'mount -o remount,bind,rw /usr && mkdir -p /usr/libexec && mv /usr/bin/podman /usr/libexec/podman.real && cat >/usr/bin/podman && chmod 755 /usr/bin/podman',
      ],
      { input: script },
    );
    try {
      const outcome = await push({ ...inputs, images: 'docker.io/library/loaded:2' }, { lab });
      expect(outcome.nodes[0]?.error).toMatchObject({
        code: 'VERIFY_FAILED',
        message: expect.stringMatching(/podman reports image ID sha256:\w+, CI built/),
      });
    } finally {
      await enter(node, ['sh', '-c', 'mv /usr/libexec/podman.real /usr/bin/podman && mount -o remount,bind,ro /usr']);
    }
  });

  it('leaves nothing when it is cancelled while it sends', async () => {
    const image = await archive(directory, {
      reference: 'docker.io/library/loaded:3',
      layers: [{ fillBytes: 30_000_000, seed: 'loaded' }],
    });
    await setRate(node, '16mbit');
    try {
      let pid = 0;
      const pushing = push(
        { ...inputs, source: 'auto', archive: image.file },
        {
          lab,
          onLine: (_line, of) => {
            pid = of;
          },
        },
      );
      await until('the archive to arrive', 60_000, async () => {
        const { code } = await enter(node, ['sh', '-c', 'ls -d /var/tmp/kube-sideload.*/oci/blobs']);
        return code === 0 && pid > 0;
      });
      process.kill(pid, 'SIGTERM');
      const outcome = await pushing;
      expect(outcome.code).toBe(143);
      expect(outcome.nodes[0]?.images[0]?.outcome).toBe('none');
      expect(await referencesOn(lab, node.name)).not.toContain(image.reference);
    } finally {
      await setRate(node, undefined);
    }
  });

  it('is nobody on a node with containerd', async () => {
    const other = lab.nodes.find(({ kind }) => kind === 'containerd') ?? expect.unreachable();
    const outcome = await push(
      {
        ...inputs,
        nodes: `${other.address}=${other.name}`,
        'ssh-user': 'nosudo',
        images: 'docker.io/library/loaded:1',
      },
      { lab },
    );
    expect(outcome.nodes[0]?.error?.code).toBe('SUDO_REFUSED');
  });
});

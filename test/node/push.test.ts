import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, describe, expect, inject, it } from 'vitest';
import { archive, build, onRunner } from '../engines.ts';
import { enter } from '../lab/index.ts';
import { leftOnNode, nodeNamed, push, reach } from '../shipped.ts';

const lab = inject('lab');
const n1 = nodeNamed(lab, 'n1');
const directory = mkdtempSync(join(tmpdir(), 'kube-sideload-node-'));
afterAll(() => rmSync(directory, { recursive: true, force: true }));

afterEach(async () => {
  expect(await leftOnNode(lab)).toEqual([]);
});

describe('push to real nodes, without a kubelet to ask', () => {
  it('finds the runtime by its well-known socket, imports, verifies, and says that no kubelet was asked', async () => {
    build(lab, 'docker', 'plain:1', 'plain');
    const outcome = await push({ ...reach(lab), images: 'plain:1' }, { lab });
    expect(outcome.code).toBe(0);
    expect(outcome.log).toContain('(from: well-known socket)');
    expect(outcome.log).toContain('No kubelet has been asked');
    expect(outcome.nodes.map(node => node.images[0]?.outcome)).toEqual(['sent', 'sent', 'sent']);
  });

  it.each(['docker', 'podman'] as const)('reads layers where %s has them, as root on its machine', async engine => {
    build(lab, engine, 'in-place:1', `in place ${engine}`);
    const outcome = await push(
      { ...reach(lab, [n1.address]), images: 'in-place:1', source: engine },
      { lab, node: join(lab.bin, 'runner-node') },
    );
    expect(outcome.log).toMatch(/layers of in-place:1 are read where (docker engine|podman) has them, in \/var\/lib/);
    expect(outcome.code).toBe(0);
    expect(outcome.nodes[0]?.images[0]?.outcome).toBe('sent');
    expect(outcome.leftOnRunner).toEqual([]);
  });

  it('takes the socket that it is told', async () => {
    build(lab, 'docker', 'plain:1', 'plain');
    const outcome = await push(
      { ...reach(lab), images: 'plain:1', 'cri-socket': 'unix:///run/containerd/containerd.sock' },
      { lab },
    );
    expect(outcome.log).toContain('(from: input)');
    expect(outcome.code).toBe(0);
  });

  it('asks ctr where the node has no crictl', async () => {
    build(lab, 'docker', 'nocrictl:1', 'nocrictl');
    const path = (await enter(n1, ['sh', '-c', 'command -v crictl'])).stdout.trim();
    await enter(n1, ['mv', path, `${path}.away`]);
    try {
      const outcome = await push({ ...reach(lab, [n1.address]), images: 'nocrictl:1' }, { lab });
      expect(outcome.code).toBe(0);
      expect(outcome.nodes[0]?.images[0]?.outcome).toBe('sent');
    } finally {
      await enter(n1, ['mv', `${path}.away`, path]);
    }
  });

  it('repairs an image whose snapshots are gone', async () => {
    build(lab, 'docker', 'packed:1', 'packed');
    const file = join(directory, 'packed.tar');
    onRunner(lab, 'docker', ['save', '-o', file, 'packed:1']);
    // Imported without unpacking: the reference is right, and no container could start from it.
    await enter(n1, ['ctr', '-n', 'k8s.io', 'images', 'import', '--local', '--no-unpack', '-'], {
      input: readFileSync(file),
    });
    const outcome = await push({ ...reach(lab, [n1.address]), images: 'packed:1' }, { lab });
    expect(outcome.log).toContain('needs docker.io/library/packed:1');
    expect(outcome.code).toBe(0);
  });

  it('removes what a run left that died long ago, and nothing that a run of today needs', async () => {
    build(lab, 'docker', 'heir:1', 'heir');
    const old = 'kube-sideload.invalid/s00000abcdef:0'; // of 2023
    const current = `kube-sideload.invalid/${Math.floor(Date.now() / 1000).toString(36)}abcdef:0`;
    const tag = (reference: string) =>
      enter(n1, ['ctr', '-n', 'k8s.io', 'images', 'tag', 'docker.io/library/heir:1', reference]);
    await push({ ...reach(lab, [n1.address]), images: 'heir:1' }, { lab });
    await tag(old);
    await tag(current);
    build(lab, 'docker', 'heir:1', 'another');
    const outcome = await push({ ...reach(lab, [n1.address]), images: 'heir:1' }, { lab });
    expect(outcome.code).toBe(0);
    expect(await leftOnNode(lab)).toEqual([`n1: ${current}`]);
    await enter(n1, ['ctr', '-n', 'k8s.io', 'images', 'rm', current]);
  });

  it('handles an image of many layers and one without any file', async () => {
    const layers = Array.from({ length: 60 }, (_, index) => ({ files: { [`file-${index}`]: `${index}` } }));
    const many = await archive(directory, { reference: 'docker.io/library/many:1', layers });
    const outcome = await push({ ...reach(lab), archive: many.file }, { lab });
    expect(outcome.outputs.images).toBe('docker.io/library/many:1');
    expect(outcome.code).toBe(0);
  });
});

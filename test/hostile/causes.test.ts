/** Nodes and people that are not what the job takes them for: what it then says was the cause. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, describe, expect, inject, it } from 'vitest';
import { smokePods } from '../cluster/kubernetes.ts';
import { archive } from '../engines.ts';
import { enterMust } from '../lab/index.ts';
import { leftOnNode, nodeNamed, push, reach } from '../shipped.ts';

const lab = inject('lab');
const docker = nodeNamed(lab, 'n3');
const directory = mkdtempSync(join(tmpdir(), 'kube-sideload-causes-'));
afterAll(() => rmSync(directory, { recursive: true, force: true }));

afterEach(async () => {
  expect(smokePods(lab)).toEqual([]);
  expect(await leftOnNode(lab)).toEqual([]);
});

describe('a runtime that has a reason', () => {
  it('is told to whom it does not let in, with the socket’s owner, before anything is sent: containerd, CRI-O, Docker', async () => {
    const { file } = await archive(directory, { reference: 'docker.io/library/refused:1' });
    const outcome = await push({ ...reach(lab), archive: file, 'ssh-user': 'nosudo', sudo: 'none' }, { lab });
    expect(outcome.nodes.map(({ error }) => error?.code)).toEqual(lab.nodes.map(() => 'RUNTIME_REFUSED'));
    for (const { error } of outcome.nodes) {
      expect(error?.message).toMatch(
        /does not let nosudo in: dial unix \S+: connect: permission denied\n(?:.*\n)?srw-rw---- 1 root (root|docker) /,
      );
      expect(error?.hint).not.toMatch(/journalctl|is safe/);
    }
    expect(outcome.outputs['bytes-sent']).toBe('0');
  });

  it('that is the socket’s directory is told, too', async () => {
    const { file } = await archive(directory, { reference: 'docker.io/library/hidden:1' });
    const [containerd] = lab.nodes;
    await enterMust(containerd ?? expect.unreachable(), ['chmod', '700', '/run/containerd']);
    try {
      const node = reach(lab, [`${containerd?.address}=${containerd?.name}`]);
      const outcome = await push({ ...node, archive: file, 'ssh-user': 'nosudo', sudo: 'none' }, { lab });
      expect(outcome.nodes[0]?.error).toMatchObject({
        code: 'RUNTIME_REFUSED',
        message: 'nosudo may not look for /run/containerd/containerd.sock: /run/containerd is closed to it',
      });
    } finally {
      await enterMust(containerd ?? expect.unreachable(), ['chmod', '711', '/run/containerd']);
    }
  });

  it('and answers with an error is not taken for silent: an image without a date on Docker', async () => {
    const undated = await archive(directory, {
      reference: 'docker.io/library/undated:1',
      isDated: false,
      dockerManifest: true,
    });
    const node = reach(lab, [`${docker.address}=${docker.name}`]);
    const outcome = await push({ ...node, archive: undated.file }, { lab });
    expect(outcome.nodes[0]?.error).toMatchObject({
      code: 'RUNTIME_ERROR',
      message: expect.stringContaining('parsing time'),
      hint: expect.stringContaining('`created`'),
    });
    expect(outcome.log).not.toContain('does not answer');
  });
});

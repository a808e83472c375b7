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

describe('an image that the kubelet does not find, although this run has seen it', () => {
  const [n1, n2] = [nodeNamed(lab, 'n1'), nodeNamed(lab, 'n2')];
  const REFERENCE = 'docker.io/library/seen:1';

  it('is on another machine: told before anything moves, with the node that the machine is', async () => {
    const { file } = await archive(directory, { reference: REFERENCE });
    const outcome = await push({ ...reach(lab, [`${n1.address}=${n2.name}`]), archive: file }, { lab });
    const { error } = outcome.nodes[0] ?? expect.unreachable();
    expect(error?.code).toBe('NODE_OTHER_MACHINE');
    expect(error?.message).toMatch(
      new RegExp(
        `^${n1.address} is another machine than the node ${n2.name}: it has [^;]*${n1.address}, the node ${n2.address}; its machine ID is [0-9a-f]{32}, `,
      ),
    );
    expect(error?.hint).toContain(
      `The machine at ${n1.address} is the node ${n1.name}: write \`${n1.address}=${n1.name}\``,
    );
    expect(outcome.outputs['bytes-sent']).toBe('0');
  });

  it('is on another machine, which nothing told beforehand', async () => {
    const { file } = await archive(directory, { reference: REFERENCE });
    // As where the disk of one node was copied for the other: the kubelet's word for it stays what it was.
    const own = await enterMust(n1, ['cat', '/etc/machine-id']);
    const copied = await enterMust(n2, ['cat', '/etc/machine-id']);
    const write = (id: string) => enterMust(n1, ['sh', '-c', `printf '%s' "$1" >/etc/machine-id`, 'sh', id]);
    await write(copied);
    try {
      const outcome = await push({ ...reach(lab, [`${n1.address}=${n2.name}`]), archive: file }, { lab });
      const { error } = outcome.nodes[0] ?? expect.unreachable();
      expect(error?.code).toBe('SMOKE_IMAGE_NEVER_PULL');
      expect(error?.message).toMatch(
        new RegExp(
          `this run saw the image at ${n1.address} at \\S+Z, and that is another machine than the node ${n2.name}: it has [^;]*${n1.address}, the node ${n2.address}`,
        ),
      );
      expect(error?.hint).toContain('kubectl get nodes -o wide');
    } finally {
      await write(own);
    }
  });

  it('was removed since: told with the time at which it was there', async () => {
    const { file } = await archive(directory, { reference: REFERENCE });
    let removed: Promise<unknown> | undefined;
    const outcome = await push(
      { ...reach(lab, [`${n1.address}=${n1.name}`]), archive: file, atomic: 'false' },
      {
        lab,
        onLine: line => {
          if (line.startsWith(`n1: ${REFERENCE} is sha256:`)) {
            removed = enterMust(n1, ['ctr', '-n', 'k8s.io', 'images', 'rm', '--sync', REFERENCE]);
          }
        },
      },
    );
    await removed;
    const { error } = outcome.nodes[0] ?? expect.unreachable();
    expect(error?.code).toBe('SMOKE_IMAGE_NEVER_PULL');
    expect(error?.message).toMatch(
      new RegExp(
        `this run saw the image at ${n1.address} at \\d{4}-\\S+Z, and it is gone since: somebody or something has removed it`,
      ),
    );
    expect(error?.hint).toContain('crictl rmi --prune');
  });
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

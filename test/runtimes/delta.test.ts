import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, describe, expect, inject, it } from 'vitest';
import { criImageId, smokePods } from '../cluster/kubernetes.ts';
import { archive } from '../engines.ts';
import { enter, type LabNode } from '../lab/index.ts';
import { leftOnNode, plan, push, reach } from '../shipped.ts';

const lab = inject('lab');
const directory = mkdtempSync(join(tmpdir(), 'kube-sideload-delta-'));
afterAll(() => rmSync(directory, { recursive: true, force: true }));

afterEach(async () => {
  expect(smokePods(lab)).toEqual([]);
  expect(await leftOnNode(lab)).toEqual([]);
});

const BASE_BYTES = 4_000_000;
const SMALL_BYTES = 64 * 1024;

/** An image of a big layer that stays and two small ones, of which the upper one is what the release says. */
function release(name: string, version: string, base = name) {
  return archive(directory, {
    reference: `docker.io/library/${name}:${version}`,
    layers: [
      { fillBytes: BASE_BYTES, seed: base },
      { files: { 'etc/kept': name } },
      { files: { 'etc/release': version } },
    ],
  });
}

describe('a new release', () => {
  it('costs every node the changed layer and no other, on any runtime, and runs', async () => {
    const first = await release('delta', '1');
    const second = await release('delta', '2');
    const whole = await push({ ...reach(lab), archive: first.file }, { lab });
    expect(whole.nodes.map(node => [node.node, node.images[0]?.smoke])).toEqual(
      lab.nodes.map(node => [node.name, 'Running']),
    );
    const planned = await plan({ ...reach(lab), archive: second.file }, { lab });
    const outcome = await push({ ...reach(lab), archive: second.file }, { lab });
    expect(outcome.nodes.map(node => [node.node, node.error?.message, node.images[0]?.smoke])).toEqual(
      lab.nodes.map(node => [node.name, undefined, 'Running']),
    );
    for (const [index, node] of lab.nodes.entries()) {
      expect(whole.nodes[index]?.bytesSent, node.kind).toBeGreaterThan(BASE_BYTES / 2);
      expect(outcome.nodes[index]?.bytesSent, node.kind).toBeLessThan(SMALL_BYTES);
      expect(planned.nodes[index]?.images[0]?.estimatedBytes, node.kind).toBeLessThan(SMALL_BYTES);
      expect(await criImageId(lab, node, second.reference), node.kind).toBe(second.id);
    }
  });

  it('can be sent whole, when the user wants it so', async () => {
    const third = await release('delta', '3');
    const outcome = await push({ ...reach(lab), archive: third.file, delta: 'false' }, { lab });
    expect(outcome.code).toBe(0);
    for (const node of outcome.nodes) {
      expect(node.bytesSent, node.node).toBeGreaterThan(BASE_BYTES / 2);
    }
  });

  it('under another name alone costs no layer at all', async () => {
    const first = await release('delta', '1');
    const outcome = await push(
      {
        ...reach(lab),
        archive: first.file,
        images: 'docker.io/library/delta:1',
        aliases: 'docker.io/library/renamed:1',
      },
      { lab },
    );
    expect(outcome.code).toBe(0);
    for (const node of outcome.nodes) {
      expect(node.images.map(image => image.smoke)).toEqual(['Running', 'Running']);
      expect(node.bytesSent, node.node).toBeLessThan(SMALL_BYTES);
    }
  });
});

type Ids = readonly string[];

/** A program of the node that tells of a layer which is not there, and is the real one otherwise. */
function lie(node: LabNode, program: string, when: string, line: string): Promise<unknown> {
  const script = `#!/bin/sh\nout=$(case "$*" in ${when}) echo '${line}' ;; esac)\n[ -z "$out" ] || printf '%s\\n' "$out"\nexec /usr/bin/${program} "$@"\n`;
  return enter(node, [
    'sh',
    '-c',
    `printf '%s' "$0" >/usr/local/bin/${program}; chmod 755 /usr/local/bin/${program}`,
    script,
  ]);
}

describe('a node that has less than it says', () => {
  const cases = [
    ['containerd', 'ctr', '*content\\ ls*', ([, id]: Ids) => `${id} 1B 1s containerd.io/uncompressed=${id}`],
    ['containerd-1.7', 'ctr', '*content\\ ls*', ([, id]: Ids) => `${id} 1B 1s containerd.io/uncompressed=${id}`],
    ['containerd-1.6', 'ctr', '*content\\ ls*', ([, id]: Ids) => `${id} 1B 1s containerd.io/uncompressed=${id}`],
    ['crio', 'cat', '*layers.json', ([, id]: Ids) => `{"diff-digest":"${id}","diff-size":9}`],
    ['docker', 'docker', '*RootFS.Layers*', (ids: Ids) => JSON.stringify(ids.slice(0, 2))],
  ] as const;

  it.for(cases)(
    'gets the whole image after all, once, and the log says so (%s)',
    async ([kind, program, when, line], { expect }) => {
      const node = lab.nodes.find(one => one.kind === kind) ?? expect.unreachable();
      const image = await release(`liar-${kind}`, '1');
      const diffIds = image.layers.map(({ diffId }) => diffId);
      const stray = `/var/lib/containerd/io.containerd.content.v1.content/blobs/sha256/${diffIds[1]?.slice(7)}`;
      await lie(node, program, when, line(diffIds));
      if (program === 'ctr') await enter(node, ['sh', '-c', `echo stray >${stray}`]);
      try {
        const outcome = await push({ ...reach(lab, [`${node.address}=${node.name}`]), archive: image.file }, { lab });
        expect(outcome.log).toMatch(/has \d of its 4 layers[\s\S]*were not enough[\s\S]*is sent whole/);
        expect(outcome.nodes[0]).toMatchObject({ images: [{ outcome: 'sent', smoke: 'Running' }] });
        expect(outcome.nodes[0]?.bytesSent).toBeGreaterThan(BASE_BYTES / 2);
        expect(await criImageId(lab, node, image.reference)).toBe(image.id);
      } finally {
        await enter(node, ['rm', '-f', `/usr/local/bin/${program}`, stray]);
      }
    },
  );
});

import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, inject, it } from 'vitest';
import { archive } from '../engines.ts';
import { enter, type LabNode } from '../lab/index.ts';
import { crictl, prune, push, reach, referencesOn } from '../shipped.ts';

const lab = inject('lab');
const directory = mkdtempSync(join(tmpdir(), 'kube-sideload-retention-'));
afterAll(() => rmSync(directory, { recursive: true, force: true }));

const nodes = ['containerd', 'crio', 'docker'].map(kind => {
  const node = lab.nodes.find(one => one.kind === kind);
  if (node === undefined) throw new Error(`the lab has no ${kind}`);
  return node;
});
const there = {
  ...reach(
    lab,
    nodes.map(node => `${node.address}=${node.name}`),
  ),
  smoke: 'none',
};

const REPOSITORY = 'docker.io/library/keep';
const RECORD = '/var/lib/kube-sideload/images';

/** Another name for an image that the node has, given by somebody else. */
async function tag(node: LabNode, from: string, to: string): Promise<void> {
  const words = {
    containerd: ['ctr', '--namespace', 'k8s.io', 'images', 'tag', '--force'],
    crio: ['podman', 'tag'],
    docker: ['docker', 'tag'],
  }[node.runtime];
  await enter(node, [...words, from, to]);
}

/** A container that has been made and never started: the least that counts as use. */
async function use(node: LabNode, reference: string): Promise<() => Promise<void>> {
  const words = {
    containerd: ['ctr', '--namespace', 'k8s.io', 'containers', 'create', reference, 'user-of-keep'],
    crio: ['podman', 'create', '--name', 'user-of-keep', reference],
    docker: ['docker', 'create', '--name', 'user-of-keep', reference],
  }[node.runtime];
  const rm = {
    containerd: ['ctr', '--namespace', 'k8s.io', 'containers', 'rm', 'user-of-keep'],
    crio: ['podman', 'rm', 'user-of-keep'],
    docker: ['docker', 'rm', 'user-of-keep'],
  }[node.runtime];
  const { code, stderr } = await enter(node, words);
  expect(`${code} ${stderr}`).toMatch(/^0 /);
  return async () => void (await enter(node, rm));
}

async function tagsOn(node: LabNode): Promise<readonly string[]> {
  const all = await referencesOn(lab, node.name);
  return all
    .filter(name => name.startsWith(`${REPOSITORY}:`))
    .map(name => name.slice(REPOSITORY.length + 1))
    .toSorted();
}

/** What the record has of these tests: others have put images on the node, too. */
async function recordOf(node: LabNode): Promise<readonly string[]> {
  const { stdout } = await enter(node, ['cat', RECORD]);
  return stdout.split('\n').flatMap(line => (line.startsWith(`${REPOSITORY}:`) ? (line.split(' ')[0] ?? []) : []));
}

const releases = new Map<string, string>();

beforeAll(async () => {
  // Of what other tests have pushed to these nodes.
  for (const node of nodes) await enter(node, ['rm', '-f', RECORD]);
  for (const version of ['1', '2', '3', '4', '5']) {
    const { file } = await archive(directory, {
      reference: `${REPOSITORY}:${version}`,
      layers: [{ files: { 'etc/release': `keep ${version}` } }],
    });
    releases.set(version, file);
    if (version !== '5') {
      const outcome = await push({ ...there, archive: file }, { lab });
      expect(outcome.code, outcome.log).toBe(0);
    }
  }
});

describe('old releases', () => {
  it('are recorded on the node as they come, for everybody to read', async () => {
    for (const node of nodes) {
      expect(await recordOf(node), node.kind).toEqual(['1', '2', '3', '4'].map(version => `${REPOSITORY}:${version}`));
      const { stdout } = await enter(node, ['stat', '-c', '%U %a', RECORD]);
      expect(stdout.trim(), node.kind).toBe('root 644');
    }
  });

  it('are named by a dry run, and stay', async () => {
    const before = await Promise.all(nodes.map(tagsOn));
    const outcome = await prune({ ...there, keep: '2', 'dry-run': 'true', images: 'keep' }, { lab });
    expect(outcome.code, outcome.log).toBe(0);
    for (const node of outcome.nodes) {
      expect(node.retention?.map(({ fate }) => fate)).toEqual(['removable', 'removable', 'kept', 'kept']);
    }
    expect(outcome.outputs.changed).toBe('false');
    expect(outcome.log).toContain('would be removed');
    expect(await Promise.all(nodes.map(tagsOn))).toEqual(before);
    for (const node of nodes) expect(await recordOf(node)).toHaveLength(4);
  });

  it('go, and not one in use, one of somebody else, one that somebody has changed, or the newest', async () => {
    const stopUses: (() => Promise<void>)[] = [];
    for (const node of nodes) {
      stopUses.push(await use(node, `${REPOSITORY}:1`));
      // Somebody else's name for release 4, and release 3's name for another image.
      await tag(node, `${REPOSITORY}:4`, `${REPOSITORY}:foreign`);
      await tag(node, `${REPOSITORY}:4`, `${REPOSITORY}:3`);
    }
    try {
      const outcome = await push({ ...there, archive: releases.get('5') ?? '', keep: '1' }, { lab });
      expect(outcome.code, outcome.log).toBe(0);
      for (const [index, node] of nodes.entries()) {
        expect(
          outcome.nodes[index]?.retention?.map(({ reference, fate }) => [reference.split(':')[1], fate]),
          node.kind,
        ).toEqual([
          ['1', 'in-use'],
          ['2', 'removed'],
          ['3', 'changed'],
          ['4', 'removed'],
          ['5', 'kept'],
        ]);
        expect(await tagsOn(node), node.kind).toEqual(['1', '3', '5', 'foreign']);
        expect(await recordOf(node), node.kind).toEqual([`${REPOSITORY}:1`, `${REPOSITORY}:5`]);
      }
      expect(outcome.log).toContain('a container was made from it');
    } finally {
      for (const stop of stopUses) await stop();
    }
  });

  it('leave nothing behind in the runtime once they are gone, and what is not ours is as it was', async () => {
    const idsBefore = await Promise.all(nodes.map(imageIds));
    const outcome = await prune({ ...there, keep: '1' }, { lab });
    expect(outcome.code, outcome.log).toBe(0);
    expect(outcome.outputs.changed).toBe('true');
    for (const [index, node] of nodes.entries()) {
      expect(await tagsOn(node), node.kind).toEqual(['3', '5', 'foreign']);
      // Release 1 had no other name: its image is gone, and no other one.
      expect((await imageIds(node)).length, node.kind).toBe((idsBefore[index]?.length ?? 0) - 1);
    }
  });

  it('stay when the containers cannot be asked for', async () => {
    const first = await push({ ...there, archive: releases.get('4') ?? '' }, { lab });
    expect(first.code, first.log).toBe(0);
    await push({ ...there, archive: releases.get('2') ?? '' }, { lab });
    const before = await Promise.all(nodes.map(tagsOn));
    for (const node of nodes) {
      // Before the real one in the PATH.
      const script = '#!/bin/sh\\ncase "$*" in *" ps "*) exit 1 ;; esac\\nexec /usr/local/bin/crictl "$@"\\n';
      const swap = `printf '${script}' >/usr/local/sbin/crictl && chmod 755 /usr/local/sbin/crictl`;
      expect((await enter(node, ['sh', '-c', swap])).code).toBe(0);
    }
    try {
      const outcome = await prune({ ...there, keep: '1' }, { lab });
      expect(outcome.code, outcome.log).toBe(1);
      expect(outcome.nodes.map(node => node.error?.code)).toEqual(nodes.map(() => 'REMOTE_COMMAND_FAILED'));
      expect(await Promise.all(nodes.map(tagsOn))).toEqual(before);
    } finally {
      for (const node of nodes) await enter(node, ['rm', '-f', '/usr/local/sbin/crictl']);
    }
  });
});

async function imageIds(node: LabNode): Promise<readonly string[]> {
  const { images } = JSON.parse(await crictl(lab, node, ['images', '-o', 'json'])) as { images: { id: string }[] };
  return images.map(({ id }) => id);
}

import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, inject, it } from 'vitest';
import { archive } from '../engines.ts';
import { enter, type LabNode } from '../lab/index.ts';
import { check, push, reach } from '../shipped.ts';

const lab = inject('lab');
const directory = mkdtempSync(join(tmpdir(), 'kube-sideload-check-'));
afterAll(() => rmSync(directory, { recursive: true, force: true }));

const nodes = ['containerd', 'crio', 'docker'].map(kind => {
  const node = lab.nodes.find(one => one.kind === kind);
  if (node === undefined) throw new Error(`the lab has no ${kind}`);
  return node;
});
const reachable = (some: readonly LabNode[]) => ({
  ...reach(
    lab,
    some.map(node => `${node.address}=${node.name}`),
  ),
  smoke: 'none',
});
const there = reachable(nodes);
const expected = join(directory, 'report.json');
const A = 'docker.io/library/drift-a:1';
const B = 'docker.io/library/drift-b:1';
let file = '';

async function remove(node: LabNode, reference: string): Promise<void> {
  const words = {
    containerd: ['ctr', '--namespace', 'k8s.io', 'images', 'rm', reference],
    crio: ['podman', 'image', 'rm', reference],
    docker: ['docker', 'image', 'rm', reference],
  }[node.runtime];
  expect((await enter(node, words)).code).toBe(0);
}

async function move(node: LabNode, from: string, to: string): Promise<void> {
  const words = {
    containerd: ['ctr', '--namespace', 'k8s.io', 'images', 'tag', '--force', from, to],
    crio: ['podman', 'tag', from, to],
    docker: ['docker', 'tag', from, to],
  }[node.runtime];
  expect((await enter(node, words)).code).toBe(0);
}

beforeAll(async () => {
  const images = await Promise.all(
    [A, B].map(reference => archive(directory, { reference, layers: [{ files: { 'etc/name': reference } }] })),
  );
  file = images[0]?.file ?? '';
  const pushes = images.map(
    ({ file: one }, index) =>
      ({ ...there, archive: one, 'report-json': index === 0 ? expected : `${expected}.b` }) as const,
  );
  for (const inputs of pushes) {
    const outcome = await push(inputs, { lab });
    expect(outcome.code, outcome.log).toBe(0);
  }
});

describe('drift', () => {
  it('is none right after the push, by its record and by the image', async () => {
    const byRecord = await check({ ...there, expected: `${expected}\n${expected}.b` }, { lab });
    expect(byRecord.code, byRecord.log).toBe(0);
    expect(byRecord.outputs.drift).toBe('[]');
    expect(byRecord.nodes.map(node => node.images.map(image => [image.reference, image.outcome]))).toEqual(
      nodes.map(() => [
        [A, 'present'],
        [B, 'present'],
      ]),
    );
    const byImage = await check({ ...there, archive: file }, { lab });
    expect(byImage.code, byImage.log).toBe(0);
  });

  it('is found and named on each node, and a push mends only those that lack something', async () => {
    const [containerd, crio, docker] = nodes as [LabNode, LabNode, LabNode];
    await remove(containerd, A);
    await move(docker, B, A);
    const outcome = await check({ ...there, expected }, { lab });
    expect(outcome.code).toBe(1);
    const drift = JSON.parse(outcome.outputs.drift ?? '') as Record<string, string>[];
    expect(drift.map(({ node, reference, drift: what, code }) => [node, reference, what, code])).toEqual([
      [containerd.name, A, 'missing', 'DRIFT'],
      [docker.name, A, 'other-image', 'DRIFT'],
    ]);
    expect(outcome.nodes.map(node => node.error?.code)).toEqual(['DRIFT', undefined, 'DRIFT']);
    expect(outcome.outputs.changed).toBe('true');
    expect(outcome.log).toContain(`${A}: the runtime does not have it`);

    const mended = await push({ ...there, archive: file }, { lab });
    expect(mended.code, mended.log).toBe(0);
    expect(mended.nodes.map(node => [node.node, node.images[0]?.outcome])).toEqual([
      [containerd.name, 'sent'],
      [crio.name, 'present'],
      [docker.name, 'sent'],
    ]);
    expect(mended.nodes[1]?.bytesSent).toBe(0);
    const after = await check({ ...there, expected }, { lab });
    expect(after.code, after.log).toBe(0);
  });

  it('is unknown of a node that cannot be asked, and of no other', async () => {
    const absent = '127.0.0.1:9=gone';
    const outcome = await check(
      { ...there, nodes: `${there.nodes}\n${absent}`, expected, 'connect-timeout': '5s' },
      { lab },
    );
    expect(outcome.code).toBe(1);
    const drift = JSON.parse(outcome.outputs.drift ?? '') as Record<string, string>[];
    expect(drift.map(one => [one.drift, one.code])).toEqual([['unknown', 'SSH_UNREACHABLE']]);
  });

  it('is not looked for by a record that is none', async () => {
    const failed = join(directory, 'failed.json');
    writeFileSync(failed, readFileSync(expected, 'utf8').replace('"succeeded": true', '"succeeded": false'));
    const older = join(directory, 'older.json');
    writeFileSync(older, readFileSync(expected, 'utf8').replace('"schemaVersion": 1', '"schemaVersion": 99'));
    for (const [path, why] of [
      [failed, 'is the report of a push that failed'],
      [older, 'schemaVersion'],
      [file, 'is not JSON'],
      [join(directory, 'nowhere.json'), 'cannot read'],
    ] as const) {
      const outcome = await check({ ...there, expected: path }, { lab });
      expect(outcome.code, path).toBe(2);
      expect(outcome.log).toContain(why);
    }
  });
});

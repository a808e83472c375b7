import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, expect, inject, it } from 'vitest';
import { kubectl } from '../cluster/kubernetes.ts';
import { archive } from '../engines.ts';
import { enterMust, onSmallDisk } from '../lab/index.ts';
import { check, leftOnNode, nodeNamed, push, reach, referencesOn } from '../shipped.ts';

const lab = inject('lab');
const small = [
  { node: nodeNamed(lab, 'n1'), place: '/var/lib/containerd' },
  { node: nodeNamed(lab, 'n2'), place: '/var/lib/containers' },
];
const directory = mkdtempSync(join(tmpdir(), 'kube-sideload-garbage-'));
afterAll(() => rmSync(directory, { recursive: true, force: true }));

/**
 * The kubelet's own defaults, but for two times: what has been seen for less than two minutes is not removed, and
 * pressure lasts for five minutes after it has gone.
 */
const KUBELET = {
  evictionHard: { 'imagefs.available': '15%' },
  evictionPressureTransitionPeriod: '1s',
  imageGCHighThresholdPercent: 85,
  imageGCLowThresholdPercent: 80,
  imageMinimumGCAge: '1s',
};

/** Leaves a twentieth of the disk. */
const FILL = `set -- $(df -k --output=size,avail "$0" | tail -n 1)
fallocate -l $(($2 - $1 / 20))k "$0/filler"`;

const PINNED = 'docker.io/library/pinned-against:gc';
const UNPINNED = 'docker.io/library/left-to:gc';

it('a full disk makes the kubelet remove what is not pinned: `check` names it, and a push mends it', async () => {
  const images = await Promise.all(
    [PINNED, UNPINNED].map(reference =>
      archive(directory, { reference, layers: [{ files: { 'etc/name': reference } }] }),
    ),
  );
  const [pinned = expect.unreachable(), unpinned = expect.unreachable()] = images;
  const reports = images.map((_, index) => join(directory, `${index}.json`));
  const undo = await Promise.all(small.map(({ node }) => onSmallDisk(lab, node, 64, KUBELET)));
  try {
    for (const [index, { file }] of images.entries()) {
      const pin = `${index === 0}`;
      const outcome = await push({ ...reach(lab), archive: file, pin, 'report-json': reports[index] ?? '' }, { lab });
      expect(outcome.code, outcome.log).toBe(0);
    }
    for (const { node, place } of small) await enterMust(node, ['sh', '-euc', FILL, place]);
    for (const { node } of small) {
      const references = () => referencesOn(lab, node.name);
      await expect.poll(references, { timeout: 60_000, interval: 500 }).not.toContain(UNPINNED);
      expect(await references()).toContain(PINNED);
      const log = readFileSync(join(node.root, 'var/log/lab/kubelet.log'), 'utf8');
      const removed = log.split('\n').filter(line => line.includes('Removing image to free bytes'));
      expect(removed.join('\n')).toContain(unpinned.id.replace('sha256:', ''));
      expect(removed.join('\n')).not.toContain(pinned.id.replace('sha256:', ''));
    }
    const looked = await check({ ...reach(lab), smoke: 'none', expected: reports.join('\n') }, { lab });
    expect(looked.code, looked.log).toBe(1);
    const drift = JSON.parse(looked.outputs.drift ?? '') as Record<string, string>[];
    expect(drift.map(one => [one.node, one.reference, one.drift])).toEqual(
      small.map(({ node }) => [node.name, UNPINNED, 'missing']),
    );

    for (const { node, place } of small) {
      await enterMust(node, ['rm', `${place}/filler`]);
      kubectl(lab, ['wait', 'node', node.name, '--for=condition=DiskPressure=false', '--timeout=60s']);
    }
    const mended = await push({ ...reach(lab), archive: unpinned.file }, { lab });
    expect(mended.code, mended.log).toBe(0);
    expect(mended.nodes.map(node => node.images[0]?.outcome)).toEqual(['sent', 'sent', 'present']);
    // Without the pin, which would outlive the disk in CRI-O's configuration.
    const kept = await push({ ...reach(lab), archive: pinned.file }, { lab });
    expect(kept.code, kept.log).toBe(0);
    expect(kept.nodes.map(node => node.images[0]?.outcome)).toEqual(['present', 'present', 'present']);
    expect(await leftOnNode(lab)).toEqual([]);
  } finally {
    for (const one of undo) await one();
  }
});

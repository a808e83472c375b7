import { describe, expect, it } from 'vitest';
import { outputsOf } from '../../../src/report/outputs.ts';
import type { ImageReport, Report } from '../../../src/report/report.ts';
import { failedNode, IMAGE_ID, nodeReport, report } from './reports.ts';

const APP = 'docker.io/library/app:1';
const OTHER_ID = `sha256:${'b'.repeat(64)}`;
const IDS = JSON.stringify({ [APP]: { 'linux/amd64': IMAGE_ID } });

function image(changes: Partial<ImageReport> = {}): ImageReport {
  const [one = expect.unreachable()] = nodeReport('w1').images;
  return { ...one, ...changes };
}

const put = (changes: Partial<ImageReport> = {}) => nodeReport('w1', { images: [image(changes)] });
const error = { code: 'SMOKE_CRASHED', message: 'exit code 3', hint: 'Read.' } as const;
const bundle = { path: 'out.tar', sizeBytes: 1, digest: 'sha256:0' } as const;

describe('the outputs `images` and `image-ids`', () => {
  it.each<[what: string, record: Report, images: string, ids: string]>([
    ['a push that succeeded', report([put(), put()]), APP, IDS],
    ['a check that found nothing', report([put({ outcome: 'present' })], { mode: 'check' }), APP, IDS],
    ['a bundle that was written', report([], { mode: 'bundle', bundle }), APP, IDS],
    ['a bundle that was not', report([], { mode: 'bundle', error }), '', '{}'],
    ['a push that one node failed', report([put(), failedNode('w2')]), '', '{}'],
    ['a push that was put back', report([{ ...put({ outcome: 'restored', isHeld: false }), error }]), '', '{}'],
    ['a push that failed after the last look', report([put()], { error }), '', '{}'],
    ['a plan', report([put({ outcome: 'present', isHeld: false })], { mode: 'plan' }), '', '{}'],
    [
      'a check that found something',
      report([{ ...put({ isHeld: false, drift: 'missing' }), error }], { mode: 'check' }),
      '',
      '{}',
    ],
    ['a prune', report([nodeReport('w1', { images: [] })], { mode: 'prune', images: {} }), '', '{}'],
  ])('of %s have what all nodes were seen to hold', (_what, record, images, ids) => {
    expect(outputsOf(record)).toMatchObject({ images, 'image-ids': ids });
  });

  it('name what all nodes hold, each in its platform, and not what some were sent along', () => {
    const images = {
      [APP]: { 'linux/amd64': IMAGE_ID, 'linux/arm64': OTHER_ID, 'linux/s390x': 'sha256:c' },
      'pause:1': { 'linux/amd64': 'sha256:d' },
    };
    const nodes = [
      nodeReport('w1', { images: [image(), image({ reference: 'pause:1', imageId: 'sha256:d', isSandbox: true })] }),
      nodeReport('w2', { images: [image({ imageId: OTHER_ID })] }),
    ];
    const outputs = outputsOf(report(nodes, { images }));
    expect(outputs.images).toBe(APP);
    expect(JSON.parse(outputs['image-ids'] ?? '')).toEqual({
      [APP]: { 'linux/amd64': IMAGE_ID, 'linux/arm64': OTHER_ID },
    });
  });
});

it('the other outputs are facts of every run, or belong to one mode', () => {
  const failed = outputsOf(report([put(), failedNode('w2')]));
  expect(failed).toMatchObject({ 'bytes-sent': '1500000', changed: 'true' });
  expect(JSON.parse(failed.nodes ?? '')).toHaveLength(2);
  expect(Object.keys(failed)).not.toContain('drift');
  expect(Object.keys(failed)).not.toContain('bundle');
  expect(outputsOf(report([put()], { mode: 'check' })).drift).toBe('[]');
  expect(outputsOf(report([], { mode: 'bundle', bundle })).bundle).toBe('out.tar');
});

import { expect, it } from 'vitest';
import { variableOf } from '../../../src/host/terminal.ts';
import { INPUT_NAMES } from '../../../src/inputs.ts';
import { reportDocument } from '../../../src/report/document.ts';
import { dotenvText } from '../../../src/report/dotenv.ts';
import type { ImageReport, Report } from '../../../src/report/report.ts';
import { VERSION } from '../../../src/version.ts';
import { failedNode, IMAGE_ID, nodeReport, report } from './reports.ts';

function variables(record: Report): Record<string, string> {
  const text = dotenvText(reportDocument(record, undefined));
  return Object.fromEntries(
    text
      .trimEnd()
      .split('\n')
      .map(line => line.split(/=(.*)/, 2)),
  );
}

function held(reference: string, imageId: string): ImageReport {
  return { reference, imageId, outcome: 'sent', isHeld: true, estimatedBytes: 0, isEstimateExact: true, bytesSent: 0 };
}

it('tells later jobs what became of it', () => {
  expect(variables(report([nodeReport('w1'), failedNode('w2')]))).toEqual({
    KUBE_SIDELOAD_SUCCEEDED: 'false',
    KUBE_SIDELOAD_CHANGED: 'true',
    KUBE_SIDELOAD_RUN: 't4y1q2abcdef',
    KUBE_SIDELOAD_TOOL_VERSION: VERSION,
    KUBE_SIDELOAD_BYTES_SENT: '1500000',
    KUBE_SIDELOAD_DURATION_MS: '20000',
    KUBE_SIDELOAD_NODE_COUNT: '2',
    KUBE_SIDELOAD_FAILED_NODE_COUNT: '1',
    KUBE_SIDELOAD_FAILED_NODES: 'w2',
    KUBE_SIDELOAD_ERROR_CODE: 'SSH_UNREACHABLE',
    KUBE_SIDELOAD_IMAGE_COUNT: '0',
  });
});

it('names the images that all nodes hold, and none when the job failed', () => {
  expect(variables(report([nodeReport('w1'), nodeReport('w2')]))).toMatchObject({
    KUBE_SIDELOAD_SUCCEEDED: 'true',
    KUBE_SIDELOAD_IMAGE_COUNT: '1',
    KUBE_SIDELOAD_IMAGE_1: 'docker.io/library/app:1',
    KUBE_SIDELOAD_IMAGE_1_ID: IMAGE_ID,
  });
});

it('has no empty values, and every platform of an image', () => {
  const images = { 'app:1': { 'linux/amd64': 'sha256:a', 'linux/arm64': 'sha256:b' } };
  const nodes = ['sha256:a', 'sha256:b'].map((imageId, index) =>
    nodeReport(`w${index}`, { images: [held('app:1', imageId)] }),
  );
  const found = variables(report(nodes, { images }));
  expect(found.KUBE_SIDELOAD_IMAGE_1_ID).toBe('linux/amd64=sha256:a,linux/arm64=sha256:b');
  expect(found).not.toHaveProperty('KUBE_SIDELOAD_FAILED_NODES');
});

it('stays within what GitLab takes, whatever the images and nodes', () => {
  const images = Object.fromEntries(
    Array.from({ length: 30 }, (_, index) => [`registry.example/app-${index}:1`, { 'linux/amd64': IMAGE_ID }]),
  );
  const nodes = Array.from({ length: 300 }, (_, index) => failedNode(`worker-${index}\nx="'#`));
  const full = nodeReport('w1', { images: Object.keys(images).map(reference => held(reference, IMAGE_ID)) });
  for (const record of [report([full], { images }), report(nodes, { images })]) {
    const text = dotenvText(reportDocument(record, undefined));
    expect(Buffer.byteLength(text)).toBeLessThanOrEqual(5120);
    const lines = text.split('\n');
    expect(lines.pop()).toBe('');
    expect(lines.length).toBeLessThanOrEqual(20);
    for (const line of lines) expect(line).toMatch(/^[A-Z][A-Z0-9_]*=\S[^\n]*$/);
  }
});

it('sets no input of a later job, which inherits it all', () => {
  const inputs = new Set(INPUT_NAMES.map(variableOf));
  for (const name of Object.keys(variables(report([nodeReport('w1'), failedNode('w2')])))) {
    expect(inputs).not.toContain(name);
  }
});

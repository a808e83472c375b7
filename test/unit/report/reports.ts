import type { NodeReport, Report } from '../../../src/report/report.ts';

export const IMAGE_ID = `sha256:${'a'.repeat(64)}`;

/** A node that holds its image, and runs it. */
export function nodeReport(node: string, changes: Partial<NodeReport> = {}): NodeReport {
  return {
    node,
    address: '10.0.0.11:22',
    kubernetesName: `${node}.cluster`,
    platform: 'linux/amd64',
    runtime: 'containerd v2.1.4',
    images: [
      {
        reference: 'docker.io/library/app:1',
        imageId: IMAGE_ID,
        outcome: 'sent',
        isHeld: true,
        estimatedBytes: 4_000_000,
        isEstimateExact: false,
        bytesSent: 1_500_000,
        smoke: 'Running',
      },
    ],
    bytesSent: 1_500_000,
    startedAt: '2026-01-02T03:04:05.000Z',
    endedAt: '2026-01-02T03:04:17.300Z',
    durationMs: 12_300,
    findings: [],
    error: undefined,
    ...changes,
  };
}

/** A node that was never reached. */
export function failedNode(node: string): NodeReport {
  return nodeReport(node, {
    kubernetesName: undefined,
    platform: undefined,
    runtime: undefined,
    images: [],
    bytesSent: 0,
    durationMs: 400,
    error: { code: 'SSH_UNREACHABLE', message: 'connect ECONNREFUSED 10.0.0.12:22', hint: 'Check that sshd runs.' },
  });
}

export function report(nodes: readonly NodeReport[], changes: Partial<Report> = {}): Report {
  return {
    run: 't4y1q2abcdef',
    mode: 'push',
    startedAt: '2026-01-02T03:04:05.000Z',
    endedAt: '2026-01-02T03:04:25.000Z',
    stages: [{ title: 'Send', startedAt: '2026-01-02T03:04:06.000Z', durationMs: 9000 }],
    images: { 'docker.io/library/app:1': { 'linux/amd64': IMAGE_ID } },
    nodes,
    findings: [],
    changed: true,
    error: undefined,
    ...changes,
  };
}

import { describe, expect, it } from 'vitest';
import { publish } from '../../../src/report/publish.ts';
import type { Report } from '../../../src/report/report.ts';
import { type RecordingHost, recordingHost } from '../recording-host.ts';
import { failedNode, IMAGE_ID, nodeReport, report } from './reports.ts';

async function published(record: Report): Promise<RecordingHost> {
  const host = recordingHost();
  await publish(record, host);
  return host;
}

function callsOf(host: RecordingHost, method: string): readonly string[] {
  return host.calls.filter(call => call === method || call.startsWith(`${method} `));
}

describe('a run that succeeded', () => {
  it('does not fail and has no annotation', async () => {
    const host = await published(report([nodeReport('w1'), nodeReport('w2')]));
    expect(callsOf(host, 'fail')).toEqual([]);
    expect(callsOf(host, 'error')).toEqual([]);
    expect(host.markdown).toContain('every node runs what CI built');
  });

  it('gives every output', async () => {
    const { outputs } = await published(report([nodeReport('w1'), nodeReport('w2')]));
    expect(outputs).toMatchObject({ images: 'docker.io/library/app:1', 'bytes-sent': '3000000', changed: 'true' });
    expect(JSON.parse(outputs['image-ids'] ?? '')).toEqual({ 'docker.io/library/app:1': { 'linux/amd64': IMAGE_ID } });
    expect(JSON.parse(outputs.nodes ?? '')).toMatchObject([{ node: 'w1', bytesSent: 1_500_000 }, { node: 'w2' }]);
  });

  it('says what each kubelet said', async () => {
    const host = await published(report([nodeReport('w1')]));
    expect(host.calls).toContain('group ✔ w1');
    expect(callsOf(host, 'info').join('\n')).toContain('docker.io/library/app:1: verdict: Running');
  });
});

it('warns of what might go wrong, on nodes of the list and others, and does not fail for it', async () => {
  const finding = { severity: 'warning', code: 'DISK_TIGHT', message: 'little is free', hint: 'Make room.' } as const;
  const host = await published(
    report([nodeReport('w1', { findings: [{ node: 'w1', ...finding }] })], { findings: [{ node: 'w9', ...finding }] }),
  );
  expect(callsOf(host, 'warning')).toEqual([
    'warning w1: little is free\nNext step: Make room. [DISK_TIGHT]',
    'warning w9: little is free\nNext step: Make room. [DISK_TIGHT]',
  ]);
  expect(callsOf(host, 'fail')).toEqual([]);
});

describe('a run that failed', () => {
  const record = report([nodeReport('w1'), failedNode('w2'), failedNode('w3')]);

  it('has one annotation for each failed node, with code and next step', async () => {
    const errors = callsOf(await published(record), 'error');
    expect(errors).toHaveLength(2);
    expect(errors[0]).toBe(
      'error connect ECONNREFUSED 10.0.0.12:22\nNext step: Check that sshd runs. [SSH_UNREACHABLE] w2: The node cannot be reached over SSH',
    );
  });

  it('finishes its record first, and fails once, last', async () => {
    const host = await published(record);
    expect(host.calls.at(-1)).toBe('fail 2 of 3 nodes failed: w2 [SSH_UNREACHABLE], w3 [SSH_UNREACHABLE]');
    expect(callsOf(host, 'fail')).toHaveLength(1);
    expect(callsOf(host, 'output')).toHaveLength(5);
    expect(callsOf(host, 'summary')).toHaveLength(1);
    expect(JSON.parse(host.outputs.nodes ?? '')).toHaveLength(3);
  });

  it('as a whole names what stopped it, besides the nodes', async () => {
    const error = { code: 'ARCHIVE_INVALID', message: 'the archive a.tar is empty', hint: 'Write it again.' } as const;
    const host = await published(report([failedNode('w1')], { images: {}, changed: false, error }));
    expect(callsOf(host, 'error')).toHaveLength(2);
    expect(host.calls.at(-1)).toBe('fail The image archive cannot be read [ARCHIVE_INVALID]');
    expect(host.outputs).toMatchObject({ images: '', changed: 'false' });
    expect(host.markdown).toContain('the archive a.tar is empty');
  });

  it('has no nodes: nothing was proven', async () => {
    expect(callsOf(await published(report([])), 'fail')).toHaveLength(1);
  });
});

import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it, onTestFinished } from 'vitest';
import { EXIT } from '../../../src/host/host.ts';
import { publish } from '../../../src/report/publish.ts';
import type { ImageReport, NodeReport, Report } from '../../../src/report/report.ts';
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

  it('without smoke pods is not said to run anything', async () => {
    const [image] = nodeReport('w1').images;
    const host = await published(
      report([nodeReport('w1', { images: [{ ...image, smoke: undefined } as ImageReport] })]),
    );
    expect(host.markdown).toContain('every node holds what CI built');
  });

  it('gives every output', async () => {
    const { outputs } = await published(report([nodeReport('w1'), nodeReport('w2')]));
    expect(outputs).toMatchObject({ images: 'docker.io/library/app:1', 'bytes-sent': '3000000', changed: 'true' });
    expect(JSON.parse(outputs['image-ids'] ?? '')).toEqual({ 'docker.io/library/app:1': { 'linux/amd64': IMAGE_ID } });
    expect(JSON.parse(outputs.nodes ?? '')).toMatchObject([{ node: 'w1', bytesSent: 1_500_000 }, { node: 'w2' }]);
  });

  it('ends with a table of what each kubelet said, and one line', async () => {
    const host = await published(report([nodeReport('w1'), nodeReport('w2')]));
    const results = callsOf(host, 'result');
    expect(results).toHaveLength(4);
    expect(results[1]).toMatch(/^result w1 .*app:1 +sent .*Running /);
    expect(results[3]).toBe('result done: all 2 nodes hold what CI built; 3.0 MB sent, 20.0 s');
  });

  it('names a single node as one, and of a plan says what it is worth', async () => {
    expect((await published(report([nodeReport('w1')]))).calls.at(-1)).toContain('done: the node holds what CI built');
    const planned = await published(report([nodeReport('w1')], { mode: 'plan' }));
    expect(planned.calls.at(-1)).toBe('result a push to the node would start');
  });
});

it('warns of what might go wrong, on nodes of the list and others, and does not fail for it', async () => {
  const finding = { severity: 'warning', code: 'DISK_TIGHT', message: 'little is free', hint: 'Make room.' } as const;
  const host = await published(
    report([nodeReport('w1', { findings: [{ node: 'w1', ...finding }] })], { findings: [{ node: 'w9', ...finding }] }),
  );
  expect(callsOf(host, 'warning')).toEqual(['warning w1, w9: little is free\nNext step: Make room. [DISK_TIGHT]']);
  expect(callsOf(host, 'fail')).toEqual([]);
});

describe('a run that failed', () => {
  const record = report([nodeReport('w1'), failedNode('w2'), failedNode('w3')]);

  it('has one annotation for each error, with its nodes, code and next step', async () => {
    const error = { code: 'DISK_FULL', message: 'full', hint: 'Make room.' } as const;
    const errors = callsOf(await published(report([...record.nodes, nodeReport('w4', { error })])), 'error');
    expect(errors).toEqual([
      'error connect ECONNREFUSED 10.0.0.12:22\nNext step: Check that sshd runs. [SSH_UNREACHABLE] w2, w3: The node cannot be reached over SSH',
      'error full\nNext step: Make room. [DISK_FULL] w4: There is not enough disk space',
    ]);
  });

  it('finishes its record first, and fails once, last', async () => {
    const host = await published(record);
    expect(host.calls.at(-1)).toBe('fail 2 of 3 nodes failed: w2 [SSH_UNREACHABLE], w3 [SSH_UNREACHABLE]');
    expect(callsOf(host, 'fail')).toHaveLength(1);
    expect(host.exitCodes).toEqual([EXIT.failed]);
    expect(host.documents).toMatchObject([{ schemaVersion: 1, succeeded: false, nodes: [{}, {}, {}] }]);
    expect(callsOf(host, 'output')).toHaveLength(5);
    expect(callsOf(host, 'summary')).toHaveLength(1);
    expect(JSON.parse(host.outputs.nodes ?? '')).toHaveLength(3);
  });

  it('as a whole names what stopped it, besides the nodes', async () => {
    const error = { code: 'ARCHIVE_INVALID', message: 'the archive a.tar is empty', hint: 'Write it again.' } as const;
    const host = await published(report([failedNode('w1')], { images: {}, changed: false, error }));
    expect(callsOf(host, 'error')).toHaveLength(2);
    expect(host.calls.at(-1)).toBe(
      'fail The image archive cannot be read [ARCHIVE_INVALID]; 1 of 1 nodes failed: w1 [SSH_UNREACHABLE]',
    );
    expect(host.outputs).toMatchObject({ images: '', changed: 'false' });
    expect(host.markdown).toContain('the archive a.tar is empty');
  });

  it('names every cause in its last line, and has an annotation and a part of the page for each', async () => {
    const error = { code: 'IMAGE_NOT_FOUND', message: 'no image app:1', hint: 'Compare.' } as const;
    const other = { code: 'CLUSTER_UNREACHABLE', message: 'was refused', hint: 'Check.' } as const;
    const [image] = nodeReport('w1').images;
    const crashed = { code: 'SMOKE_CRASHED', message: 'app:1: exit code 1', hint: 'Read.' } as const;
    const pulled = { code: 'PULL_FORCED', message: 'web:1: ErrImagePull', hint: 'Exempt.' } as const;
    const images = [
      { ...image, error: crashed },
      { ...image, reference: 'docker.io/library/web:1', error: pulled },
    ] as NodeReport['images'];
    const full = { node: 'w2', severity: 'error', code: 'DISK_FULL', message: 'full', hint: 'Make room.' } as const;
    const left = { code: 'RESTORE_FAILED', message: 'app:1 still names the new image', hint: 'Push.' } as const;
    const w1 = nodeReport('w1', { images, error: crashed, otherErrors: [left] });
    const nodes = [w1, { ...failedNode('w2'), findings: [full] }];
    const host = await published(report(nodes, { error, otherErrors: [other] }));
    expect(host.calls.at(-1)).toBe(
      'fail No such image [IMAGE_NOT_FOUND]; The Kubernetes API does not answer [CLUSTER_UNREACHABLE]; 2 of 2 nodes failed: w1 [SMOKE_CRASHED, PULL_FORCED, RESTORE_FAILED], w2 [SSH_UNREACHABLE, DISK_FULL]',
    );
    for (const { code, message, hint } of [error, other, crashed, pulled, left]) {
      expect(
        callsOf(host, 'error').filter(call => call.includes(`${message}\nNext step: ${hint} [${code}]`)),
      ).toHaveLength(1);
      expect(host.markdown).toContain(`(\`${code}\`)`);
    }
  });

  it.each<[what: string, nodes: readonly NodeReport[], changes: Partial<Report>, code: number]>([
    ['an input alone', [], {}, EXIT.usage],
    ['an input, and a node', [failedNode('w1')], {}, EXIT.failed],
    ['an input, after something was sent', [nodeReport('w1')], {}, EXIT.failed],
    ['an input, after a name has moved', [], { changed: true }, EXIT.failed],
  ])('ends with 2 for an input alone, when nothing was done: %s', async (_what, nodes, changes, code) => {
    const error = { code: 'INPUT_INVALID', message: '`node-selector` takes none', hint: 'Compare.' } as const;
    const host = recordingHost();
    await publish(report(nodes, { images: {}, changed: false, error, ...changes }), host);
    expect(host.exitCodes).toEqual([code]);
  });

  it('tells once of images that were found changed on one node', async () => {
    const error = { code: 'CHANGED_SINCE', hint: 'Find out.' } as const;
    const [image] = nodeReport('w1').images;
    const images = ['app:1: gone', 'db:1: gone'].map(
      message => ({ ...image, error: { ...error, message } }) as ImageReport,
    );
    const host = await published(
      report([nodeReport('w1', { images, error: { ...error, message: 'app:1: gone\ndb:1: gone' } })]),
    );
    expect(callsOf(host, 'error')).toHaveLength(1);
  });

  it('has no nodes: nothing was proven', async () => {
    expect(callsOf(await published(report([])), 'fail')).toHaveLength(1);
  });

  it('is one that nobody has looked at in the end, whatever else went well', async () => {
    const [image] = nodeReport('w1').images;
    for (const isHeld of [false, undefined]) {
      const unseen = nodeReport('w2', { images: [{ ...image, isHeld } as ImageReport] });
      const host = await published(report([nodeReport('w1'), unseen]));
      expect(callsOf(host, 'fail')).toHaveLength(1);
      expect(host.outputs.images).toBe('');
    }
  });

  it('says once what stopped it, and not of each node', async () => {
    const error = { code: 'CANCELLED', message: 'the job was cancelled (SIGINT)', hint: 'Again.' } as const;
    const nodes = [nodeReport('w1', { error }), nodeReport('w2', { error })];
    expect(callsOf(await published(report(nodes, { error })), 'error')).toEqual([
      'error the job was cancelled (SIGINT)\nNext step: Again. [CANCELLED] The job was cancelled',
    ]);
  });

  it('by a signal ends as shells say it', async () => {
    const host = recordingHost();
    await publish(record, host, {}, EXIT.SIGTERM);
    expect(host.exitCodes).toEqual([143]);
  });

  it('names no more nodes than anybody reads', async () => {
    const nodes = Array.from({ length: 12 }, (_, index) => failedNode(`w${index}`));
    const host = await published(report(nodes));
    expect(host.calls.at(-1)).toMatch(/^fail 12 of 12 nodes failed: w0 .* w9 \[SSH_UNREACHABLE\] and 2 more$/);
  });
});

it('keeps secrets out of outputs and the document: nobody masks those', async () => {
  const host = recordingHost();
  host.mask('hunter2', 'job');
  const error = { code: 'IMPORT_FAILED', message: 'the node said hunter2', hint: 'hunter2?' } as const;
  const [image] = nodeReport('w1').images;
  const images = [{ ...image, smoke: 'exit code 1: hunter2', error }] as NodeReport['images'];
  const finding = { node: 'w1', severity: 'warning', ...error } as const;
  const record = report([nodeReport('w1', { images, error, findings: [finding] })], { findings: [finding], error });
  await publish(record, host);
  const seen = JSON.stringify([host.calls, host.outputs, host.documents, host.markdown]);
  expect(seen).not.toContain('hunter2');
  expect(seen).toContain('the node said ***');
});

describe('files of the record', () => {
  it('fail a job that succeeded when they cannot be written, and are named', async () => {
    const directory = mkdtempSync(join(tmpdir(), 'kube-sideload-publish-'));
    onTestFinished(() => rmSync(directory, { recursive: true }));
    writeFileSync(join(directory, 'file'), '');
    const host = recordingHost();
    await publish(report([nodeReport('w1')]), host, {
      json: join(directory, 'file', 'report.json'),
      dotenv: join(directory, 'new', 'report.env'),
    });
    expect(callsOf(host, 'error')[0]).toMatch(/file\/report\.json: E.*\nNext step: .* \[REPORT_FAILED\]/);
    expect(host.exitCodes).toEqual([EXIT.failed]);
    expect(readFileSync(join(directory, 'new', 'report.env'), 'utf8')).toContain('KUBE_SIDELOAD_CHANGED=true\n');
  });
});

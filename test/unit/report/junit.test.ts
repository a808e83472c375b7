import { describe, expect, it } from 'vitest';
import { reportDocument } from '../../../src/report/document.ts';
import { junitText } from '../../../src/report/junit.ts';
import type { ImageReport, Report } from '../../../src/report/report.ts';
import { failedNode, nodeReport, report } from './reports.ts';

function junit(record: Report): string {
  return junitText(reportDocument(record, undefined));
}

/** Each test case as `NAME: VERDICT`. */
function cases(record: Report): readonly string[] {
  const found = junit(record).matchAll(
    /<testcase classname="kube-sideload" name="([^"]*)" time="[\d.]+"(?:\/>|>\s*<(failure|skipped) message="([^"]*)")/g,
  );
  return [...found].map(
    ([, name, kind, message]) => `${name}: ${kind === undefined ? 'passed' : `${kind} ${message}`}`,
  );
}

const [sent] = nodeReport('w1').images as readonly [ImageReport];
const none: ImageReport = { ...sent, outcome: 'none', isHeld: false, bytesSent: 0, smoke: undefined };
const error = { code: 'SMOKE_CRASHED', message: 'exit code 3', hint: 'Read.' } as const;

it('is XML with sums that Jenkins and GitLab read', () => {
  const record = report([nodeReport('w1'), failedNode('w2'), nodeReport('w3', { images: [none] })]);
  expect(junit(record)).toBe(`<?xml version="1.0" encoding="UTF-8"?>
<testsuites name="kube-sideload" tests="3" failures="1" errors="0" skipped="1" time="20.000">
  <testsuite name="kube-sideload push" tests="3" failures="1" errors="0" skipped="1" time="20.000" timestamp="2026-01-02T03:04:05">
    <testcase classname="kube-sideload" name="w1: docker.io/library/app:1" time="12.300"/>
    <testcase classname="kube-sideload" name="w2: node" time="0.400">
      <failure message="The node cannot be reached over SSH [SSH_UNREACHABLE]" type="SSH_UNREACHABLE">connect ECONNREFUSED 10.0.0.12:22
Next step: Check that sshd runs.</failure>
    </testcase>
    <testcase classname="kube-sideload" name="w3: docker.io/library/app:1" time="12.300">
      <skipped message="not put on the node: another node failed, and it is all nodes or none"/>
    </testcase>
  </testsuite>
</testsuites>
`);
});

describe('a test case', () => {
  it('fails for the image whose fault it is, and for no other', () => {
    const images = [sent, { ...sent, reference: 'db:2', error }];
    expect(cases(report([nodeReport('w1', { images, error })]))).toEqual([
      'w1: docker.io/library/app:1: passed',
      'w1: db:2: failure The container ended with an error [SMOKE_CRASHED]',
    ]);
  });

  it('fails for the node when it is the fault of no image; what was not tried is skipped', () => {
    const lost = { code: 'SSH_LOST', message: 'cut', hint: 'Check.' } as const;
    const images = [sent, { ...none, reference: 'db:2' }];
    expect(cases(report([nodeReport('w1', { images, error: lost })]))).toEqual([
      'w1: node: failure The SSH connection broke off [SSH_LOST]',
      'w1: docker.io/library/app:1: passed',
      'w1: db:2: skipped not put on the node: the node failed [SSH_LOST]',
    ]);
  });

  it('is skipped for an image that was put back, or that nobody has seen at the end', () => {
    const images = (['restored', 'sent', 'present'] as const).map(outcome => ({ ...sent, outcome, isHeld: false }));
    expect(cases(report([nodeReport('w1', { images }), failedNode('w2')]))).toEqual([
      'w1: docker.io/library/app:1: skipped put there and taken back: another node failed, and it is all nodes or none',
      'w1: docker.io/library/app:1: skipped not proven: another node failed, and it is all nodes or none',
      'w1: docker.io/library/app:1: skipped not proven: another node failed, and it is all nodes or none',
      'w2: node: failure The node cannot be reached over SSH [SSH_UNREACHABLE]',
    ]);
  });

  it('fails for the run when it is the fault of no node', () => {
    const archive = { code: 'ARCHIVE_INVALID', message: 'empty', hint: 'Again.' } as const;
    expect(cases(report([nodeReport('w1', { images: [] })], { error: archive }))).toEqual([
      'w1: node: skipped the run was stopped [ARCHIVE_INVALID]',
      'run: failure The image archive cannot be read [ARCHIVE_INVALID]',
    ]);
  });

  it('fails when nothing was proven', () => {
    expect(cases(report([]))).toEqual(['run: failure This is a fault of kube-sideload [INTERNAL]']);
  });

  it('passes in a plan although nothing was sent', () => {
    expect(cases(report([nodeReport('w1', { images: [none] })], { mode: 'plan' }))).toEqual([
      'w1: docker.io/library/app:1: passed',
    ]);
  });
});

it('takes whatever nodes and kubelets say', () => {
  const message = 'a & b <c> "d"\u0000\u001b[31m\u0008 \ud800 \uffff é 🚀 ]]>';
  const nodes = [nodeReport('w"1', { error: { code: 'IMPORT_FAILED', message, hint: 'h' } })];
  const text = junit(report(nodes));
  expect(text).toContain('a &amp; b &lt;c&gt; &quot;d&quot;\ufffd\ufffd[31m\ufffd \ufffd \ufffd é 🚀 ]]&gt;');
  expect(text).toContain('name="w&quot;1: node"');
  // biome-ignore lint/suspicious/noControlCharactersInRegex: none may be there.
  expect(text).not.toMatch(/[\u0000-\u0008\u000b\u000c\u000e-\u001f]/);
});

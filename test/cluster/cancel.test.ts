import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, describe, expect, inject, it } from 'vitest';
import { archive, build } from '../engines.ts';
import { until } from '../lab/command.ts';
import { enterMust, setRate } from '../lab/index.ts';
import { leftOnNode, push, reach, referencesOn, runAction, runPost } from '../shipped.ts';
import { smokePods } from './kubernetes.ts';

const lab = inject('lab');
const directory = mkdtempSync(join(tmpdir(), 'kube-sideload-cancel-'));
afterAll(() => rmSync(directory, { recursive: true, force: true }));

/** A line of the log at which the job is in the middle of each stage. */
const STAGES = {
  'while connecting': /^::group::Open the images/,
  'while checking': /^::group::Check what/,
  'while sending': /^::group::Send what/,
  'while moving references': /^::group::Move the references/,
  'while smoke pods run': /^::group::Start smoke pods/,
};

afterEach(async () => {
  expect(smokePods(lab)).toEqual([]);
  expect(await leftOnNode(lab)).toEqual([]);
});

describe('a cancelled job', () => {
  it.for(Object.entries(STAGES))('leaves nothing behind %s', async ([, line], { expect }) => {
    const image = `cancelled:${Date.now()}`;
    build(lab, 'docker', image, image);
    const inputs = { ...reach(lab), images: image };
    const outcome = await runAction(inputs, { lab, onLine: killAt(line, 'SIGTERM') });
    expect(outcome.code).toBe(1);
    expect(outcome.log).toContain('[CANCELLED]');
    if (line === STAGES['while connecting']) expect(outcome.log).not.toContain('::group::Check what');
    expect(outcome.leftOnRunner).toEqual([]);
    expect(smokePods(lab)).toEqual([]);
    expect(await leftOnNode(lab)).toEqual([]);
  });

  it.for(Object.entries(STAGES))(
    'is cleaned up by the post step when it was killed %s',
    async ([, line], { expect }) => {
      const image = `killed:${Date.now()}`;
      build(lab, 'docker', image, image);
      const inputs = { ...reach(lab), images: image };
      const outcome = await runAction(inputs, { lab, onLine: killAt(line, 'SIGKILL') });
      expect(outcome.signal).toBe('SIGKILL');
      const post = await runPost(outcome, inputs, { lab });
      expect(post.code).toBe(0);
      expect(post.log).toContain('cleaning up');
      expect(post.log).not.toContain('::warning');
      expect(post.leftOnRunner).toEqual([]);
    },
  );

  it('is cleaned up by the post step when it was killed with one node done and another not', async () => {
    const [slow = expect.unreachable()] = lab.nodes.slice(-1);
    const image = await archive(directory, {
      reference: 'docker.io/library/half:1',
      layers: [{ fillBytes: 20_000_000 }],
    });
    const inputs = { ...reach(lab), archive: image.file };
    await setRate(slow, '16mbit');
    try {
      const outcome = await runAction(inputs, { lab, onLine: killAt(/imported and verified/, 'SIGKILL') });
      expect(outcome.signal).toBe('SIGKILL');
      expect(await leftOnNode(lab)).toContainEqual(expect.stringContaining('kube-sideload.invalid/'));
      const post = await runPost(outcome, inputs, { lab });
      expect(post.log).not.toContain('::warning');
      expect(await leftOnNode(lab)).toEqual([]);
    } finally {
      await setRate(slow, undefined);
    }
  });

  it('is cleaned up by the post step when it was killed with its pods running', async () => {
    build(lab, 'docker', 'running:1', 'running');
    const inputs = { ...reach(lab), images: 'running:1', 'smoke-expect': 'completed' };
    const outcome = await runAction(inputs, {
      lab,
      onLine: (line, pid) => {
        if (!STAGES['while smoke pods run'].test(line)) return;
        void until('pods', 30_000, async () => smokePods(lab).length > 0).then(() => process.kill(pid, 'SIGKILL'));
      },
    });
    expect(outcome.signal).toBe('SIGKILL');
    expect(smokePods(lab)).not.toEqual([]);
    const post = await runPost(outcome, inputs, { lab });
    expect(post.log).not.toContain('::warning');
    expect(smokePods(lab)).toEqual([]);
  });

  it('leaves no pod for long when it was killed in its smoke phase and has no post step: it goes with the next job', async () => {
    build(lab, 'docker', 'lost:1', 'lost');
    const inputs = { ...reach(lab), images: 'lost:1', 'smoke-expect': 'completed' };
    const outcome = await push(inputs, {
      lab,
      onLine: (line, pid) => {
        if (line !== 'Start smoke pods') return;
        void until('pods', 30_000, async () => smokePods(lab).length > 0).then(() => process.kill(pid, 'SIGKILL'));
      },
    });
    expect(outcome.signal).toBe('SIGKILL');
    const left = smokePods(lab);
    expect(left).not.toEqual([]);
    // As if two minutes had passed, for which its locks count.
    const age = `for lock in /run/kube-sideload/*; do held=$(readlink "$lock"); rest=\${held#*:*:*:}; since=\${held#*:}; ln -sfT "\${held%%:*}:\${since%%:*}:1:$rest" "$lock"; done`;
    for (const node of lab.nodes) await enterMust(node, ['sh', '-c', age]);
    const next = await push({ ...reach(lab), images: 'lost:1' }, { lab });
    expect(next.code, next.log).toBe(0);
    expect(smokePods(lab)).toEqual([]);
  });

  it('leaves the references as they were when it is cancelled before they move', async () => {
    build(lab, 'docker', 'unmoved:1', 'unmoved');
    await runAction({ ...reach(lab), images: 'unmoved:1' }, { lab, onLine: killAt(/^::group::Send what/, 'SIGINT') });
    for (const node of lab.nodes) {
      expect(await referencesOn(lab, node.name)).not.toContain('docker.io/library/unmoved:1');
    }
  });
});

function killAt(pattern: RegExp, signal: NodeJS.Signals): (line: string, pid: number) => void {
  let done = false;
  return (line, pid) => {
    if (!done && pattern.test(line)) {
      done = true;
      process.kill(pid, signal);
    }
  };
}

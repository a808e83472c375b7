import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, expect, inject, it, vi } from 'vitest';
import { archive } from '../engines.ts';
import { enter, setRate, start, stop } from '../lab/index.ts';
import { leftOnNode, nodeNamed, push, reach } from '../shipped.ts';

const lab = inject('lab');
const n1 = nodeNamed(lab, 'n1');
const directory = mkdtempSync(join(tmpdir(), 'kube-sideload-resume-'));
afterAll(() => rmSync(directory, { recursive: true, force: true }));

afterEach(async () => {
  await setRate(n1, undefined);
  expect(await leftOnNode(lab)).toEqual([]);
});

/** Compressed, each of the two big layers is about 34 MB: enough for a part of its own. */
function layered(tag: string) {
  const fillers = [68_000_000, 68_000_001].map(fillBytes => ({ fillBytes, seed: tag }));
  return archive(directory, { reference: `docker.io/library/resumed:${tag}`, layers: fillers });
}

/** Ends the SSH sessions on the node as soon as its runtime has the first part of an image. */
function cutAfterFirstPart(): Promise<void> {
  return afterFirstPart(async () => {
    await enter(n1, ['pkill', '-KILL', '-f', '^sshd.*: root@notty']);
  });
}

async function afterFirstPart(act: () => Promise<void>): Promise<void> {
  for (let attempt = 0; attempt < 600; attempt += 1) {
    const { stdout } = await enter(n1, ['ctr', '-n', 'k8s.io', 'images', 'ls', '-q']);
    if (/^kube-sideload\.invalid\/\w+:0-1$/m.test(stdout)) {
      await act();
      return;
    }
  }
  expect.unreachable('the first part should have arrived');
}

it('a retry sends no layer again that the node has received whole', async () => {
  const image = await layered('1');
  await setRate(n1, '80mbit');
  const [outcome] = await Promise.all([
    push({ ...reach(lab, [n1.address]), archive: image.file, smoke: 'none' }, { lab }),
    cutAfterFirstPart(),
  ]);
  expect(outcome.log).toMatch(/broke off.*trying again in 1 s \(1 of 3\)/);
  expect(outcome.log).toMatch(/connected again; needs \S+, and has 2 of its 3 layers/);
  expect(outcome.nodes[0]?.images[0]?.outcome).toBe('sent');
  expect(outcome.code).toBe(0);
});

it('a runtime that is restarted in mid-import has refused nothing, and without retries is told as lost', async () => {
  const image = await layered('3');
  await setRate(n1, '80mbit');
  const [outcome] = await Promise.all([
    push({ ...reach(lab, [n1.address]), archive: image.file, smoke: 'none', retries: '0' }, { lab }),
    afterFirstPart(async () => {
      await stop(n1, 'containerd');
      await start(n1, 'containerd');
    }),
  ]);
  expect(outcome.nodes[0]?.error).toMatchObject({
    code: 'RUNTIME_LOST',
    message: expect.stringMatching(/^the runtime went away during the import: /),
  });
});

it('gives up after as many retries as it may take, and says how often it tried', async () => {
  const image = await layered('2');
  await setRate(n1, '80mbit');
  try {
    const [outcome] = await Promise.all([
      push(
        { ...reach(lab, [n1.address]), archive: image.file, smoke: 'none', retries: '2', 'connect-timeout': '2s' },
        { lab },
      ),
      cutAfterFirstPart().then(() => stop(n1, 'sshd')),
    ]);
    expect(outcome.log).toMatch(/trying again in 1 s \(1 of 2\)[\s\S]*trying again in 2 s \(2 of 2\)/);
    expect(outcome.nodes[0]?.error?.code).toBe('SSH_UNREACHABLE');
    expect(outcome.code).toBe(1);
  } finally {
    await start(n1, 'sshd');
  }
  // What the run could not take away, the node does by itself.
  await vi.waitUntil(async () => (await leftOnNode(lab)).length === 0, { timeout: 150_000, interval: 1000 });
}, 240_000);

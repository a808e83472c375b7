import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, expect, inject, it } from 'vitest';
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

/** Compressed, each of the two lower layers is about 2 MB, and the upper one about 10 MB. */
function layered(tag: string) {
  const fillers = [4_000_000, 4_000_001, 20_000_000].map(fillBytes => ({ fillBytes, seed: tag }));
  return archive(directory, { reference: `docker.io/library/resumed:${tag}`, layers: fillers });
}

async function blobsOnNode(): Promise<number> {
  const { stdout } = await enter(n1, ['ctr', '-n', 'k8s.io', 'content', 'ls', '-q']);
  return stdout.trim().split('\n').length;
}

/** Ends the SSH sessions on the node as soon as it holds that many more blobs. */
async function cutAfter(blobs: number): Promise<void> {
  const before = await blobsOnNode();
  for (let attempt = 0; attempt < 600; attempt += 1) {
    if ((await blobsOnNode()) >= before + blobs) {
      await enter(n1, ['pkill', '-KILL', '-f', '^sshd.*: root@notty']);
      return;
    }
  }
  expect.unreachable('the layers should have arrived');
}

it('a retry sends no layer again that the node has received whole', async () => {
  const image = await layered('1');
  await setRate(n1, '16mbit');
  const [outcome] = await Promise.all([
    push({ ...reach(lab, [n1.address]), archive: image.file, smoke: 'none' }, { lab }),
    cutAfter(3),
  ]);
  expect(outcome.log).toMatch(/broke off.*trying again in 1 s \(1 of 3\)/);
  const [, held] = /connected again; needs \S+, and has (\d) of its 4 layers/.exec(outcome.log) ?? [];
  expect(Number(held)).toBeGreaterThanOrEqual(2);
  expect(outcome.nodes[0]?.images[0]?.outcome).toBe('sent');
  expect(outcome.code).toBe(0);
});

it('gives up after as many retries as it may take, and says how often it tried', async () => {
  const image = await layered('2');
  await setRate(n1, '16mbit');
  try {
    const [outcome] = await Promise.all([
      push(
        { ...reach(lab, [n1.address]), archive: image.file, smoke: 'none', retries: '2', 'connect-timeout': '2s' },
        { lab },
      ),
      cutAfter(1).then(() => stop(n1, 'sshd')),
    ]);
    expect(outcome.log).toMatch(/trying again in 1 s \(1 of 2\)[\s\S]*trying again in 2 s \(2 of 2\)/);
    expect(outcome.nodes[0]?.error?.code).toBe('SSH_UNREACHABLE');
    expect(outcome.code).toBe(1);
  } finally {
    await start(n1, 'sshd');
    // What the run could not clean up over SSH, the next one on this node does.
    await push({ ...reach(lab, [n1.address]), archive: image.file, smoke: 'none' }, { lab });
  }
});

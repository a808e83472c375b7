/** Nodes whose own files were written to stop whoever reads them. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, describe, expect, inject, it } from 'vitest';
import { archive } from '../engines.ts';
import { enterMust } from '../lab/index.ts';
import { leftOnNode, nodeNamed, plan, push, reach } from '../shipped.ts';

const lab = inject('lab');
const n1 = nodeNamed(lab, 'n1');
const KUBELET = '/var/lib/kubelet/config.yaml';
/** What took minutes, and a job is given here for all that it does. */
const TIMEOUT_MS = 90_000;
const directory = mkdtempSync(join(tmpdir(), 'kube-sideload-parsers-'));
afterAll(() => rmSync(directory, { recursive: true, force: true }));

afterEach(async () => {
  expect(await leftOnNode(lab)).toEqual([]);
});

describe('a node whose kubelet’s configuration nobody can read in time', () => {
  const own = enterMust(n1, ['cat', KUBELET]);
  const write = (text: string) => enterMust(n1, ['sh', '-c', `printf '%s' "$1" >${KUBELET}`, 'sh', text]);
  afterEach(async () => {
    await write(await own);
  });

  it('gets the image as if it said nothing, as its kubelet would not start with it', async () => {
    await own;
    const { file } = await archive(directory, { reference: 'docker.io/library/parsed:1' });
    await write('? '.repeat(600));
    const outcome = await push(
      { ...reach(lab, [`${n1.address}=${n1.name}`]), archive: file },
      { lab, timeoutMs: TIMEOUT_MS },
    );
    expect(outcome.log).not.toContain('INTERNAL');
    expect(outcome.code).toBe(0);
  });

  it.each([
    ['that opens brackets and nothing else', '{'.repeat(3000)],
    ['of forty thousand keys', Array.from({ length: 40_000 }, (_, key) => `k${key}:`).join('\n')],
  ])('%s: is planned for like any other', async (_what, text) => {
    await own;
    const { file } = await archive(directory, { reference: 'docker.io/library/parsed:2' });
    await enterMust(n1, ['sh', '-c', `head -c 0 >${KUBELET}`]);
    for (let offset = 0; offset < text.length; offset += 100_000) {
      await enterMust(n1, ['sh', '-c', `printf '%s' "$1" >>${KUBELET}`, 'sh', text.slice(offset, offset + 100_000)]);
    }
    const outcome = await plan(
      { ...reach(lab, [`${n1.address}=${n1.name}`]), archive: file },
      { lab, timeoutMs: TIMEOUT_MS },
    );
    expect(outcome.log).not.toContain('INTERNAL');
    expect(outcome.code).toBe(0);
  });
});

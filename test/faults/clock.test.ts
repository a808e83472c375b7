/** Locks between nodes whose clocks differ by years; what of a node is shifted, and what not, is in test/lab/clock.ts. */
import { createHash } from 'node:crypto';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, inject, it } from 'vitest';
import { criImageId } from '../cluster/kubernetes.ts';
import { enterMust, type Image, type LabNode, makeImage, setClock } from '../lab/index.ts';
import { type Inputs, leftOnNode, push, reach, runAction, runPost } from '../shipped.ts';

const lab = inject('lab');
/** By node: 20 years ahead, right, 5 years behind. */
const YEARS = [20, 0, -5];
const REFERENCE = 'docker.io/library/timely:1';
const LOCK = `/run/kube-sideload/${createHash('sha256').update(REFERENCE).digest('hex')}`;
const directory = mkdtempSync(join(tmpdir(), 'kube-sideload-clock-'));

beforeAll(() => setClocks(YEARS));
afterAll(async () => {
  await setClocks([]);
  rmSync(directory, { recursive: true, force: true });
});

async function setClocks(years: readonly number[]): Promise<void> {
  await Promise.all(lab.nodes.map((node, index) => setClock(node, years[index] ?? 0)));
}

/** Its program ends well after four seconds, for which smoke pods wait. */
function image(name: string): Promise<Image> {
  return makeImage({
    file: join(directory, `${name}.tar`),
    reference: REFERENCE,
    dockerManifest: true,
    layers: [{ files: { 'etc/release': `timely ${name}` } }],
    command: ['/bin/sh', '-c', 'sleep 4'],
  });
}

function inputs({ file }: Image, more: Inputs = {}, nodes: readonly LabNode[] = lab.nodes): Inputs {
  const addresses = nodes.map(({ address, name }) => `${address}=${name}`);
  return { ...reach(lab, addresses), archive: file, 'smoke-expect': 'completed', ...more };
}

function ids(): Promise<readonly string[]> {
  return Promise.all(lab.nodes.map(node => criImageId(lab, node, REFERENCE)));
}

it('two jobs take turns', async () => {
  const [first, second] = [await image('first'), await image('second')];
  const both = await Promise.all([push(inputs(first), { lab }), push(inputs(second), { lab })]);
  for (const { code, log } of both) expect(code, log).toBe(0);
  const waited = both.map(({ log }) => /waiting for run \S+, which has locked/.test(log));
  expect(waited.toSorted()).toEqual([false, true]);
  const last = waited[0] === true ? first : second;
  expect(await ids()).toEqual(lab.nodes.map(() => last.id));
  expect(await leftOnNode(lab)).toEqual([]);
});

it('the locks of a killed job count, also when the clocks are set right, until they run out', async () => {
  const [old, lost, next] = [await image('old'), await image('lost'), await image('next')];
  const placed = await push(inputs(old), { lab });
  expect(placed.code, placed.log).toBe(0);
  const job = await runAction(inputs(lost), {
    lab,
    onLine: (line, pid) => {
      if (line === '::group::Start smoke pods') process.kill(pid, 'SIGKILL');
    },
  });
  expect(job.signal).toBe('SIGKILL');
  const year = new Date().getUTCFullYear();
  for (const clocks of [YEARS, []]) {
    await setClocks(clocks);
    for (const [index, node] of lab.nodes.entries()) {
      const { nodes, log } = await push(inputs(next, { 'lock-timeout': '1s' }, [node]), { lab });
      expect(nodes[0]?.error?.code, log).toBe('NODE_LOCKED');
      // The year is the proof that the node's clock was off: the date of the lock is the only time that a script asks for.
      const since = /since (\d+)-/.exec(nodes[0]?.error?.message ?? '')?.[1];
      expect(Math.abs(Number(since) - year - (YEARS[index] ?? 0)), log).toBeLessThanOrEqual(1); // New Year may be near
    }
  }
  await setClocks(YEARS);
  const runOut = `ln -sfn "${job.state.run}:1700000000:1:${REFERENCE}" ${LOCK}`;
  for (const node of lab.nodes) await enterMust(node, ['sh', '-c', runOut]);
  const after = await push(inputs(next), { lab });
  expect(after.code, after.log).toBe(0);
  expect(after.log).toContain(`${REFERENCE} is again ${old.id}: run ${job.state.run} has ended without a verdict`);
  expect(await ids()).toEqual(lab.nodes.map(() => next.id));
  expect((await runPost(job, inputs(lost), { lab })).log).not.toContain('::warning');
  expect(await ids()).toEqual(lab.nodes.map(() => next.id));
  expect(await leftOnNode(lab)).toEqual([]);
});

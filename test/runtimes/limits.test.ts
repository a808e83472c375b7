import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { afterAll, expect, inject, it, onTestFinished } from 'vitest';
import { enter, type LabNode, makeImage } from '../lab/index.ts';
import { type Inputs, leftOnNode, plan, push, reach } from '../shipped.ts';
import { replaceProgram } from './replace-program.ts';

const lab = inject('lab');
const [moving, importing, well] = ['containerd', 'containerd-1.7', 'crio'].map(kind => {
  const node = lab.nodes.find(one => one.kind === kind);
  if (node === undefined) throw new Error(`the lab has no ${kind}`);
  return node;
}) as [LabNode, LabNode, LabNode];

const directory = mkdtempSync(join(tmpdir(), 'kube-sideload-limits-'));
afterAll(() => rmSync(directory, { recursive: true, force: true }));

/** A sleep that is known by its length, and goes with the test. */
const HANG = 'sleep 3333';
const endHanging = (node: LabNode) => enter(node, ['sh', '-c', `pkill -x -f '${HANG}'; true`]);

function inputs(nodes: readonly LabNode[], more: Inputs): Inputs {
  const { kubeconfig: _none, ...own } = reach(
    lab,
    nodes.map(({ address, name }) => `${address}=${name}`),
  );
  return { ...own, smoke: 'none', ...more };
}

/** Has a client program hang for what the pattern matches. */
async function hang(node: LabNode, program: string, pattern: string): Promise<() => Promise<void>> {
  const undo = await replaceProgram(node, program, pattern, `exec ${HANG}`);
  const end = async () => {
    await undo();
    await endHanging(node);
  };
  onTestFinished(end);
  return end;
}

/** Minutes are seconds, except for the nodes: a login gets its time. */
const FAST = {
  env: {
    NODE_OPTIONS: `--require ${resolve(import.meta.dirname, '../bundle/preload/fast-clock.cjs')}`,
    FAST_CLOCK: '10',
  },
};

it('a node whose login shell hangs is told within `connect-timeout`, and what the others said is kept', async () => {
  const archive = (
    await makeImage({
      file: join(directory, 'one.tar'),
      reference: 'docker.io/library/hangs:1',
      layers: [{ files: { a: 'a' } }],
    })
  ).file;
  await enter(moving, ['sh', '-c', `echo '${HANG}' >/root/.bashrc`]);
  onTestFinished(async () => {
    await enter(moving, ['rm', '/root/.bashrc']);
    await endHanging(moving);
  });
  const outcome = await plan(inputs([moving, well], { archive, 'connect-timeout': '3s' }), { lab });
  expect(outcome.log).toMatch(/the login of \w+ came through, but its shell has run no command within 3 s/);
  expect(outcome.nodes).toMatchObject([
    { node: moving.name, error: { code: 'NODE_SILENT' } },
    { node: well.name, images: [{ outcome: 'none' }] },
  ]);
  expect(outcome.nodes[1]?.error).toBeUndefined();
});

it('what hangs on a node ends in time, its locks are let go, and the others get back what they had', async () => {
  const image = (name: string) =>
    makeImage({
      file: join(directory, `${name}.tar`),
      reference: `docker.io/library/${name}:1`,
      layers: [{ files: { 'etc/release': name } }],
    });
  const [tagged, imported] = await Promise.all([image('hangs-when-moved'), image('hangs-when-imported')]);
  // What was staged can't be removed either: that holds nobody's locks up.
  const undo = await hang(moving, 'ctr', '*images\\ tag*|*images\\ rm*');
  await hang(importing, 'ctr', '*images\\ import\\ *-');
  const job = (nodes: readonly LabNode[], archive: string) =>
    push(inputs(nodes, { archive, 'connect-timeout': '5m' }), { lab, ...FAST });
  const [moved, sent] = await Promise.all([job([moving, well], tagged.file), job([importing], imported.file)]);

  expect(moved.nodes, moved.log).toMatchObject([
    { node: moving.name, error: { code: 'NODE_SILENT' } },
    { node: well.name, images: [{ outcome: 'restored' }] },
  ]);
  expect(moved.nodes[1]?.error).toBeUndefined();
  expect(moved.log).toMatch(new RegExp(`waiting for ${moving.name}: keeping what is there, 1\\d s`));
  expect(moved.log).toContain('keeping what is there: not done within 5 min 0 s');

  expect(sent.nodes, sent.log).toMatchObject([{ error: { code: 'NODE_SILENT' } }]);
  expect(sent.log).toMatch(/importing \S+hangs-when-imported:1: no progress for 5 min \d s/);

  const left = await leftOnNode(lab);
  expect(left.filter(line => !line.startsWith(`${moving.name}: kube-sideload.invalid/`))).toEqual([]);
  await undo();
  const names = "ctr -n k8s.io images ls -q | grep '^kube-sideload'";
  await enter(moving, ['sh', '-c', `${names} | xargs -r ctr -n k8s.io images rm --sync`]);
  expect(await leftOnNode(lab)).toEqual([]);
});

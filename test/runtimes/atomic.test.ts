import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, inject, it } from 'vitest';
import { archive, build, onRunner } from '../engines.ts';
import { enter, type LabNode } from '../lab/index.ts';
import { crictl, type Inputs, leftOnNode, listedOn, reach, referencesOn, runAction, runPost } from '../shipped.ts';
import { replaceProgram } from './replace-program.ts';

const lab = inject('lab');
const directory = mkdtempSync(join(tmpdir(), 'kube-sideload-atomic-'));
const kinds = ['containerd', 'containerd-1.7', 'crio', 'docker'];
const nodes = lab.nodes.filter(({ kind }) => kinds.includes(kind));

const OLD = 'docker.io/library/atomic:1';
const NEW = 'docker.io/library/atomic:new';

/** One reference that every node has, and one that none has. */
function inputs(more: Inputs = {}): Inputs {
  const { kubeconfig: _none, ...own } = reach(
    lab,
    nodes.map(({ address, name }) => `${address}=${name}`),
  );
  return { ...own, images: OLD, source: 'docker', smoke: 'none', ...more };
}

async function idOn(node: LabNode, reference: string): Promise<string | undefined> {
  if (!(await referencesOn(lab, node.name)).includes(reference)) return undefined;
  const { status } = JSON.parse(await crictl(lab, node, ['inspecti', '-o', 'json', reference])) as {
    status: { id: string };
  };
  return `sha256:${status.id.replace('sha256:', '')}`;
}

/** What the nodes hold of both references. */
async function state(): Promise<readonly (readonly (string | undefined)[])[]> {
  return await Promise.all(nodes.map(async node => [await idOn(node, OLD), await idOn(node, NEW)]));
}

/** Builds an image under the name and puts it on all nodes. */
async function release(seed: string): Promise<string> {
  build(lab, 'docker', 'atomic:1', seed);
  const outcome = await runAction(inputs(), { lab });
  expect(outcome.code, outcome.log).toBe(0);
  return onRunner(lab, 'docker', ['image', 'inspect', '--format', '{{.Id}}', 'atomic:1']);
}

async function removeNew(): Promise<void> {
  for (const node of nodes) {
    const isThere = (await idOn(node, NEW)) !== undefined;
    // cri-dockerd would take another name of the image.
    if (isThere && node.runtime === 'docker') await enter(node, ['docker', 'image', 'rm', NEW]);
    else if (isThere) await crictl(lab, node, ['rmi', NEW]);
  }
}

/** A client program that refuses to move the names of these tests, and is the real one otherwise. */
function refuseToTag(node: LabNode): Promise<() => Promise<unknown>> {
  const program = { containerd: 'ctr', crio: 'podman', docker: 'docker' }[node.runtime];
  return replaceProgram(node, program, '*tag*:0\\ *atomic:new', "echo 'no, says the test' >&2; exit 1");
}

const CRASHES = ['/bin/sh', '-c', 'exit 3'];

beforeAll(removeNew);
afterAll(() => rmSync(directory, { recursive: true, force: true }));
afterEach(async () => {
  await removeNew();
  expect(await leftOnNode(lab)).toEqual([]);
});

describe('all nodes or none', () => {
  it('puts back what every node had when a smoke test fails: old content, and no name that was not there', async () => {
    const old = await release('first');
    build(lab, 'docker', 'atomic:1', 'second', CRASHES);
    const outcome = await runAction(inputs({ aliases: NEW, smoke: 'cri' }), { lab });
    expect(
      outcome.nodes.map(node => node.error?.code),
      outcome.log,
    ).toEqual(nodes.map(() => 'SMOKE_CRASHED'));
    expect(outcome.nodes.map(node => node.images.map(image => image.outcome))).toEqual(
      nodes.map(() => ['restored', 'restored']),
    );
    expect(await state()).toEqual(nodes.map(() => [old, undefined]));
    expect(outcome.outputs.changed).toBe('false');
    expect(outcome.log).toContain(`${OLD} is again ${old}`);
    expect(outcome.log).toContain(`${NEW} is gone again, as before`);
  });

  it.for(nodes.map(({ kind }) => kind))(
    'does so on all nodes when names cannot be moved on one (%s)',
    async (kind, { expect }) => {
      const old = await release(`before ${kind}`);
      build(lab, 'docker', 'atomic:1', `after ${kind}`);
      const last = nodes.find(node => node.kind === kind) ?? expect.unreachable();
      const undo = await refuseToTag(last);
      try {
        const outcome = await runAction(inputs({ aliases: NEW }), { lab });
        expect(outcome.nodes.map(node => node.error?.code)).toEqual(
          nodes.map(node => (node === last ? 'REMOTE_COMMAND_FAILED' : undefined)),
        );
        expect(outcome.log).toContain('no, says the test');
        expect(outcome.code).toBe(1);
      } finally {
        await undo();
      }
      expect(await state()).toEqual(nodes.map(() => [old, undefined]));
    },
  );

  it('leaves the nodes that are fine as they are with `atomic: false`', async () => {
    const old = await release('kept');
    build(lab, 'docker', 'atomic:1', 'changed');
    const [last = expect.unreachable()] = nodes.slice(-1);
    const undo = await refuseToTag(last);
    try {
      const outcome = await runAction(inputs({ aliases: NEW, atomic: 'false' }), { lab });
      expect(outcome.nodes.flatMap(node => node.images.map(image => image.outcome))).not.toContain('restored');
      expect(outcome.nodes.map(node => node.error?.code)).toEqual(
        nodes.map(node => (node === last ? 'REMOTE_COMMAND_FAILED' : undefined)),
      );
      expect(outcome.code).toBe(1);
    } finally {
      await undo();
    }
    const fine = (await state()).slice(0, -1);
    expect(fine.flat()).not.toContain(old);
    expect(fine.flat()).not.toContain(undefined);
  });

  it('says which name it cannot put back: one that is too long to be kept', async () => {
    const long = `registry.example/${'long/'.repeat(45)}atomic:1`;
    const [node = expect.unreachable()] = nodes;
    const old = await release('before the long one');
    build(lab, 'docker', 'atomic:1', 'under a long name', CRASHES);
    const onOne = inputs({ nodes: `${node.address}=${node.name}`, aliases: long, smoke: 'cri' });
    const outcome = await runAction(onOne, { lab });
    expect(outcome.nodes[0]?.images.map(image => image.error?.code)).toContain('RESTORE_FAILED');
    expect(outcome.log).toContain(`${long} still names the new image, or none: its name is too long to be kept`);
    expect(outcome.code).toBe(1);
    expect(await idOn(node, OLD)).toBe(old);
    await crictl(lab, node, ['rmi', long]);
  });

  it('is kept by the post step when the job was killed with the references moved', async () => {
    const old = await release('before the kill');
    build(lab, 'docker', 'atomic:1', 'killed');
    const killed = inputs({ aliases: NEW, smoke: 'cri' });
    const outcome = await runAction(killed, {
      lab,
      onLine: (line, pid) => {
        if (line === '::group::Start smoke pods') process.kill(pid, 'SIGKILL');
      },
    });
    expect(outcome.signal).toBe('SIGKILL');
    expect((await state()).flat()).not.toContain(old);
    const post = await runPost(outcome, killed, { lab });
    expect(post.log).not.toContain('::warning');
    expect(post.log).toContain(`${OLD} is again ${old}`);
    expect(await state()).toEqual(nodes.map(() => [old, undefined]));
  });

  it('is not what the post step makes of a job that had come to its end', async () => {
    const old = await release('before the end');
    build(lab, 'docker', 'atomic:1', 'ended');
    const killed = inputs({ smoke: 'cri' });
    const outcome = await runAction(killed, {
      lab,
      onLine: (line, pid) => {
        if (line === '::group::Start smoke pods') process.kill(pid, 'SIGKILL');
      },
    });
    const moved = await state();
    // As if it had been killed a moment later, while it took away what it had kept.
    const ended = { ...outcome, state: { ...outcome.state, settled: 'true' } };
    const post = await runPost(ended, killed, { lab });
    expect(post.log).not.toContain('::warning');
    expect(moved.flat()).not.toContain(old);
    expect(await state()).toEqual(moved);
  });

  it('is kept when the job is cancelled with the references moved', async () => {
    const old = await release('before the cancellation');
    build(lab, 'docker', 'atomic:1', 'cancelled');
    const outcome = await runAction(inputs({ aliases: NEW, smoke: 'cri' }), {
      lab,
      onLine: (line, pid) => {
        if (line === '::group::Start smoke pods') process.kill(pid, 'SIGTERM');
      },
    });
    expect(outcome.log).toContain('CANCELLED');
    expect(await state()).toEqual(nodes.map(() => [old, undefined]));
  });
});

describe('after a failed gate `crictl images` lists exactly what it listed before', () => {
  it.for([
    ['the runtime', { smoke: 'cri' }],
    ['the kubelet', { smoke: 'pod', kubeconfig: lab.kubeconfig ?? '', 'smoke-timeout': '60s' }],
  ] as const)('of %s, for a name that is new and for one that moves', async ([gate, how], { expect }) => {
    await release(`listed before ${gate}`);
    const before = await listedOn(lab, nodes);
    build(lab, 'docker', 'atomic:1', `refused by ${gate}`, CRASHES);
    const outcome = await runAction(inputs({ aliases: NEW, ...how }), { lab });
    expect(
      outcome.nodes.map(node => node.error?.code),
      outcome.log,
    ).toEqual(nodes.map(() => 'SMOKE_CRASHED'));
    expect(await listedOn(lab, nodes), outcome.log).toEqual(before);
    expect(outcome.log).not.toContain('stays without a name');
  });

  it('without the names of parts, under which a large image arrives', async () => {
    const layers = [40_000_000, 40_000_001, 200_000].map(fillBytes => ({ fillBytes, seed: 'noise' }));
    const image = await archive(directory, { reference: NEW, layers, dockerManifest: true, command: CRASHES });
    const before = await listedOn(lab, nodes);
    const { source: _none, ...own } = inputs({ archive: image.file, smoke: 'cri' });
    const outcome = await runAction({ ...own, images: NEW }, { lab });
    expect(outcome.nodes.map(node => node.error?.code)).toEqual(nodes.map(() => 'SMOKE_CRASHED'));
    expect(await listedOn(lab, nodes), outcome.log).toEqual(before);
  });
});

describe('a node is believed no word of its client', () => {
  const lies: readonly (readonly [what: string, words: string, code: string, said: string])[] = [
    [
      'that it has imported an image',
      'cat >/dev/null; exit 0',
      'VERIFY_FAILED',
      'after the import: the runtime does not',
    ],
    [
      'and its refusal is an error',
      'cat >/dev/null; echo no, says the test >&2; exit 3',
      'IMPORT_FAILED',
      'exit code 3',
    ],
  ];
  it.for(lies)('%s', async ([, words, code, said], { expect }) => {
    const old = await release('before the lie');
    build(lab, 'docker', 'atomic:1', code);
    const [liar = expect.unreachable()] = nodes;
    const undo = await replaceProgram(liar, 'ctr', '*images\\ import*', words);
    try {
      const outcome = await runAction(inputs(), { lab });
      expect(outcome.nodes.map(node => node.error?.code)).toEqual(
        nodes.map(node => (node === liar ? code : undefined)),
      );
      expect(outcome.nodes[0]?.error?.message).toContain(said);
      expect(outcome.nodes.flatMap(node => node.images.map(image => image.outcome))).toEqual(nodes.map(() => 'none'));
    } finally {
      await undo();
    }
    expect(await state()).toEqual(nodes.map(() => [old, undefined]));
  });

  it.for(nodes.map(({ kind }) => kind))('when its CRI does not know the image (%s)', async (kind, { expect }) => {
    const old = await release(`known to ${kind}`);
    build(lab, 'docker', 'atomic:1', `unknown to ${kind}`);
    const blind = nodes.find(node => node.kind === kind) ?? expect.unreachable();
    const undo = await replaceProgram(blind, 'crictl', '*inspecti*', 'echo no such image >&2; exit 1');
    try {
      const outcome = await runAction(inputs(), { lab });
      expect(outcome.nodes.map(node => node.error?.code)).toEqual(
        nodes.map(node => (node === blind ? 'VERIFY_FAILED' : undefined)),
      );
    } finally {
      await undo();
    }
    expect(await state()).toEqual(nodes.map(() => [old, undefined]));
  });
});

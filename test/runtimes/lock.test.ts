import { createHash } from 'node:crypto';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, inject, it } from 'vitest';
import { enter, type Image, makeImage } from '../lab/index.ts';
import { crictl, type Inputs, leftOnNode, push, reach, runAction, runPost } from '../shipped.ts';

const lab = inject('lab');
const nodes = ['containerd', 'crio'].map(kind => {
  const node = lab.nodes.find(one => one.kind === kind);
  if (node === undefined) throw new Error(`the lab has no ${kind}`);
  return node;
});
const addresses = nodes.map(({ address, name }) => `${address}=${name}`);

const REFERENCE = 'docker.io/library/locked:1';
const ALIAS = 'docker.io/library/locked:also';
const LOCK = `/run/kube-sideload/${createHash('sha256').update(REFERENCE).digest('hex')}`;
const SMOKING = /^(::group::)?Start smoke pods$/;

const directory = mkdtempSync(join(tmpdir(), 'kube-sideload-lock-'));
afterAll(() => rmSync(directory, { recursive: true, force: true }));

/** By default its program ends well after a while, for which the smoke pods of these tests wait. */
function image(name: string, command = ['/bin/sh', '-c', 'sleep 4']): Promise<Image> {
  return makeImage({
    file: join(directory, `${name}.tar`),
    reference: REFERENCE,
    layers: [{ files: { 'etc/release': `locked ${name}` } }],
    command,
  });
}

function inputs({ file }: Image, more: Inputs = {}): Inputs {
  return { ...reach(lab, addresses), archive: file, 'smoke-expect': 'completed', ...more };
}

/** Puts an image on the nodes without asking whether it runs. */
async function place(one: Image): Promise<void> {
  const outcome = await push(inputs(one, { smoke: 'none' }), { lab });
  expect(outcome.code, outcome.log).toBe(0);
}

/** What the nodes' CRI has under a name. */
async function idsOf(reference: string): Promise<readonly string[]> {
  const answers = await Promise.all(nodes.map(node => crictl(lab, node, ['inspecti', '-o', 'json', reference])));
  return answers.map(answer => {
    const { status } = JSON.parse(answer) as { status: { id: string } };
    return `sha256:${status.id.replace('sha256:', '')}`;
  });
}

/** Locks the reference on the first node, as another run would have. */
async function lockFirst(secondsLeft: number): Promise<void> {
  const [node = expect.unreachable()] = nodes;
  const words = `read -r up rest </proc/uptime; mkdir -p /run/kube-sideload; ln -sf "other1:1700000000:$((\${up%.*} + ${secondsLeft})):${REFERENCE}" ${LOCK}`;
  await enter(node, ['sh', '-c', words]);
}

async function unlockAll(): Promise<void> {
  for (const node of nodes) await enter(node, ['rm', '-rf', '/run/kube-sideload']);
}

/** A job that was stopped where its smoke pods begin. */
async function killed(one: Image) {
  const outcome = await runAction(inputs(one), {
    lab,
    onLine: (line, pid) => {
      if (SMOKING.test(line)) process.kill(pid, 'SIGKILL');
    },
  });
  expect(outcome.signal).toBe('SIGKILL');
  return outcome;
}

let old: Image;
let first: Image;
let second: Image;
let broken: Image;

beforeAll(async () => {
  await unlockAll();
  old = await image('old');
  first = await image('first');
  second = await image('second');
  broken = await image('broken', ['/bin/sh', '-c', 'sleep 4; exit 3']);
});
afterEach(async () => {
  expect(await leftOnNode(lab)).toEqual([]);
});

describe('two jobs with the same references', () => {
  it('take turns on all nodes, and both verdicts are true', async () => {
    await place(old);
    const both = await Promise.all([
      push(inputs(first, { aliases: ALIAS }), { lab }),
      push(inputs(second, { aliases: ALIAS, nodes: addresses.toReversed().join('\n'), 'ssh-user': 'deploy' }), { lab }),
    ]);
    for (const { code, log } of both) expect(code, log).toBe(0);
    const waited = both.map(({ log }) => /waiting for run \S+, which has locked/.test(log));
    expect(waited.toSorted()).toEqual([false, true]);
    const last = waited[0] === true ? first : second;
    expect(await idsOf(REFERENCE)).toEqual(nodes.map(() => last.id));
    expect(await idsOf(ALIAS)).toEqual(nodes.map(() => last.id));
  });

  it.for([
    ['the first', () => [broken, first] as const],
    ['the second', () => [first, broken] as const],
  ] as const)('leave what ran when %s one fails', async ([, jobs], { expect }) => {
    await place(old);
    const [one, other] = jobs();
    let started: ReturnType<typeof push> | undefined;
    const outcomes = [
      await push(inputs(one), {
        lab,
        onLine: line => {
          if (SMOKING.test(line)) started = push(inputs(other), { lab });
        },
      }),
      await (started ?? expect.unreachable()),
    ];
    expect(outcomes[1]?.log).toContain('waiting for run');
    expect(outcomes[1]?.log).not.toContain('has ended without a verdict');
    expect(outcomes.map(({ nodes: reports }) => reports.map(({ error }) => error?.code))).toEqual(
      [one, other].map(job => nodes.map(() => (job === broken ? 'SMOKE_CRASHED' : undefined))),
    );
    expect(await idsOf(REFERENCE)).toEqual(nodes.map(() => first.id));
  });

  it('send again what the one had found there and the other has moved', async () => {
    await place(second);
    await place(first);
    await lockFirst(60);
    const outcome = await push(inputs(first), {
      lab,
      onLine: line => {
        if (!line.includes('waiting for run other1')) return;
        void (async () => {
          const [node = expect.unreachable()] = nodes;
          // The other job's image is on the node under its last name.
          await enter(node, ['ctr', '-n', 'k8s.io', 'images', 'rm', REFERENCE]);
          await unlockAll();
        })();
      },
    });
    expect(outcome.code, outcome.log).toBe(0);
    expect(outcome.log).toContain(`another job has moved ${REFERENCE} meanwhile`);
    expect(outcome.nodes.map(({ images }) => images.map(({ outcome: what }) => what))).toEqual([['sent'], ['present']]);
    expect(await idsOf(REFERENCE)).toEqual(nodes.map(() => first.id));
  });
});

describe('a lock', () => {
  it('is waited for as long as the user says, and then named', async () => {
    await place(old);
    await lockFirst(100);
    try {
      const outcome = await push(inputs(first, { 'lock-timeout': '2s' }), { lab });
      expect(outcome.code).toBe(1);
      const [one = expect.unreachable(), two] = outcome.nodes;
      expect(one.error?.code).toBe('NODE_LOCKED');
      expect(one.error?.message).toContain(`run other1 has locked ${REFERENCE} since 2023-11-14T22:13:20.000Z`);
      expect(one.error?.hint).toContain('`lock-timeout`');
      expect(two?.error).toBeUndefined();
      // Not even moved and put back.
      expect(outcome.nodes.flatMap(({ images }) => images.map(({ outcome: what }) => what))).toEqual(['none', 'none']);
      expect(outcome.outputs.changed).toBe('false');
    } finally {
      await unlockAll();
    }
    expect(await idsOf(REFERENCE)).toEqual(nodes.map(() => old.id));
  });

  it('is renewed while the job lives', async () => {
    const long = await image('long', ['/bin/sh', '-c', 'sleep 38']);
    const [node = expect.unreachable()] = nodes;
    const read = async () => (await enter(node, ['readlink', LOCK])).stdout.split(':').map(Number);
    let begun: Promise<readonly number[]> | undefined;
    const job = push(inputs(long), {
      lab,
      onLine: line => {
        if (SMOKING.test(line)) begun = read();
      },
    });
    await expect.poll(() => begun, { timeout: 60_000 }).toBeDefined();
    const [, since = 0, expires = 0] = (await begun) ?? [];
    await expect.poll(async () => (await read())[2], { timeout: 35_000, interval: 1000 }).toBeGreaterThan(expires + 20);
    expect((await read())[1]).toBe(since);
    const { code, log } = await job;
    expect(code, log).toBe(0);
  });

  it('goes with the post step when the job was killed', async () => {
    await place(old);
    const job = await killed(first);
    for (const node of nodes) {
      const { stdout } = await enter(node, ['readlink', LOCK]);
      expect(stdout, node.kind).toMatch(new RegExp(`^${job.state.run}:\\d+:\\d+:${REFERENCE}$`, 'm'));
    }
    const post = await runPost(job, inputs(first), { lab });
    expect(post.log).not.toContain('::warning');
    expect(await idsOf(REFERENCE)).toEqual(nodes.map(() => old.id));
  });

  it('runs out, and the next job first puts back what the killed one has left without a verdict', async () => {
    await place(old);
    const job = await killed(first);
    expect(await idsOf(REFERENCE)).toEqual(nodes.map(() => first.id));
    const past = `ln -sfn "${job.state.run} 1700000000 1 ${REFERENCE}" ${LOCK}`;
    for (const node of nodes) await enter(node, ['sh', '-c', past]);
    const next = await push(inputs(broken), { lab });
    expect(next.nodes.map(({ error }) => error?.code)).toEqual(nodes.map(() => 'SMOKE_CRASHED'));
    expect(next.log).toContain(`${REFERENCE} is again ${old.id}: run ${job.state.run} has ended without a verdict`);
    expect(await idsOf(REFERENCE)).toEqual(nodes.map(() => old.id));
    // What is left of the killed job lies in the cluster alone.
    expect((await runPost(job, inputs(first), { lab })).log).not.toContain('::warning');
    expect(await idsOf(REFERENCE)).toEqual(nodes.map(() => old.id));
  });

  it('that another job has taken over is not used to put anything back', async () => {
    await place(old);
    const outcome = await push(inputs(broken), {
      lab,
      onLine: line => {
        if (SMOKING.test(line)) void lockFirst(100);
      },
    });
    try {
      const [one, two] = outcome.nodes;
      expect(outcome.log).toContain('run other1 has locked it since');
      expect(one?.images.map(({ outcome: what }) => what)).toEqual(['sent']);
      expect(two?.images.map(({ outcome: what }) => what)).toEqual(['restored']);
      expect(await idsOf(REFERENCE)).toEqual([broken.id, old.id]);
    } finally {
      await unlockAll();
      await place(old);
    }
  });

  it('that has run out, and that another job has by the time of the verdict, makes it a failure', async () => {
    await place(old);
    const late = join(directory, 'late');
    const clock = join(directory, 'clock.mjs');
    // Nothing is renewed, since no time passes that a timer would notice.
    writeFileSync(
      clock,
      `import { existsSync } from 'node:fs';
      const now = Date.now;
      Date.now = () => now() + (existsSync(${JSON.stringify(late)}) ? 200_000 : 0);\n`,
    );
    const outcome = await push(inputs(first), {
      lab,
      env: { NODE_OPTIONS: `--import=${clock}` },
      onLine: line => {
        if (SMOKING.test(line)) void lockFirst(100).then(() => writeFileSync(late, ''));
      },
    });
    try {
      expect(outcome.code, outcome.log).toBe(1);
      expect(outcome.nodes.map(({ error }) => error?.code)).toEqual(['NODE_LOCKED', undefined]);
      expect(outcome.log).toContain('had run out: the node could not be asked for too long');
    } finally {
      rmSync(late, { force: true });
      await unlockAll();
      await place(old);
    }
  });

  it('is not made by a user who may only load images, and the log says so', async () => {
    const node = lab.nodes.find(({ kind }) => kind === 'rhcos-layout') ?? expect.unreachable();
    const { kubeconfig: _none, ...own } = reach(lab, [`loader@${node.address}=${node.name}`]);
    const outcome = await push({ ...own, archive: first.file, smoke: 'none' }, { lab });
    expect(outcome.code, outcome.log).toBe(0);
    expect(outcome.log.match(/no lock, which the user may not make/g)).toHaveLength(1);
  });
});

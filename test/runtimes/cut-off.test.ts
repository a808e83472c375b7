import { createHash } from 'node:crypto';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, inject, it } from 'vitest';
import { archive } from '../engines.ts';
import { until } from '../lab/command.ts';
import { enter, enterMust, type LabNode, powerOff, powerOn, setRate, start, stop } from '../lab/index.ts';
import { crictl, type Inputs, leftOnNode, type Outcome, push, reach, referencesOn } from '../shipped.ts';

const lab = inject('lab');
const nodes = lab.nodes.filter(({ kind }) => ['containerd', 'containerd-1.7', 'containerd-1.6'].includes(kind));
const [newest = expect.unreachable()] = nodes;
const directory = mkdtempSync(join(tmpdir(), 'kube-sideload-cut-off-'));

/** What somebody else has there: a lease like those of imports, and what has arrived of a blob. */
const WHOLE = 'partother';
const DIGEST = `sha256:${createHash('sha256').update(WHOLE).digest('hex')}`;
const INGEST = `ctr -n k8s.io content ingest --expected-size ${WHOLE.length} --expected-digest ${DIGEST} others`;
const OTHERS = `ctr -n k8s.io leases create
printf part | ${INGEST}`;
/** ctr ends no ingest but by its end; it goes on with one from a file alone. */
const OTHERS_AWAY = `printf ${WHOLE} >/run/others; ${INGEST} </run/others; ctr -n k8s.io content rm ${DIGEST}; rm /run/others
ctr -n k8s.io leases delete --sync $(ctr -n k8s.io leases ls -q)`;
/** Blobs with their sizes, as there must be afterwards what was there before. */
const CONTENT = `ctr -n k8s.io leases delete --sync "$(ctr -n k8s.io leases create)" >/dev/null; ctr -n k8s.io content ls | sed 1d | awk '{ print $1, $2 }' | sort`;

/** As nothing of it stays, every job may send it. */
let image: string;
let left: readonly string[];
let content: readonly string[];

function contentOnNodes(): Promise<readonly string[]> {
  return Promise.all(nodes.map(node => enterMust(node, ['sh', '-c', CONTENT])));
}

beforeAll(async () => {
  for (const node of nodes) await enter(node, ['sh', '-c', OTHERS]);
  const layers = [{ fillBytes: 2_000_000 }, { fillBytes: 40_000_000, seed: 'cut off' }];
  image = (await archive(directory, { reference: 'docker.io/library/cut:1', layers })).file;
  left = await leftOnNode(lab);
  content = await contentOnNodes();
  expect(left.filter(line => /: (lease|ingest) /.test(line))).toHaveLength(2 * nodes.length);
});
afterEach(async () => {
  for (const node of nodes) await setRate(node, undefined);
});
afterAll(async () => {
  for (const node of nodes) await enter(node, ['sh', '-c', OTHERS_AWAY]);
  expect(await leftOnNode(lab)).toEqual([]);
  rmSync(directory, { recursive: true, force: true });
});

/** Pushes over slow links, and does something as soon as each of the nodes has a part of a layer. */
async function cutOff(inputs: Inputs, act: (pid: number) => unknown, on: readonly LabNode[] = nodes): Promise<Outcome> {
  for (const node of on) await setRate(node, '40mbit');
  let pid = 0;
  const reached = reach(
    lab,
    on.map(({ address, name }) => `${address}=${name}`),
  );
  const { kubeconfig: _none, ...own } = reached;
  const pushing = push(
    { ...own, smoke: 'none', archive: image, ...inputs },
    {
      lab,
      onLine: (_line, of) => {
        pid = of;
      },
    },
  );
  await Promise.all(
    on.map(node =>
      until(`a layer on its way to ${node.kind}`, 60_000, async () => {
        const active = await enterMust(node, ['ctr', '-n', 'k8s.io', 'content', 'active']);
        return /\s[1-9][\d.]*MB\s/.test(active) && pid > 0;
      }),
    ),
  );
  await act(pid);
  return await pushing;
}

async function removeImage(node: LabNode, reference: string): Promise<void> {
  if ((await referencesOn(lab, node.name)).includes(reference)) await crictl(lab, node, ['rmi', reference]);
}

async function expectNothingLeft(log: string): Promise<void> {
  await until('the nodes to come to rest', 30_000, async () => (await leftOnNode(lab)).length <= left.length).catch(
    () => {},
  );
  expect(await leftOnNode(lab), log).toEqual(left);
  expect(await contentOnNodes()).toEqual(content);
}

const USERS: Readonly<Record<string, Inputs>> = {
  root: {},
  sudo: { 'ssh-user': 'deploy' },
  'sudo with a password': { 'ssh-user': 'prompted', 'sudo-password': 'swordfish' },
};

describe('a job that is cut off in the middle of a layer leaves neither a lease nor content on containerd', () => {
  it.for([
    ['SIGTERM', 'node-ssh', 'root'],
    ['SIGINT', 'openssh', 'sudo'],
    ['SIGTERM', 'node-ssh', 'sudo with a password'],
    ['SIGINT', 'node-ssh', 'sudo'],
    ['SIGKILL', 'openssh', 'sudo with a password'],
  ] as const)('%s, over %s, as %s', async ([signal, transport, user], { expect }) => {
    const outcome = await cutOff({ 'ssh-transport': transport, ...USERS[user] }, pid => process.kill(pid, signal));
    expect(signal === 'SIGKILL' ? outcome.signal : outcome.code).toBe(
      { SIGTERM: 143, SIGINT: 130, SIGKILL: 'SIGKILL' }[signal],
    );
    await expectNothingLeft(outcome.log);
  });
});

describe('what an import could not take away itself goes', () => {
  it('when ctr is killed, as by a node without memory', async () => {
    const kill = () => Promise.all(nodes.map(node => enter(node, ['pkill', '-KILL', '-xo', 'ctr'])));
    const outcome = await cutOff({}, kill);
    expect(outcome.nodes.map(({ error }) => error?.code)).toEqual(nodes.map(() => 'IMPORT_FAILED'));
    await expectNothingLeft(outcome.log);
  });

  it('when containerd dies meanwhile and comes back', async () => {
    const restart = () =>
      Promise.all(
        nodes.map(async node => {
          await enter(node, ['pkill', '-KILL', '-x', 'containerd']);
          await stop(node, 'containerd');
          await start(node, 'containerd');
        }),
      );
    const outcome = await cutOff({}, restart);
    expect(outcome.log).not.toContain('INTERNAL');
    // Where the import was tried again, the image is there.
    for (const node of nodes) await removeImage(node, 'docker.io/library/cut:1');
    await expectNothingLeft(outcome.log);
  });

  it('with the next job, when node and runner are gone at once, and the leases of others stay', async () => {
    const outcome = await cutOff(
      {},
      async pid => {
        await powerOff(newest);
        process.kill(pid, 'SIGKILL');
      },
      [newest],
    );
    await powerOn(newest);
    expect(outcome.signal).toBe('SIGKILL');
    const found = await leftOnNode(lab);
    expect(found).toContainEqual(expect.stringContaining('/var/lib/kube-sideload/lease-'));
    expect(found.filter(line => line.includes(': lease '))).toHaveLength(nodes.length + 1);
    const { kubeconfig: _none, ...own } = reach(lab, [`${newest.address}=${newest.name}`]);
    const next = {
      ...own,
      smoke: 'none',
      archive: (await archive(directory, { reference: 'docker.io/library/next:1' })).file,
    };
    const after = await push(next, { lab });
    expect(after.code, after.log).toBe(0);
    await removeImage(newest, 'docker.io/library/next:1');
    await expectNothingLeft(after.log);
  });
});

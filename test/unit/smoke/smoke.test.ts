import { describe, expect, it, vi } from 'vitest';
import { SideloadError } from '../../../src/errors.ts';
import { parsePodManifest } from '../../../src/smoke/manifest.ts';
import {
  checkCluster,
  deletePods,
  runSmokePods,
  type SmokeOptions,
  type SmokeResult,
  type SmokeTarget,
} from '../../../src/smoke/smoke.ts';
import { stopClock } from '../clock.ts';
import { API_DOWN, type FakeCluster, fakeCluster, STATUS } from './cluster.ts';
import { RECORDED_IMAGE_ID } from './recorded.ts';

const RUN_ID = 't4y1q2abcdef';
const FIRST = `kube-sideload-${RUN_ID}-0`;
const SECOND = `kube-sideload-${RUN_ID}-1`;
const TIMEOUT_MS = 60_000;

function target(node: string): SmokeTarget {
  return {
    node,
    nodeName: `${node}.cluster`,
    reference: 'docker.io/library/app:1',
    spelling: 'docker.io/library/app:1',
    imageId: RECORDED_IMAGE_ID,
    user: '',
  };
}

const OPTIONS: SmokeOptions = {
  runId: RUN_ID,
  lostRuns: new Set<string>(),
  timeoutMs: TIMEOUT_MS,
  command: [],
  template: undefined,
  expect: 'started',
  parallel: 50,
  security: 'auto',
  resources: { requests: { cpu: '10m', memory: '16Mi' }, limits: {} },
  signal: new AbortController().signal,
  onResult: () => {},
  onTrouble: () => {},
  heldOn: async () => [],
  provenOn: async () => undefined,
};

/** Starts smoke pods with a stopped clock, and says what became of them. */
function start(
  cluster: FakeCluster,
  nodes: readonly string[] = ['worker-1'],
  signal?: AbortSignal,
  own: Partial<SmokeOptions> = {},
) {
  const clock = stopClock();
  const told: SmokeResult[] = [];
  const trouble: string[] = [];
  const options: SmokeOptions = {
    ...OPTIONS,
    ...own,
    signal: signal ?? OPTIONS.signal,
    onResult: result => told.push(result),
    onTrouble: message => trouble.push(message),
  };
  const running = runSmokePods(cluster.kubectl, nodes.map(target), new Map(), options);
  running.catch(() => {}); // the test looks at it later
  const codes = async () =>
    Object.fromEntries((await running).map(({ target, error }) => [target.node, error?.code ?? 'passed']));
  return { clock, told, trouble, running, codes };
}

/** The calls that deleted something. */
function deletions(cluster: FakeCluster): readonly string[] {
  return cluster.calls.filter(call => call.startsWith('delete'));
}

async function failureOf(promise: Promise<unknown>): Promise<SideloadError> {
  return await promise.then(
    () => expect.unreachable('it should have failed'),
    error => error,
  );
}

describe('smoke pods', () => {
  it('pass once Running has lasted for two seconds, and not before', async () => {
    const cluster = fakeCluster();
    const { clock, told, codes } = start(cluster);
    await cluster.watching();
    cluster.become(FIRST, STATUS.creating);
    cluster.become(FIRST, STATUS.running);
    await clock.advance(1999);
    expect(told).toEqual([]);
    await clock.advance(1);
    expect(told.map(({ message, durationMs }) => [message, durationMs])).toEqual([['Running', 2000]]);
    expect(await codes()).toEqual({ 'worker-1': 'passed' });
    expect(cluster.pods.size).toBe(0);
  });

  it('pass at once when the program ends with exit code 0', async () => {
    const cluster = fakeCluster();
    const { codes } = start(cluster);
    await cluster.watching();
    cluster.become(FIRST, STATUS.completed);
    expect(await codes()).toEqual({ 'worker-1': 'passed' });
  });

  it('fail when the program crashes a moment after it was Running, with its last log lines', async () => {
    const cluster = fakeCluster();
    vi.mocked(cluster.kubectl.logTail).mockResolvedValue('starting\nno configuration');
    const { clock, running } = start(cluster);
    await cluster.watching();
    cluster.become(FIRST, STATUS.running);
    await clock.advance(1500);
    cluster.become(FIRST, STATUS.crashed);
    const [result] = await running;
    expect(result?.error?.code).toBe('SMOKE_CRASHED');
    expect(result?.error?.message).toMatch(/exit code 3.*\n.*Failed\n {2}log: starting\n {2}log: no configuration/);
  });

  it('start the two seconds anew when a container was started again', async () => {
    const cluster = fakeCluster();
    const { clock, told, codes } = start(cluster);
    await cluster.watching();
    cluster.become(FIRST, STATUS.running);
    await clock.advance(1500);
    cluster.become(FIRST, STATUS.creating);
    cluster.become(FIRST, STATUS.running);
    await clock.advance(1500);
    expect(told).toEqual([]);
    await clock.advance(500);
    expect(await codes()).toEqual({ 'worker-1': 'passed' });
  });

  it('do not pass on a Running that nobody could watch', async () => {
    const cluster = fakeCluster();
    const { clock, told, codes } = start(cluster);
    await cluster.watching();
    cluster.become(FIRST, STATUS.running);
    cluster.fail.list.push(API_DOWN, API_DOWN, API_DOWN);
    cluster.endWatch(API_DOWN);
    await clock.advance(2500);
    expect(told).toEqual([]);
    cluster.become(FIRST, STATUS.crashed);
    await clock.advance(5000);
    expect(await codes()).toEqual({ 'worker-1': 'SMOKE_CRASHED' });
  });

  it('each have a verdict of their own', async () => {
    const cluster = fakeCluster();
    cluster.events = [{ type: 'Warning', reason: 'ErrImageNeverPull', message: 'Container image is not present' }];
    const { clock, running, codes } = start(cluster, ['worker-1', 'worker-2']);
    await cluster.watching();
    cluster.become(SECOND, STATUS.neverPull);
    cluster.become(FIRST, STATUS.running);
    await clock.advance(2000);
    expect(await codes()).toEqual({ 'worker-1': 'passed', 'worker-2': 'SMOKE_IMAGE_NEVER_PULL' });
    const error = (await running)[1]?.error;
    expect(error?.node).toBe('worker-2');
    expect(error?.message).toContain('ErrImageNeverPull: not present');
    expect(error?.message).toContain('event: Warning ErrImageNeverPull: Container image is not present');
    expect(deletions(cluster)).toEqual([`delete ${FIRST} 1`, `delete ${SECOND} 1`]);
  });

  it('are told from each other by the first verdict: nothing after a failure counts', async () => {
    const cluster = fakeCluster();
    const { codes } = start(cluster, ['worker-1', 'worker-2']);
    await cluster.watching();
    cluster.become(FIRST, STATUS.neverPull);
    cluster.become(FIRST, STATUS.completed);
    cluster.become(SECOND, STATUS.completed);
    expect(await codes()).toEqual({ 'worker-1': 'SMOKE_IMAGE_NEVER_PULL', 'worker-2': 'passed' });
  });

  it('that have passed stay so, whatever becomes of them in the same moment', async () => {
    const cluster = fakeCluster();
    const { codes } = start(cluster);
    await cluster.watching();
    cluster.become(FIRST, STATUS.completed);
    cluster.remove(FIRST);
    expect(await codes()).toEqual({ 'worker-1': 'passed' });
  });

  it('whose name is taken already are refused', async () => {
    const cluster = fakeCluster();
    const exists = new SideloadError('CLUSTER_REFUSED', 'Error from server (AlreadyExists): pods already exists');
    cluster.fail.create.push(exists);
    expect(await start(cluster).codes()).toEqual({ 'worker-1': 'CLUSTER_REFUSED' });
  });

  it('tell the log of the container that has failed, else of one that has begun', async () => {
    const side = { name: 'side', state: { running: {} } };
    const cluster = fakeCluster();
    const { running } = start(cluster);
    await cluster.watching();
    const failed = { name: 'app', state: { terminated: { exitCode: 3, reason: 'Error' } } };
    const setup = { name: 'setup', state: { terminated: { exitCode: 0 } } };
    cluster.become(FIRST, { phase: 'Running', initContainerStatuses: [setup], containerStatuses: [side, failed] });
    await running;
    expect(cluster.kubectl.logTail).toHaveBeenCalledExactlyOnceWith(FIRST, 'app');

    const slow = fakeCluster();
    const waiting = start(slow);
    await slow.watching();
    const creating = { name: 'app', state: { waiting: { reason: 'PodInitializing' } } };
    slow.become(FIRST, { phase: 'Pending', containerStatuses: [creating, side] });
    await waiting.clock.advance(TIMEOUT_MS);
    await waiting.running;
    expect(slow.kubectl.logTail).toHaveBeenCalledExactlyOnceWith(FIRST, 'side');
    const silent = fakeCluster();
    const stuck = start(silent);
    await silent.watching();
    silent.become(FIRST, { phase: 'Pending', containerStatuses: [creating] });
    await stuck.clock.advance(TIMEOUT_MS);
    await stuck.running;
    expect(silent.kubectl.logTail).not.toHaveBeenCalled();
  });

  it('that somebody deletes are failures', async () => {
    const cluster = fakeCluster();
    const { codes } = start(cluster);
    await cluster.watching();
    cluster.remove(FIRST);
    expect(await codes()).toEqual({ 'worker-1': 'SMOKE_DELETED' });
  });

  it('that are gone after the watch broke off are failures', async () => {
    const cluster = fakeCluster();
    const { clock, codes } = start(cluster);
    await cluster.watching();
    cluster.pods.clear();
    cluster.endWatch();
    await clock.advance(1000);
    expect(await codes()).toEqual({ 'worker-1': 'SMOKE_DELETED' });
  });

  it('are judged by what happened while no watch was open', async () => {
    const cluster = fakeCluster();
    const { clock, codes } = start(cluster);
    await cluster.watching();
    cluster.endWatch();
    cluster.pods.set(FIRST, { ...(cluster.pods.get(FIRST) as never as object), status: STATUS.completed } as never);
    await clock.advance(1000);
    expect(await codes()).toEqual({ 'worker-1': 'passed' });
  });

  it('survive an API server that is away for a while, and say so', async () => {
    const cluster = fakeCluster();
    const { clock, trouble, codes } = start(cluster);
    await cluster.watching();
    cluster.fail.list.push(API_DOWN, API_DOWN);
    cluster.endWatch(API_DOWN);
    await clock.advance(3000);
    expect(trouble).toEqual(Array(3).fill(API_DOWN.message));
    cluster.become(FIRST, STATUS.completed);
    expect(await codes()).toEqual({ 'worker-1': 'passed' });
  });

  it('that get nowhere fail when the time is up, with the last state', async () => {
    const cluster = fakeCluster();
    const { clock, running } = start(cluster);
    await cluster.watching();
    cluster.become(FIRST, STATUS.creating);
    await clock.advance(TIMEOUT_MS);
    const [result] = await running;
    expect(result?.error?.code).toBe('SMOKE_TIMEOUT');
    expect(result?.error?.message).toContain('last seen: ContainerCreating');
    expect(cluster.pods.size).toBe(0);
  });

  it('on a node whose kubelet never looks at them name the kubelet', async () => {
    const cluster = fakeCluster();
    const { clock, codes } = start(cluster);
    await clock.advance(TIMEOUT_MS);
    expect(await codes()).toEqual({ 'worker-1': 'SMOKE_NODE_NOT_READY' });
  });

  it('that became Running in the last moment have not passed', async () => {
    const cluster = fakeCluster();
    const { clock, codes } = start(cluster);
    await clock.advance(TIMEOUT_MS - 1000);
    cluster.become(FIRST, STATUS.running);
    await clock.advance(1000);
    expect(await codes()).toEqual({ 'worker-1': 'SMOKE_TIMEOUT' });
  });

  it('that the API server refuses stop no other', async () => {
    const cluster = fakeCluster();
    cluster.fail.create.push(
      new SideloadError('QUOTA_EXCEEDED', 'pods is forbidden: exceeded quota', { hint: 'Ask.' }),
    );
    const { running, codes } = start(cluster, ['worker-1', 'worker-2']);
    await cluster.watching();
    cluster.become(SECOND, STATUS.completed);
    expect(await codes()).toEqual({ 'worker-1': 'QUOTA_EXCEEDED', 'worker-2': 'passed' });
    expect((await running)[0]?.error).toMatchObject({
      node: 'worker-1',
      hint: 'Ask.',
      message: 'docker.io/library/app:1: pods is forbidden: exceeded quota',
    });
  });

  it('that were all refused need no deletion', async () => {
    const cluster = fakeCluster();
    cluster.fail.create.push(new SideloadError('POD_SECURITY', 'pods is forbidden'));
    const { codes } = start(cluster);
    expect(await codes()).toEqual({ 'worker-1': 'POD_SECURITY' });
    expect(deletions(cluster)).toEqual([]);
  });

  it('are created again while the API server is away, until their time is up', async () => {
    const cluster = fakeCluster();
    cluster.fail.create.push(API_DOWN, API_DOWN);
    const { clock, trouble, codes } = start(cluster);
    await cluster.watching();
    await clock.advance(2000);
    expect(trouble).toEqual([API_DOWN.message, API_DOWN.message]);
    cluster.become(FIRST, STATUS.completed);
    expect(await codes()).toEqual({ 'worker-1': 'passed' });

    const away = fakeCluster();
    away.fail.create.push(...Array(100).fill(API_DOWN));
    const failing = start(away);
    await failing.clock.advance(TIMEOUT_MS);
    expect(await failing.codes()).toEqual({ 'worker-1': 'CLUSTER_UNREACHABLE' });
  });

  it('are judged and deleted when the answer to their creation was lost', async () => {
    const cluster = fakeCluster();
    const create = cluster.kubectl.createPod;
    vi.spyOn(cluster.kubectl, 'createPod').mockImplementation(async (pod, options) => {
      if (cluster.pods.size > 0) {
        throw new SideloadError('CLUSTER_REFUSED', 'Error from server (AlreadyExists): pods already exists');
      }
      await create(pod, options);
      throw API_DOWN;
    });
    const { clock, codes } = start(cluster);
    await cluster.watching();
    await clock.advance(1000);
    cluster.become(FIRST, STATUS.completed);
    expect(await codes()).toEqual({ 'worker-1': 'passed' });
    expect(deletions(cluster)).toEqual([`delete ${FIRST} 1`]);
  });

  it('end with the refusal when the credentials may not watch, and not at the first one', async () => {
    const cluster = fakeCluster();
    const forbidden = new SideloadError('CLUSTER_REFUSED', 'Error from server (Forbidden): pods is forbidden', {
      hint: 'Let them watch.',
    });
    cluster.fail.list.push(...Array(5).fill(forbidden));
    const { clock, running, codes } = start(cluster, ['worker-1', 'worker-2'], undefined, { parallel: 1 });
    await clock.advance(4000);
    expect(await codes()).toEqual({ 'worker-1': 'CLUSTER_REFUSED', 'worker-2': 'CLUSTER_REFUSED' });
    expect((await running)[0]?.error?.hint).toBe('Let them watch.');
    expect(cluster.calls).not.toContain(`create ${SECOND}`);
  });

  it('are no more at a time than was asked for', async () => {
    const cluster = fakeCluster();
    const { clock, codes } = start(cluster, ['worker-1', 'worker-2'], undefined, { parallel: 1 });
    await cluster.watching();
    expect([...cluster.pods.keys()]).toEqual([FIRST]);
    cluster.become(FIRST, STATUS.completed);
    await clock.advance(1);
    expect([...cluster.pods.keys()]).toEqual([SECOND]);
    cluster.become(SECOND, STATUS.running);
    await clock.advance(2000);
    expect(await codes()).toEqual({ 'worker-1': 'passed', 'worker-2': 'passed' });
  });

  it('that wait for their turn have all of their time then', async () => {
    const cluster = fakeCluster();
    const { clock, codes } = start(cluster, ['worker-1', 'worker-2'], undefined, { parallel: 1 });
    await cluster.watching();
    await clock.advance(TIMEOUT_MS);
    cluster.become(SECOND, STATUS.creating);
    await clock.advance(TIMEOUT_MS - 1000);
    cluster.become(SECOND, STATUS.completed);
    expect(await codes()).toEqual({ 'worker-1': 'SMOKE_NODE_NOT_READY', 'worker-2': 'passed' });
  });

  it('that are made while a list is on its way are not missed in it', async () => {
    const cluster = fakeCluster();
    const { clock, codes } = start(cluster, ['worker-1', 'worker-2'], undefined, { parallel: 1 });
    await cluster.watching();
    let answer: (list: Awaited<ReturnType<typeof cluster.kubectl.listPods>>) => void = () => {};
    vi.spyOn(cluster.kubectl, 'listPods').mockImplementationOnce(
      () =>
        new Promise(resolve => {
          answer = resolve;
        }),
    );
    const old = { metadata: { resourceVersion: '1' }, items: [...cluster.pods.values()] };
    cluster.endWatch();
    await clock.advance(TIMEOUT_MS);
    expect([...cluster.pods.keys()]).toEqual([SECOND]);
    answer(old);
    await clock.advance(1);
    cluster.become(SECOND, STATUS.completed);
    expect(await codes()).toEqual({ 'worker-1': 'SMOKE_NODE_NOT_READY', 'worker-2': 'passed' });
  });

  it('name what the node has in place of the image that they ask for', async () => {
    const cluster = fakeCluster();
    const { running } = start(cluster, ['worker-1'], undefined, {
      heldOn: async () => ['registry.k8s.io/pause:3.10', 'localhost/app:1'],
    });
    await cluster.watching();
    cluster.become(FIRST, STATUS.neverPull);
    const error = (await running)[0]?.error;
    expect(error?.message).toContain('the node has localhost/app:1, the pod asks for docker.io/library/app:1');
    expect(error?.hint).toContain('`aliases`');
  });

  it('compare what the kubelet says with what the run has seen, of the node as the cluster has it', async () => {
    const cluster = fakeCluster();
    const object = { metadata: { name: 'worker-1.cluster' } };
    vi.spyOn(cluster.kubectl, 'getNode').mockResolvedValue(object);
    const provenOn = vi.fn(async () => ({
      address: '10.0.0.11',
      socket: '/run/containerd/containerd.sock',
      seenAt: '2026-01-02T03:04:05.000Z',
      now: 'absent',
      otherMachine: undefined,
      credentialPolicy: 'NeverVerifyPreloadedImages',
    }));
    const { running } = start(cluster, ['worker-1'], undefined, { heldOn: async () => ['localhost/app:1'], provenOn });
    await cluster.watching();
    cluster.become(FIRST, STATUS.neverPull);
    const error = (await running)[0]?.error;
    expect(provenOn).toHaveBeenCalledExactlyOnceWith(target('worker-1'), object);
    expect(error?.message).toContain('at 10.0.0.11 at 2026-01-02T03:04:05.000Z, and it is gone since');
    expect(error?.message).not.toContain('localhost/app:1');
  });

  it('still fail with their own verdict when events and log cannot be read', async () => {
    const cluster = fakeCluster();
    vi.mocked(cluster.kubectl.logTail).mockRejectedValue(API_DOWN);
    vi.spyOn(cluster.kubectl, 'eventsOf').mockRejectedValue(API_DOWN);
    const { codes } = start(cluster);
    await cluster.watching();
    cluster.become(FIRST, STATUS.crashed);
    expect(await codes()).toEqual({ 'worker-1': 'SMOKE_CRASHED' });
  });

  it('are deleted when the job is cancelled, and the cancellation is the error', async () => {
    const cluster = fakeCluster();
    const job = new AbortController();
    const { running } = start(cluster, ['worker-1', 'worker-2'], job.signal);
    await cluster.watching();
    const cancelled = new SideloadError('CANCELLED', 'the job was cancelled (SIGTERM)');
    job.abort(cancelled);
    expect(await failureOf(running)).toBe(cancelled);
    expect(cluster.pods.size).toBe(0);
  });

  it('are not created by a job that is cancelled already, and earlier ones are looked for all the same', async () => {
    const cluster = fakeCluster();
    const cancelled = new SideloadError('CANCELLED', 'cancelled');
    const { running } = start(cluster, ['worker-1'], AbortSignal.abort(cancelled));
    expect(await failureOf(running)).toBe(cancelled);
    expect(cluster.calls).toEqual(['list']);
  });

  it('are named by run, pinned to their node and never pulled', async () => {
    const cluster = fakeCluster();
    start(cluster);
    await cluster.watching();
    expect(cluster.pods.get(FIRST)).toMatchObject({
      metadata: { labels: { 'kube-sideload/run': RUN_ID } },
      spec: {
        nodeName: 'worker-1.cluster',
        restartPolicy: 'Never',
        automountServiceAccountToken: false,
        // Ends by itself a minute after the time is up, should nobody be left to delete it.
        activeDeadlineSeconds: TIMEOUT_MS / 1000 + 60,
        containers: [{ image: 'docker.io/library/app:1', imagePullPolicy: 'Never' }],
      },
    });
  });
});

describe('a manifest of one’s own', () => {
  const template = parsePodManifest(
    'kind: Pod\nspec: { containers: [{ name: app, image: "app:1" }, { name: side, image: "side:1" }] }',
    'smoke',
  );
  const OTHER_ID = `sha256:${'0'.repeat(64)}`;
  const states = (app: string, side: string) =>
    [app, side].map((imageID, index) => ({
      name: index === 0 ? 'app' : 'side',
      imageID,
      state: { terminated: { exitCode: 0 } },
    }));

  it('is what is started, and judged by its containers that run the image', async () => {
    for (const [app, side, code] of [
      [RECORDED_IMAGE_ID, OTHER_ID, 'passed'],
      [OTHER_ID, RECORDED_IMAGE_ID, 'SMOKE_OTHER_IMAGE'],
    ] as const) {
      const cluster = fakeCluster();
      const { codes } = start(cluster, ['worker-1'], undefined, { template });
      await cluster.watching();
      expect(cluster.pods.get(FIRST)?.spec?.containers?.map(({ name }) => name)).toEqual(['app', 'side']);
      cluster.become(FIRST, { phase: 'Succeeded', containerStatuses: states(app, side) });
      expect(await codes()).toEqual({ 'worker-1': code });
    }
  });

  it('that does not use an image leaves that one to a pod of ours, all of whose containers count', async () => {
    const cluster = fakeCluster();
    const other = parsePodManifest('kind: Pod\nspec: { containers: [{ name: side, image: "side:1" }] }', 'smoke');
    const { codes } = start(cluster, ['worker-1'], undefined, { template: other });
    await cluster.watching();
    expect(cluster.pods.get(FIRST)?.spec?.containers?.map(({ name }) => name)).toEqual(['smoke']);
    const [ended = expect.unreachable()] = states(OTHER_ID, '');
    cluster.become(FIRST, { phase: 'Succeeded', containerStatuses: [{ ...ended, name: 'smoke' }] });
    expect(await codes()).toEqual({ 'worker-1': 'SMOKE_OTHER_IMAGE' });
    const refusal = checkCluster(cluster.kubectl, [target('worker-1')], { ...OPTIONS, template: other }, () => {});
    expect(await failureOf(refusal)).toMatchObject({ code: 'INPUT_INVALID' });
    expect((await failureOf(refusal)).message).toContain(
      'docker.io/library/side:1, and none of docker.io/library/app:1',
    );
    await checkCluster(cluster.kubectl, [], { ...OPTIONS, template: other }, () => {});
  });
});

describe('deleting pods', () => {
  async function withPods(): Promise<FakeCluster> {
    const cluster = fakeCluster();
    for (const name of [FIRST, SECOND]) {
      await cluster.kubectl.createPod({ metadata: { name, labels: { 'kube-sideload/run': RUN_ID } } });
    }
    return cluster;
  }

  it('takes those of lost runs along, and those of no other', async () => {
    const cluster = await withPods();
    for (const run of ['lost1', 'alive1']) {
      await cluster.kubectl.createPod({ metadata: { name: run, labels: { 'kube-sideload/run': run } } });
    }
    stopClock();
    await deletePods(cluster.kubectl, RUN_ID, new Set(['lost1']));
    expect([...cluster.pods.keys()]).toEqual(['alive1']);
  });

  it('is done when the API server says that they are gone', async () => {
    const cluster = await withPods();
    cluster.deletes = false;
    stopClock();
    const ended = vi.fn();
    const deleting = deletePods(cluster.kubectl, RUN_ID).then(ended);
    await cluster.watching();
    cluster.remove(FIRST);
    expect(ended).not.toHaveBeenCalled();
    cluster.remove(SECOND);
    await deleting;
    expect(deletions(cluster)).toEqual([`delete ${FIRST} 1`, `delete ${SECOND} 1`]);
  });

  it('goes without grace when a kubelet does not answer', async () => {
    const cluster = await withPods();
    cluster.deletes = false;
    const clock = stopClock();
    const deleting = deletePods(cluster.kubectl, RUN_ID);
    await cluster.watching();
    cluster.remove(FIRST);
    await clock.advance(15_000);
    await deleting;
    expect(deletions(cluster)).toEqual([`delete ${FIRST} 1`, `delete ${SECOND} 1`, `delete ${SECOND} 0`]);
    expect(cluster.pods.size).toBe(0);
  });

  it('asks once when there is nothing to delete', async () => {
    const cluster = fakeCluster();
    await deletePods(cluster.kubectl, RUN_ID);
    expect(cluster.calls).toEqual(['list']);
  });

  it.each<[what: string, queue: 'list' | 'delete']>([
    ['cannot be listed', 'list'],
    ['cannot be deleted', 'delete'],
  ])('is tried again when pods %s for a moment', async (_what, queue) => {
    const cluster = await withPods();
    cluster.fail[queue].push(API_DOWN);
    const clock = stopClock();
    const deleting = deletePods(cluster.kubectl, RUN_ID);
    await clock.advance(2000);
    await deleting;
    expect(cluster.pods.size).toBe(0);
  });

  it('ends in the error when the API server stays away', async () => {
    const cluster = await withPods();
    cluster.fail.list.push(...Array(100).fill(API_DOWN));
    const clock = stopClock();
    const deleting = failureOf(deletePods(cluster.kubectl, RUN_ID));
    await clock.advance(60_000);
    expect(await deleting).toBe(API_DOWN);
  });

  it('ends at once when it is forbidden', async () => {
    const cluster = await withPods();
    const forbidden = new SideloadError('CLUSTER_REFUSED', 'pods is forbidden');
    cluster.fail.list.push(forbidden);
    stopClock();
    expect(await failureOf(deletePods(cluster.kubectl, RUN_ID))).toBe(forbidden);
  });
});

describe('asking the cluster beforehand', () => {
  const log = () => {};

  it('makes nothing', async () => {
    const cluster = fakeCluster();
    await checkCluster(cluster.kubectl, [target('worker-1')], OPTIONS, log);
    expect(cluster.calls).toEqual([`dry-run ${FIRST}`]);
    expect(cluster.pods.size).toBe(0);
  });

  it('asks nothing without targets', async () => {
    const cluster = fakeCluster();
    await checkCluster(cluster.kubectl, [], OPTIONS, log);
    expect(cluster.calls).toEqual([]);
  });

  it('says which rights are missing', async () => {
    const cluster = fakeCluster();
    vi.spyOn(cluster.kubectl, 'missingVerbs').mockImplementation(async ({ verbs }) =>
      verbs.filter(verb => verb === 'watch' || verb === 'delete'),
    );
    const error = await failureOf(checkCluster(cluster.kubectl, [target('worker-1')], OPTIONS, log));
    expect(error.code).toBe('CLUSTER_REFUSED');
    expect(error.message).toContain('cannot watch resource "pods", cannot delete resource "pods"');
    expect(error.hint).toContain('`watch`, `delete`');
    expect(cluster.calls).toEqual([]);
  });

  it('goes on without rights that explanations alone need, and says so', async () => {
    const cluster = fakeCluster();
    vi.spyOn(cluster.kubectl, 'missingVerbs').mockImplementation(async ({ resource, verbs }) =>
      resource === 'pods' ? [] : verbs,
    );
    const said: string[] = [];
    await checkCluster(cluster.kubectl, [target('worker-1')], OPTIONS, line => said.push(line));
    expect(said).toEqual([
      expect.stringContaining('cannot get resource "pods/log"'),
      expect.stringContaining('cannot list resource "events"'),
      expect.stringContaining('cannot get resource "nodes"'),
    ]);
    expect(cluster.calls).toEqual([`dry-run ${FIRST}`]);
  });

  it('says what has been changed for the namespace', async () => {
    const cluster = fakeCluster();
    cluster.fail.create.push(new SideloadError('POD_SECURITY', 'violates PodSecurity "restricted:latest"'));
    const said: string[] = [];
    await checkCluster(cluster.kubectl, [target('worker-1')], OPTIONS, line => said.push(line));
    expect(said).toEqual([expect.stringMatching(/^the smoke pods of docker.io\/library\/app:1 run as user 65534 /)]);
  });

  it('asks once for each image, and not for each node', async () => {
    const cluster = fakeCluster();
    const other = { ...target('worker-1'), spelling: 'docker.io/library/other:1' };
    await checkCluster(cluster.kubectl, [target('worker-1'), target('worker-2'), other], OPTIONS, log);
    expect(cluster.calls).toEqual([`dry-run ${FIRST}`, `dry-run ${FIRST}`]);
  });

  it('fails as a whole when pods may not be created', async () => {
    const cluster = fakeCluster();
    const refused = new SideloadError('NAMESPACE_NOT_FOUND', 'namespaces "smoke" not found');
    cluster.fail.create.push(refused);
    expect(await failureOf(checkCluster(cluster.kubectl, [target('worker-1')], OPTIONS, log))).toBe(refused);
  });
});

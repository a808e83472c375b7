import { describe, expect, it } from 'vitest';
import type { ContainerStatus, Pod, PodEvent } from '../../../src/smoke/objects.ts';
import { describeEvent, judge, judgeTimeout, type Verdict } from '../../../src/smoke/verdict.ts';
import { RECORDED_IMAGE_ID, RECORDINGS, recording } from './recorded.ts';

const OTHER_ID = `sha256:${'0'.repeat(64)}`;

function brief(verdict: Verdict): string {
  return verdict.state === 'failed' ? verdict.code : verdict.state;
}

/** The verdicts that a pod gets one after the other, until one is final; equal neighbours count once. */
function verdicts(name: string): readonly string[] {
  const all: string[] = [];
  for (const { object } of recording(name).watch) {
    const verdict = brief(judge(object, RECORDED_IMAGE_ID));
    if (all.at(-1) !== verdict) all.push(verdict);
    if (verdict !== 'pending' && verdict !== 'running') break;
  }
  return all;
}

/** What each recorded pod leads to; `timeout` is the verdict when nothing final came. */
const EXPECTED: Readonly<
  Record<string, { readonly verdicts: string; readonly message?: RegExp; readonly timeout?: string }>
> = {
  'n1-running': { verdicts: 'pending running' },
  'n1-short-name': { verdicts: 'pending running' },
  'n1-exit-0': { verdicts: 'pending running passed', message: /exit code 0/ },
  'n1-exit-3': { verdicts: 'pending running SMOKE_CRASHED', message: /exit code 3 \(Error\)/ },
  'n1-oom': { verdicts: 'pending running SMOKE_OOM' },
  'n1-never-pull': {
    verdicts: 'pending SMOKE_IMAGE_NEVER_PULL',
    message: /ErrImageNeverPull: Container image "docker.io\/library\/absent:1" is not present/,
  },
  'n1-deadline': { verdicts: 'pending SMOKE_IMAGE_NEVER_PULL' },
  'n1-no-such-command': { verdicts: 'pending SMOKE_START', message: /exec: "\/nope": stat \/nope: no such file/ },
  'n1-invalid-image-name': { verdicts: 'pending SMOKE_IMAGE_NAME', message: /must be lowercase/ },
  'n1-missing-configmap': { verdicts: 'pending SMOKE_CONFIG', message: /configmap "absent" not found/ },
  'n1-run-as-non-root': { verdicts: 'pending SMOKE_RUN_AS_NON_ROOT', message: /image will run as root/ },
  'n1-node-affinity': { verdicts: 'SMOKE_REJECTED', message: /NodeAffinity: Pod was rejected/ },
  'n1-out-of-cpu': { verdicts: 'SMOKE_REJECTED', message: /OutOfcpu: .*requested: 900000, used: 60, capacity: 2000/ },
  'n2-appears-later': { verdicts: 'pending SMOKE_IMAGE_NEVER_PULL' },
  'n2-no-sandbox-image': { verdicts: 'pending', timeout: 'SMOKE_SANDBOX_IMAGE' },
  'n3-running': { verdicts: 'pending running' },
  'n3-exit-0': { verdicts: 'pending passed' },
  'n3-exit-3': { verdicts: 'pending SMOKE_CRASHED', message: /exit code 3/ },
  'n3-oom': { verdicts: 'pending running SMOKE_OOM' },
  'n3-never-pull': { verdicts: 'pending SMOKE_IMAGE_NEVER_PULL' },
  'n3-deadline': { verdicts: 'pending SMOKE_IMAGE_NEVER_PULL' },
  'n3-no-such-command': { verdicts: 'pending SMOKE_START', message: /executable file `\/nope` not found/ },
  'n3-run-as-non-root': { verdicts: 'pending SMOKE_RUN_AS_NON_ROOT' },
  'n3-short-name': { verdicts: 'pending SMOKE_IMAGE_INSPECT', message: /did not resolve to an alias/ },
  'n99-no-such-node': { verdicts: 'pending', timeout: 'SMOKE_NODE_NOT_READY' },
};

describe('what a real API server said of a pod', () => {
  it('is expected to lead somewhere, for every recording', () => {
    expect(Object.keys(EXPECTED).toSorted()).toEqual(RECORDINGS.toSorted());
  });

  it.each(Object.entries(EXPECTED))('%s', (name, expected) => {
    const { watch, events } = recording(name);
    expect(verdicts(name).join(' ')).toBe(expected.verdicts);
    const all = watch.map(({ object }) => judge(object, RECORDED_IMAGE_ID));
    const decided = all.find(({ state }) => state === 'failed' || state === 'passed') ?? all.at(-1);
    expect(decided?.message).toMatch(expected.message ?? /./);
    if (expected.timeout !== undefined && decided !== undefined) {
      expect(brief(judgeTimeout(decided, { events }))).toBe(expected.timeout);
    }
  });

  it('never goes back from a failure to a success', () => {
    for (const name of RECORDINGS) {
      const all = recording(name).watch.map(({ object }) => judge(object, RECORDED_IMAGE_ID).state);
      const failed = all.indexOf('failed');
      expect(failed < 0 ? [] : all.slice(failed), name).not.toContain('passed');
    }
  });

  it.each(['n1-running', 'n1-exit-0', 'n1-short-name'])(
    'is a failure when the kubelet started another image: %s',
    name => {
      const last = recording(name).watch.at(-1)?.object as Pod;
      const verdict = judge(last, OTHER_ID);
      expect(brief(verdict)).toBe('SMOKE_OTHER_IMAGE');
      expect(verdict.message).toContain(RECORDED_IMAGE_ID);
      expect(verdict.message).toContain(OTHER_ID);
    },
  );

  it('does not take the repository digest that CRI-O reports for an image ID', () => {
    const last = recording('n3-running').watch.at(-1)?.object as Pod;
    expect(judge(last, OTHER_ID).state).toBe('running');
  });
});

function pod(status: Pod['status'], metadata: Partial<Pod['metadata']> = {}): Pod {
  return { metadata: { name: 'smoke', uid: 'uid', ...metadata }, ...(status === undefined ? {} : { status }) };
}

function inState(state: ContainerStatus['state'], phase = 'Running'): Pod {
  return pod({ phase, containerStatuses: [{ imageID: RECORDED_IMAGE_ID, ...(state === undefined ? {} : { state }) }] });
}

describe('what no recording has', () => {
  const running = { running: { startedAt: '2026-01-01T00:00:00Z' } };
  type Row = readonly [what: string, pod: Pod, verdict: string];
  const rows: readonly Row[] = [
    ['a pod without a status', pod(undefined), 'pending'],
    ['a phase that nobody knows', pod({ phase: 'Unknown' }), 'pending'],
    ['a running container in a pod that is not Running yet', inState(running, 'Pending'), 'pending'],
    ['a Running pod whose container does not run', inState({ waiting: { reason: 'ContainerCreating' } }), 'pending'],
    ['a pod that Succeeded without telling its container', pod({ phase: 'Succeeded' }), 'pending'],
    ['a Running pod that tells nothing of its containers', pod({ phase: 'Running' }), 'pending'],
    ['a container that tells no state', pod({ phase: 'Running', containerStatuses: [{}] }), 'pending'],
    [
      'a pod that runs and gives a reason',
      pod({ phase: 'Running', reason: 'Something', containerStatuses: [{ state: running }] }),
      'running',
    ],
    [
      'a disruption that is over',
      pod({
        phase: 'Running',
        conditions: [{ type: 'DisruptionTarget', status: 'False' }],
        containerStatuses: [{ state: running }],
      }),
      'running',
    ],
    [
      'a container of which the kubelet has lost sight',
      inState({ terminated: { exitCode: 137, reason: 'ContainerStatusUnknown' } }),
      'pending',
    ],
    [
      'a runtime that cannot create a container for another machine',
      inState({ waiting: { reason: 'CreateContainerError', message: 'exec format error' } }, 'Pending'),
      'SMOKE_EXEC_FORMAT',
    ],
    ['a waiting reason that may pass', inState({ waiting: { reason: 'PodInitializing' } }, 'Pending'), 'pending'],
    ['an end without an exit code', inState({ terminated: { reason: 'Error' } }), 'SMOKE_CRASHED'],
    ['exit code 0 of another image', judgeable(OTHER_ID, { terminated: { exitCode: 0 } }), 'SMOKE_OTHER_IMAGE'],
    ['another image behind cri-dockerd', judgeable(`docker://${OTHER_ID}`, running), 'SMOKE_OTHER_IMAGE'],
    ['the right image behind cri-dockerd', judgeable(`docker://${RECORDED_IMAGE_ID}`, running), 'running'],
    [
      'a start that Docker refused',
      inState({ terminated: { exitCode: 127, reason: 'ContainerCannotRun' } }),
      'SMOKE_START',
    ],
    ['RunContainerError', inState({ waiting: { reason: 'RunContainerError' } }, 'Pending'), 'SMOKE_START'],
    ...[
      'connection error: desc = "transport: Error while dialing: dial unix /run/crio/crio.sock: no such file or directory"',
      'rpc error: code = Unavailable desc = error reading from server: EOF',
      'Cannot connect to the Docker daemon at unix:///var/run/docker.sock. Is the docker daemon running?',
    ].flatMap(message =>
      ['RunContainerError', 'CreateContainerError', 'ImageInspectError'].map(
        (reason): Row => [
          `a runtime that is away: ${reason}: ${message}`,
          inState({ waiting: { reason, message } }, 'Pending'),
          'pending',
        ],
      ),
    ),
    [
      'an eviction',
      pod({ phase: 'Failed', reason: 'Evicted', message: 'The node was low on resource: memory.' }),
      'SMOKE_EVICTED',
    ],
    ['a preemption', pod({ phase: 'Failed', reason: 'Preempting' }), 'SMOKE_EVICTED'],
    ['a node that shuts down', pod({ phase: 'Failed', reason: 'NodeShutdown' }), 'SMOKE_EVICTED'],
    ['a taint', pod({ phase: 'Failed', reason: 'TaintToleration' }), 'SMOKE_REJECTED'],
    ['the deadline of a pod that never started', pod({ phase: 'Failed', reason: 'DeadlineExceeded' }), 'SMOKE_TIMEOUT'],
    ['Failed without a reason', pod({ phase: 'Failed' }), 'SMOKE_REJECTED'],
    ['a forced pull', inState({ waiting: { reason: 'ErrImagePull' } }, 'Pending'), 'PULL_FORCED'],
    ['a forced pull, again', inState({ waiting: { reason: 'ImagePullBackOff' } }, 'Pending'), 'PULL_FORCED'],
    [
      'a program for another machine',
      inState({ terminated: { exitCode: 128, reason: 'StartError', message: 'exec /app: exec format error' } }),
      'SMOKE_EXEC_FORMAT',
    ],
    [
      'a pod that the kubelet ended, with what that did to the container',
      pod({
        phase: 'Failed',
        reason: 'Evicted',
        containerStatuses: [{ state: { terminated: { exitCode: 137, reason: 'Error' } } }],
      }),
      'SMOKE_EVICTED',
    ],
    [
      'a pod that is deleted to make room',
      pod(
        {
          phase: 'Running',
          conditions: [{ type: 'DisruptionTarget', status: 'True', reason: 'DeletionByTaintManager' }],
        },
        { deletionTimestamp: '2026-01-01T00:00:00Z' },
      ),
      'SMOKE_EVICTED',
    ],
    [
      'a running pod that somebody deletes',
      pod({ phase: 'Running', containerStatuses: [{ state: running }] }, { deletionTimestamp: '2026-01-01T00:00:00Z' }),
      'SMOKE_DELETED',
    ],
  ];

  function judgeable(imageID: string, state: ContainerStatus['state']): Pod {
    return pod({ phase: 'Running', containerStatuses: [{ imageID, ...(state === undefined ? {} : { state }) }] });
  }

  it.each(rows)('%s', (_what, object, expected) => {
    const verdict = judge(object, RECORDED_IMAGE_ID);
    expect(brief(verdict)).toBe(expected);
    expect(verdict.message).not.toBe('');
  });
});

describe('when the time is up', () => {
  const creating: Verdict = { state: 'pending', message: 'ContainerCreating' };
  const sandbox: PodEvent = {
    type: 'Warning',
    reason: 'FailedCreatePodSandBox',
    message: 'network plugin is not ready',
  };
  it.each<[what: string, last: Verdict, events: readonly PodEvent[], code: string, message: RegExp]>([
    [
      'the network of the sandbox is named by its event',
      creating,
      [sandbox],
      'SMOKE_NETWORK',
      /network plugin is not ready/,
    ],
    [
      'the sandbox is named by its event',
      creating,
      [{ ...sandbox, message: 'container create failed: Permission denied' }],
      'SMOKE_SANDBOX',
      /Permission denied/,
    ],
    [
      'the image of the sandbox is named by its event',
      creating,
      [{ ...sandbox, message: 'failed to get sandbox image "registry.k8s.io/pause:3.10": failed to pull image' }],
      'SMOKE_SANDBOX_IMAGE',
      /pause:3.10/,
    ],
    [
      'a network that is not there yet is named by its event',
      creating,
      [{ reason: 'NetworkNotReady', message: 'cni plugin not initialized' }],
      'SMOKE_NETWORK',
      /cni plugin not initialized/,
    ],
    [
      'a sandbox that came in the end is not the reason',
      { state: 'running', message: 'Running' },
      [sandbox],
      'SMOKE_TIMEOUT',
      /Running/,
    ],
    [
      'a probe that fails is named by its event',
      { state: 'pending', message: 'Running, and not ready' },
      [sandbox, { reason: 'Unhealthy', message: 'Readiness probe failed: connection refused' }],
      'SMOKE_PROBE',
      /not ready; Unhealthy: Readiness probe failed/,
    ],
    ['the last state is told', creating, [], 'SMOKE_TIMEOUT', /last seen: ContainerCreating/],
    [
      'Running for too short a time is no success',
      { state: 'running', message: 'Running' },
      [],
      'SMOKE_TIMEOUT',
      /Running/,
    ],
    ['a kubelet that never looked', { state: 'pending', message: 'Pending' }, [], 'SMOKE_NODE_NOT_READY', /kubelet/],
    [
      'a kubelet that looked and said something',
      { state: 'pending', message: 'Pending' },
      [{ reason: 'FailedMount', message: 'timed out' }],
      'SMOKE_VOLUME',
      /timed out/,
    ],
    [
      'a disk that cannot be attached',
      creating,
      [{ reason: 'FailedAttachVolume', message: 'timed out' }],
      'SMOKE_VOLUME',
      /timed out/,
    ],
    [
      'a kubelet that looked and said nothing of use',
      { state: 'pending', message: 'Pending' },
      [{ reason: 'Pulled', message: 'already present' }],
      'SMOKE_TIMEOUT',
      /Pending/,
    ],
  ])('%s', (_what, last, events, code, message) => {
    const verdict = judgeTimeout(last, { events });
    expect(brief(verdict)).toBe(code);
    expect(verdict.message).toMatch(message);
  });
});

describe('when the time is up and the cluster speaks of the node', () => {
  const condition = (status: string) => ({
    metadata: { name: 'w' },
    status: {
      conditions: [
        { type: 'MemoryPressure', status: 'False' },
        { type: 'Ready', status, reason: 'NodeStatusUnknown', message: 'Kubelet stopped posting' },
      ],
    },
  });
  const last: Verdict = { state: 'pending', message: 'ContainerCreating' };
  it.each([
    ['is not ready', condition('Unknown'), 'SMOKE_NODE_NOT_READY', /NodeStatusUnknown: Kubelet stopped posting/],
    ['is not there any more', 'absent' as const, 'SMOKE_NODE_NOT_READY', /no longer has the node/],
    ['is ready', condition('True'), 'SMOKE_TIMEOUT', /ContainerCreating/],
    ['may not be read', undefined, 'SMOKE_TIMEOUT', /ContainerCreating/],
  ])('that it %s', (_what, node, code, message) => {
    const verdict = judgeTimeout(last, { events: [], node });
    expect([brief(verdict), verdict.message]).toEqual([code, expect.stringMatching(message)]);
  });
});

describe('what counts', () => {
  const running = inState({ running: {} });
  const ready = pod({ phase: 'Running', containerStatuses: [{ ready: true, state: { running: {} } }] });
  const done = inState({ terminated: { exitCode: 0 } }, 'Succeeded');
  it.each([
    ['started', 'running running passed'],
    ['running', 'running running SMOKE_ENDED'],
    ['ready', 'pending running SMOKE_ENDED'],
    ['completed', 'pending pending passed'],
  ] as const)('with %s', (expect_, expected) => {
    const all = [running, ready, done].map(one => brief(judge(one, RECORDED_IMAGE_ID, { expect: expect_ })));
    expect(all.join(' ')).toBe(expected);
  });
});

describe('a pod of several containers', () => {
  const up = { name: 'app', imageID: RECORDED_IMAGE_ID, state: { running: {} } };
  const of = (containerStatuses: readonly ContainerStatus[], initContainerStatuses: readonly ContainerStatus[] = []) =>
    judge(pod({ phase: 'Running', containerStatuses, initContainerStatuses }), RECORDED_IMAGE_ID, {
      expect: 'started',
      containers: ['app'],
    });

  it('runs when all of them do, or are done', () => {
    expect(brief(of([up, { name: 'side', state: { waiting: { reason: 'PodInitializing' } } }]))).toBe('pending');
    expect(brief(of([up, { name: 'side', state: { terminated: { exitCode: 0 } } }]))).toBe('running');
  });

  it('is ready when all of them are, or are done', () => {
    const side = { name: 'side', state: { running: {} } };
    const ready = (...containerStatuses: readonly ContainerStatus[]) =>
      judge(pod({ phase: 'Running', containerStatuses }), RECORDED_IMAGE_ID, { expect: 'ready' });
    expect(brief(ready({ ...up, ready: true }, side))).toBe('pending');
    expect(ready({ ...up, ready: true }, { ...side, ready: true }).message).toBe('Running and ready');
    expect(brief(ready({ ...up, ready: true }, { name: 'side', state: { terminated: { exitCode: 0 } } }))).toBe(
      'running',
    );
  });

  it('fails with the first that fails, by its name, also before the others begin', () => {
    const failed = { name: 'setup', state: { terminated: { exitCode: 2, reason: 'Error' } } };
    expect(of([up], [failed])).toMatchObject({
      code: 'SMOKE_CRASHED',
      message: 'container setup: exit code 2 (Error)',
    });
  });

  it('has another image where the manifest says so, and not in the containers of the job', () => {
    expect(brief(of([up, { name: 'side', imageID: OTHER_ID, state: { running: {} } }]))).toBe('running');
    expect(brief(of([{ ...up, imageID: OTHER_ID }]))).toBe('SMOKE_OTHER_IMAGE');
  });
});

it('shows an event in one line, as kubectl does', () => {
  expect(describeEvent({ type: 'Warning', reason: 'Failed', message: 'Error: x\n', count: 3 })).toBe(
    'Warning Failed (x3): Error: x',
  );
  expect(describeEvent({ reason: 'Pulled' })).toBe('Pulled:');
});

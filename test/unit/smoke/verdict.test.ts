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
  'n1-run-as-non-root': { verdicts: 'pending SMOKE_CONFIG', message: /image will run as root/ },
  'n1-node-affinity': { verdicts: 'SMOKE_REJECTED', message: /NodeAffinity: Pod was rejected/ },
  'n1-out-of-cpu': { verdicts: 'SMOKE_REJECTED', message: /OutOfcpu: .*requested: 900000, used: 60, capacity: 2000/ },
  'n2-appears-later': { verdicts: 'pending SMOKE_IMAGE_NEVER_PULL' },
  'n2-no-sandbox-image': { verdicts: 'pending', timeout: 'SMOKE_SANDBOX' },
  'n3-running': { verdicts: 'pending running' },
  'n3-exit-0': { verdicts: 'pending passed' },
  'n3-exit-3': { verdicts: 'pending SMOKE_CRASHED', message: /exit code 3/ },
  'n3-oom': { verdicts: 'pending running SMOKE_OOM' },
  'n3-never-pull': { verdicts: 'pending SMOKE_IMAGE_NEVER_PULL' },
  'n3-deadline': { verdicts: 'pending SMOKE_IMAGE_NEVER_PULL' },
  'n3-no-such-command': { verdicts: 'pending SMOKE_START', message: /executable file `\/nope` not found/ },
  'n3-run-as-non-root': { verdicts: 'pending SMOKE_CONFIG' },
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
      expect(brief(judgeTimeout(decided, events))).toBe(expected.timeout);
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
  const rows: readonly (readonly [what: string, pod: Pod, verdict: string])[] = [
    ['a pod without a status', pod(undefined), 'pending'],
    ['a phase that nobody knows', pod({ phase: 'Unknown' }), 'pending'],
    ['a running container in a pod that is not Running yet', inState(running, 'Pending'), 'pending'],
    ['a Running pod whose container does not run', inState({ waiting: { reason: 'ContainerCreating' } }), 'pending'],
    ['a pod that Succeeded without telling its container', pod({ phase: 'Succeeded' }), 'pending'],
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
    ['the sandbox is named by its event', creating, [sandbox], 'SMOKE_SANDBOX', /network plugin is not ready/],
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
      'SMOKE_TIMEOUT',
      /Pending/,
    ],
  ])('%s', (_what, last, events, code, message) => {
    const verdict = judgeTimeout(last, events);
    expect(brief(verdict)).toBe(code);
    expect(verdict.message).toMatch(message);
  });
});

it('shows an event in one line, as kubectl does', () => {
  expect(describeEvent({ type: 'Warning', reason: 'Failed', message: 'Error: x\n', count: 3 })).toBe(
    'Warning Failed (x3): Error: x',
  );
  expect(describeEvent({ reason: 'Pulled' })).toBe('Pulled:');
});

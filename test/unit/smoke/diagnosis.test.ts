import { describe, expect, it } from 'vitest';
import { ERRORS } from '../../../src/errors.ts';
import { diagnose, type Evidence, nearMisses, type Proven } from '../../../src/smoke/diagnosis.ts';
import { fail } from '../../../src/smoke/verdict.ts';

const NOTHING: Evidence = {
  node: 'worker-1',
  nodeName: 'worker-1',
  reference: 'docker.io/library/app:1',
  imageId: `sha256:${'a'.repeat(64)}`,
  spelling: 'docker.io/library/app:1',
  pod: undefined,
  events: [],
  log: '',
  object: undefined,
  held: [],
};

describe('the name that was meant', () => {
  it.each([
    ['localhost', ['localhost/app:1']],
    ['another registry', ['registry.example/team/app:1']],
    ['another tag', ['docker.io/library/app:2']],
  ])('may be that of %s', (_what, held) => {
    expect(nearMisses('docker.io/library/app:1', ['registry.k8s.io/pause:3.10', ...held])).toEqual(held);
  });

  it('is another registry rather than another tag', () => {
    const held = ['docker.io/library/app:2', 'localhost/app:1'];
    expect(nearMisses('docker.io/library/app:1', held)[0]).toBe('localhost/app:1');
  });

  it('is none of others, and not the name itself', () => {
    const held = ['docker.io/library/app:1', 'localhost/app:2', 'localhost/apple:1', '<none>:<none>', 'not a name'];
    expect(nearMisses('docker.io/library/app:1', held)).toEqual([]);
  });
});

describe('a failure', () => {
  it('has the next step of its code, when nothing tells a better one', () => {
    const error = diagnose(fail('SMOKE_CRASHED', 'exit code 1 (Error)'), NOTHING);
    expect(error).toMatchObject({ code: 'SMOKE_CRASHED', node: 'worker-1', hint: ERRORS.SMOKE_CRASHED.hint });
    expect(error.message).toBe('docker.io/library/app:1: exit code 1 (Error)');
  });

  it('is one of the machine when the log says so', () => {
    const log = 'exec /app: exec format error';
    expect(diagnose(fail('SMOKE_CRASHED', 'exit code 255'), { ...NOTHING, log }).code).toBe('SMOKE_EXEC_FORMAT');
  });

  it.each([
    ['Killing', 'Container app failed liveness probe, will be restarted', 'exit code 1', 'SMOKE_PROBE'],
    ['Unhealthy', 'Liveness probe failed: connection refused', 'exit code 137 (Error)', 'SMOKE_PROBE'],
    ['Unhealthy', 'Startup probe failed: connection refused', 'exit code 143 (Error)', 'SMOKE_PROBE'],
    ['Unhealthy', 'Liveness probe failed: connection refused', 'exit code 1 (Error)', 'SMOKE_CRASHED'],
    ['Unhealthy', 'Readiness probe failed: connection refused', 'exit code 137 (Error)', 'SMOKE_CRASHED'],
  ])('is one of the probe when the kubelet ended the container for it: %s, %s, %s', (reason, message, said, code) => {
    const error = diagnose(fail('SMOKE_CRASHED', said), { ...NOTHING, events: [{ reason, message }] });
    expect(error.code).toBe(code);
    expect(error.message.includes(`the kubelet ended it: ${message}`)).toBe(code === 'SMOKE_PROBE');
  });

  it.each([
    ['OutOfpods: Pod was rejected', /maxPods/],
    ['OutOfcpu: Pod was rejected', /smoke-resources/],
    ['NodeAffinity: Pod was rejected', /node selector/],
    ['TaintToleration: Pod was rejected', /`NoExecute`/],
    ['Other: Pod was rejected', /The message names the rule/],
  ])('of a kubelet that does not take the pod has the step for its rule: %s', (message, hint) => {
    expect(diagnose(fail('SMOKE_REJECTED', message), NOTHING).hint).toMatch(hint);
  });

  it('of a pod that went with its node is the node’s', () => {
    const error = diagnose(fail('SMOKE_DELETED', 'the pod is gone'), { ...NOTHING, object: 'absent' });
    expect(error.code).toBe('SMOKE_NODE_NOT_READY');
    expect(error.message).toContain('the cluster no longer has the node');
  });
});

describe('an image that a kubelet does not find, and this run has seen', () => {
  const proven: Proven = {
    address: '10.0.0.11',
    socket: '/run/containerd/containerd.sock',
    seenAt: '2026-01-02T03:04:05.000Z',
    now: NOTHING.imageId,
    otherMachine: undefined,
    credentialPolicy: 'NeverVerifyPreloadedImages',
  };
  const never = fail('SMOKE_IMAGE_NEVER_PULL', 'ErrImageNeverPull');
  const seen = 'this run saw the image at 10.0.0.11 at 2026-01-02T03:04:05.000Z';

  it.each<[what: string, changes: Partial<Proven>, cause: string, hint: RegExp]>([
    [
      'is on another machine',
      { otherMachine: 'it has 10.0.0.11, the node 10.0.0.14' },
      `${seen}, and that is another machine than the node worker-1: it has 10.0.0.11, the node 10.0.0.14`,
      /`kubectl get nodes -o wide`/,
    ],
    ['is gone since', { now: 'absent' }, `${seen}, and it is gone since`, /crictl rmi --prune/],
    [
      'is another one since',
      { now: 'sha256:bb' },
      `${seen}, and since then the name is that of another image: sha256:bb`,
      /take turns/,
    ],
    ['cannot be looked for', { now: undefined }, `${seen}, and the node cannot be asked any more`, /./],
    [
      'is kept from pods by a policy',
      { credentialPolicy: 'AlwaysVerify' },
      `${seen}, and it is there still: the kubelet’s imagePullCredentialsVerificationPolicy, AlwaysVerify, keeps pods from it`,
      /preloadedImagesVerificationAllowlist/,
    ],
    [
      'is in another runtime',
      {},
      `${seen}, and the runtime behind /run/containerd/containerd.sock has it still: the kubelet of worker-1 asks another runtime`,
      /`cri-socket`/,
    ],
  ])('%s', (_what, changes, cause, hint) => {
    const held = ['localhost/app:1'];
    const error = diagnose(never, { ...NOTHING, held, proven: { ...proven, ...changes } });
    expect(error.code).toBe('SMOKE_IMAGE_NEVER_PULL');
    expect(error.message).toContain(cause);
    expect(error.message).not.toContain('localhost/app:1');
    expect(error.hint).toMatch(hint);
  });

  it('has a short name that is looked up elsewhere', () => {
    const short = { ...NOTHING, reference: 'localhost/app:1', spelling: 'app:1', proven };
    const error = diagnose(never, short);
    expect(error.message).toContain(`${seen} as localhost/app:1, and it is there still: the pod writes app:1`);
    expect(error.hint).toContain('localhost/app:1');
  });

  it('or finds another one in its place, is told likewise', () => {
    const other = fail('SMOKE_OTHER_IMAGE', 'the kubelet started image sha256:bb');
    const moved = diagnose(other, { ...NOTHING, proven: { ...proven, now: 'sha256:bb' } });
    expect(moved.message).toContain(`${seen}, and since then the name is that of another image: sha256:bb`);
    const elsewhere = diagnose(other, { ...NOTHING, proven: { ...proven, otherMachine: 'it has other addresses' } });
    expect(elsewhere.message).toContain('that is another machine than the node worker-1');
  });
});

import type { ErrorCode } from '../errors.ts';
import type { ContainerStatus, Pod, PodEvent } from './objects.ts';

/** What a pod's status says about the image: nothing yet, that it runs, or that it won't. */
export type Verdict =
  | { readonly state: 'pending'; readonly message: string }
  | { readonly state: 'running'; readonly message: string }
  | { readonly state: 'passed'; readonly message: string }
  | FailedVerdict;

export interface FailedVerdict {
  readonly state: 'failed';
  readonly code: ErrorCode;
  readonly message: string;
}

/** Reasons of a waiting container after which no waiting helps (kubelet: `pkg/kubelet/images/types.go`, `kuberuntime`). */
const FINAL_REASONS: Readonly<Record<string, ErrorCode>> = {
  ErrImageNeverPull: 'SMOKE_IMAGE_NEVER_PULL',
  ImageInspectError: 'SMOKE_IMAGE_INSPECT',
  InvalidImageName: 'SMOKE_IMAGE_NAME',
  CreateContainerConfigError: 'SMOKE_CONFIG',
  CreateContainerError: 'SMOKE_START',
  RunContainerError: 'SMOKE_START',
};

/** Reasons of a pod that the kubelet has ended by itself. */
const EVICTION_REASONS: ReadonlySet<string> = new Set(['Evicted', 'Preempting', 'Terminated', 'NodeShutdown']);

/**
 * The verdict on a smoke pod (one container, `restartPolicy: Never`). `running` passes once it has lasted for a moment:
 * a program that crashes at once is `Running` first. Whatever is not known is not a success.
 * @param imageId config digest that the container must have been made from, where the runtime reports one
 */
export function judge(pod: Pod, imageId: string): Verdict {
  const status = pod.status ?? {};
  const container = status.containerStatuses?.[0];
  const state = container?.state;
  if (pod.metadata.deletionTimestamp !== undefined) {
    return fail('SMOKE_DELETED', 'the pod is being deleted');
  }
  const other = otherImage(container, imageId);
  if (other !== undefined) {
    return fail('SMOKE_OTHER_IMAGE', `the kubelet started image ${other}, CI built ${imageId}`);
  }
  const terminated = state?.terminated;
  if (terminated !== undefined && terminated.reason !== 'ContainerStatusUnknown') {
    if (terminated.exitCode === 0) {
      return { state: 'passed', message: 'Completed with exit code 0' };
    }
    const said = join(terminated.reason, terminated.message);
    if (terminated.reason === 'OOMKilled') {
      return fail('SMOKE_OOM', said);
    }
    if (terminated.reason === 'StartError' || terminated.reason === 'ContainerCannotRun') {
      return fail('SMOKE_START', said);
    }
    return fail('SMOKE_CRASHED', `exit code ${terminated.exitCode ?? 'unknown'} (${said})`);
  }
  if (status.phase === 'Failed') {
    const said = join(status.reason, status.message);
    if (status.reason === 'DeadlineExceeded') {
      return fail('SMOKE_TIMEOUT', said);
    }
    return fail(EVICTION_REASONS.has(status.reason ?? '') ? 'SMOKE_EVICTED' : 'SMOKE_REJECTED', said);
  }
  const waiting = state?.waiting;
  const code = FINAL_REASONS[waiting?.reason ?? ''];
  if (code !== undefined) {
    return fail(code, join(waiting?.reason, waiting?.message));
  }
  if (status.phase === 'Running' && state?.running !== undefined) {
    return { state: 'running', message: 'Running' };
  }
  return { state: 'pending', message: join(waiting?.reason ?? status.phase ?? 'no status yet', waiting?.message) };
}

/** Looks at the events of a pod that did not get anywhere in time for what the status does not tell. */
export function judgeTimeout(last: Verdict, events: readonly PodEvent[]): FailedVerdict {
  const sandbox = events.find(event => event.reason === 'FailedCreatePodSandBox');
  if (sandbox !== undefined) {
    return fail('SMOKE_SANDBOX', join(sandbox.reason, sandbox.message));
  }
  if (events.length === 0 && last.state === 'pending' && last.message === 'Pending') {
    return fail('SMOKE_NODE_NOT_READY', 'the kubelet has not looked at the pod');
  }
  return fail('SMOKE_TIMEOUT', `last seen: ${last.message}`);
}

/** One line for an event, as `kubectl describe` would show it. */
export function describeEvent({ type, reason, message, count }: PodEvent): string {
  return `${type ?? ''} ${reason ?? ''}${(count ?? 1) > 1 ? ` (x${count})` : ''}: ${(message ?? '').trim()}`.trim();
}

/** containerd reports the image ID itself; CRI-O a repository digest, which says nothing about the config. */
function otherImage(container: ContainerStatus | undefined, imageId: string): string | undefined {
  const reported = /^(?:docker:\/\/)?(sha256:[0-9a-f]{64})$/.exec(container?.imageID ?? '')?.[1];
  return reported === undefined || reported === imageId ? undefined : reported;
}

function fail(code: ErrorCode, message: string): FailedVerdict {
  return { state: 'failed', code, message };
}

function join(reason: string | undefined, message: string | undefined): string {
  const parts = [reason, message?.trim()].filter(part => part !== undefined && part !== '');
  return parts.length > 0 ? parts.join(': ') : 'without a reason';
}

import type { ErrorCode } from '../errors.ts';
import type { ContainerStatus, NodeObject, Pod, PodEvent } from './objects.ts';

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
  /** The next step, when whoever said no knows a better one than that of the code. */
  readonly hint?: string;
}

/**
 * What counts as success. `started`: runs for a moment, or has ended with exit code 0; `running`: runs, and goes on;
 * `ready`: runs and passes its readiness probes; `completed`: has ended with exit code 0.
 */
export type SmokeExpect = 'started' | 'running' | 'ready' | 'completed';

interface Expectation {
  readonly expect: SmokeExpect;
  /** Names of the containers that are made from the image that CI built; all, unless told. */
  readonly containers?: readonly string[];
}

/** Reasons of a waiting container after which no waiting helps (kubelet: `pkg/kubelet/images/types.go`, `kuberuntime`). */
const FINAL_REASONS: Readonly<Record<string, ErrorCode>> = {
  ErrImageNeverPull: 'SMOKE_IMAGE_NEVER_PULL',
  ErrImagePull: 'PULL_FORCED',
  ImagePullBackOff: 'PULL_FORCED',
  RegistryUnavailable: 'PULL_FORCED',
  ImageInspectError: 'SMOKE_IMAGE_INSPECT',
  InvalidImageName: 'SMOKE_IMAGE_NAME',
  CreateContainerConfigError: 'SMOKE_CONFIG',
  CreateContainerError: 'SMOKE_START',
  RunContainerError: 'SMOKE_START',
};

/** Of a kubelet that has lost its runtime, and tries again: gRPC's words, and those of cri-dockerd when only Docker is away. */
const RUNTIME_AWAY = /transport: Error while dialing|error reading from server|Cannot connect to the Docker daemon/;

/** Reasons of a pod that the kubelet has ended by itself; `Terminated` and `NodeShutdown` are those of a node that shuts down. */
const EVICTION_REASONS: ReadonlySet<string> = new Set(['Evicted', 'Preempting', 'Terminated', 'NodeShutdown']);

/**
 * The verdict on a smoke pod (`restartPolicy: Never`). `running` passes once it has lasted for a moment: a program that
 * crashes at once is `Running` first. Whatever is not known is not a success.
 * @param imageId config digest that the containers must have been made from, where the runtime reports one
 */
export function judge(pod: Pod, imageId: string, expectation: Expectation = { expect: 'started' }): Verdict {
  const status = pod.status ?? {};
  const { expect, containers } = expectation;
  const main = status.containerStatuses ?? [];
  const all = [...(status.initContainerStatuses ?? []), ...main];
  const disruption = status.conditions?.find(({ type, status: is }) => type === 'DisruptionTarget' && is === 'True');
  if (disruption !== undefined) {
    return fail('SMOKE_EVICTED', join(disruption.reason, disruption.message));
  }
  if (pod.metadata.deletionTimestamp !== undefined) {
    return fail('SMOKE_DELETED', 'the pod is being deleted');
  }
  for (const container of all) {
    const isOurs = containers === undefined || containers.includes(container.name ?? '');
    const other = isOurs ? otherImage(container, imageId) : undefined;
    if (other !== undefined) {
      return fail('SMOKE_OTHER_IMAGE', `the kubelet started image ${other}, CI built ${imageId}`);
    }
  }
  // A pod that the kubelet ended has killed containers too: what they say is the consequence.
  if (status.phase === 'Failed' && status.reason !== undefined) {
    return ended(status.reason, status.message);
  }
  for (const container of all) {
    const failure = failureOf(container);
    if (failure !== undefined) {
      return all.length > 1
        ? { ...failure, message: `container ${container.name ?? '?'}: ${failure.message}` }
        : failure;
    }
  }
  if (status.phase === 'Failed') {
    return ended(status.reason, status.message);
  }
  const isOver = (container: ContainerStatus) => container.state?.terminated?.exitCode === 0;
  if (main.length > 0 && main.every(isOver)) {
    return expect === 'running' || expect === 'ready'
      ? fail('SMOKE_ENDED', `ended with exit code 0, and \`smoke-expect: ${expect}\` wants it to go on`)
      : { state: 'passed', message: 'Completed with exit code 0' };
  }
  const runs = (container: ContainerStatus) => container.state?.running !== undefined || isOver(container);
  if (status.phase === 'Running' && main.length > 0 && main.every(runs)) {
    if (expect === 'completed') {
      return { state: 'pending', message: 'Running, and not completed' };
    }
    if (expect === 'ready' && !main.every(container => container.ready === true || isOver(container))) {
      return { state: 'pending', message: 'Running, and not ready' };
    }
    return { state: 'running', message: expect === 'ready' ? 'Running and ready' : 'Running' };
  }
  const waiting = all.find(container => container.state?.waiting !== undefined)?.state?.waiting;
  return { state: 'pending', message: join(waiting?.reason ?? status.phase ?? 'no status yet', waiting?.message) };
}

/** A pod whose phase is `Failed`, in the kubelet's own words. */
function ended(reason: string | undefined, message: string | undefined): FailedVerdict {
  const said = join(reason, message);
  if (reason === 'DeadlineExceeded') {
    return fail('SMOKE_TIMEOUT', said);
  }
  return fail(EVICTION_REASONS.has(reason ?? '') ? 'SMOKE_EVICTED' : 'SMOKE_REJECTED', said);
}

function failureOf({ state }: ContainerStatus): FailedVerdict | undefined {
  const terminated = state?.terminated;
  if (terminated !== undefined && terminated.reason !== 'ContainerStatusUnknown' && terminated.exitCode !== 0) {
    const said = join(terminated.reason, terminated.message);
    if (terminated.reason === 'OOMKilled') {
      return fail('SMOKE_OOM', said);
    }
    if (terminated.reason === 'StartError' || terminated.reason === 'ContainerCannotRun') {
      return fail(startCode(said), said);
    }
    return fail('SMOKE_CRASHED', `exit code ${terminated.exitCode ?? 'unknown'} (${said})`);
  }
  const waiting = state?.waiting;
  const code = FINAL_REASONS[waiting?.reason ?? ''];
  if (code === undefined) {
    return undefined;
  }
  const said = join(waiting?.reason, waiting?.message);
  if (RUNTIME_AWAY.test(said)) {
    return undefined;
  }
  if (code === 'SMOKE_START') {
    return fail(startCode(said), said);
  }
  // kubelet: pkg/kubelet/kuberuntime/security_context.go
  return fail(code === 'SMOKE_CONFIG' && /runAsNonRoot/.test(said) ? 'SMOKE_RUN_AS_NON_ROOT' : code, said);
}

/** What a runtime's words about a container that does not start amount to. */
export function startCode(said: string): ErrorCode {
  return /exec format error/i.test(said) ? 'SMOKE_EXEC_FORMAT' : 'SMOKE_START';
}

/** What a runtime's or kubelet's words about a sandbox that cannot be made amount to. */
export function sandboxCode(said: string): ErrorCode {
  if (/sandbox image|failed to (get|pull) image|pulling image|pause/i.test(said)) {
    return 'SMOKE_SANDBOX_IMAGE';
  }
  return /network|\bcni\b/i.test(said) ? 'SMOKE_NETWORK' : 'SMOKE_SANDBOX';
}

/** What is known of a pod that did not get anywhere in time, besides its last state. */
interface Surroundings {
  readonly events: readonly PodEvent[];
  /** What the cluster says of the node; `undefined` when that may not be read. */
  readonly node?: NodeObject | 'absent' | undefined;
}

/** Looks at the node and at the events of a pod that did not get anywhere in time for what the status does not tell. */
export function judgeTimeout(last: Verdict, { events, node }: Surroundings): FailedVerdict {
  const unready = unreadyNode(node);
  if (unready !== undefined) {
    return fail('SMOKE_NODE_NOT_READY', unready);
  }
  // Once a container has started, what kept it from starting is history.
  if (last.state === 'pending' && !last.message.startsWith('Running')) {
    const sandbox = events.findLast(event => event.reason === 'FailedCreatePodSandBox');
    if (sandbox !== undefined) {
      return fail(sandboxCode(sandbox.message ?? ''), join(sandbox.reason, sandbox.message));
    }
    const network = events.findLast(event => event.reason === 'NetworkNotReady');
    if (network !== undefined) {
      return fail('SMOKE_NETWORK', join(network.reason, network.message));
    }
    const volume = events.findLast(({ reason }) => reason === 'FailedMount' || reason === 'FailedAttachVolume');
    if (volume !== undefined) {
      return fail('SMOKE_VOLUME', join(volume.reason, volume.message));
    }
    if (events.length === 0 && last.message === 'Pending') {
      return fail('SMOKE_NODE_NOT_READY', 'the kubelet has not looked at the pod');
    }
  }
  const unhealthy = events.findLast(event => event.reason === 'Unhealthy');
  if (unhealthy !== undefined) {
    return fail('SMOKE_PROBE', `last seen: ${last.message}; ${join(unhealthy.reason, unhealthy.message)}`);
  }
  return fail('SMOKE_TIMEOUT', `last seen: ${last.message}`);
}

/** Why no word can be expected from the node's kubelet; `undefined` when the cluster knows of no reason. */
export function unreadyNode(node: NodeObject | 'absent' | undefined): string | undefined {
  if (node === 'absent') {
    return 'the cluster no longer has the node';
  }
  const ready = node?.status?.conditions?.find(({ type }) => type === 'Ready');
  return ready === undefined || ready.status === 'True'
    ? undefined
    : `the cluster says that the node is not ready: ${join(ready.reason ?? ready.status, ready.message)}`;
}

/** One line for an event, as `kubectl describe` would show it. */
export function describeEvent({ type, reason, message, count }: PodEvent): string {
  return `${type ?? ''} ${reason ?? ''}${(count ?? 1) > 1 ? ` (x${count})` : ''}: ${(message ?? '').trim()}`.trim();
}

/** containerd reports the image ID itself; CRI-O a repository digest, which says nothing about the config. */
function otherImage(container: ContainerStatus, imageId: string): string | undefined {
  const reported = /^(?:docker:\/\/)?(sha256:[0-9a-f]{64})$/.exec(container.imageID ?? '')?.[1];
  return reported === undefined || reported === imageId ? undefined : reported;
}

export function fail(code: ErrorCode, message: string): FailedVerdict {
  return { state: 'failed', code, message };
}

export function join(reason: string | undefined, message: string | undefined): string {
  const parts = [reason, message?.trim()].filter(part => part !== undefined && part !== '');
  return parts.length > 0 ? parts.join(': ') : 'without a reason';
}

import { setTimeout as delay } from 'node:timers/promises';
import { messageOf, SideloadError, toSideloadError } from '../errors.ts';
import { followPods } from './follow.ts';
import type { Kubectl } from './kubectl.ts';
import type { Pod, PodEvent } from './objects.ts';
import { RUN_LABEL, smokePodManifest } from './pod.ts';
import { describeEvent, type FailedVerdict, judge, judgeTimeout, type Verdict } from './verdict.ts';

/** One image that must start on one node. */
export interface SmokeTarget {
  /** The node as the user named it. */
  readonly node: string;
  /** `metadata.name` of the Kubernetes node. */
  readonly nodeName: string;
  readonly reference: string;
  readonly imageId: string;
}

export interface SmokeResult {
  readonly target: SmokeTarget;
  /** `undefined` when the kubelet has started the image. */
  readonly error: SideloadError | undefined;
  /** What the kubelet said at last. */
  readonly message: string;
  /** From creation of the pod to the verdict. */
  readonly durationMs: number;
}

export interface SmokeOptions {
  readonly runId: string;
  readonly timeoutMs: number;
  readonly command: readonly string[];
  /** Cancels the job; pods are deleted all the same. */
  readonly signal: AbortSignal;
  readonly onResult: (result: SmokeResult) => void;
  readonly onTrouble: (message: string) => void;
}

/** How long `Running` must last to count: longer than the second that a kubelet may take to notice a container's end. */
const SETTLE_MS = 2000;
/** How long deleted pods may take to disappear before they are deleted without grace; also how long an API server may be away. */
const DELETE_MS = 15_000;
const DELETE_RETRY_MS = 1000;
/** Added to the timeout for the deadline in the pod, which the kubelet enforces when nobody is left to delete it. */
const DEADLINE_MARGIN_SECONDS = 60;

/**
 * Asks the API server whether it would accept the pods, before anything is sent to a node. Makes nothing.
 * @throws SideloadError when it refuses
 */
export async function checkCluster(
  kubectl: Kubectl,
  targets: readonly SmokeTarget[],
  options: Pick<SmokeOptions, 'runId' | 'timeoutMs' | 'command'>,
): Promise<void> {
  const [first] = targets;
  if (first !== undefined) {
    await kubectl.createPod(manifest(first, 0, options), { dryRun: true });
  }
}

/**
 * Starts every target at once, waits for the kubelets' verdicts, and deletes the pods again, whatever happens.
 * @throws SideloadError when the pods cannot be deleted, or the reason of `signal` when it is aborted
 */
export async function runSmokePods(
  kubectl: Kubectl,
  targets: readonly SmokeTarget[],
  options: SmokeOptions,
): Promise<readonly SmokeResult[]> {
  try {
    return await judgeAll(kubectl, targets, options);
  } finally {
    await deletePods(kubectl, options.runId);
  }
}

/**
 * Deletes all pods of a run and waits until the API server says that they are gone.
 * @throws SideloadError when it refuses, or stays away
 */
export async function deletePods(kubectl: Kubectl, runId: string): Promise<void> {
  const deadline = AbortSignal.timeout(DELETE_MS);
  for (;;) {
    try {
      return await deleteOnce(kubectl, runId);
    } catch (thrown) {
      if (toSideloadError(thrown).code !== 'CLUSTER_UNREACHABLE' || deadline.aborted) {
        throw thrown;
      }
      await delay(DELETE_RETRY_MS);
    }
  }
}

async function deleteOnce(kubectl: Kubectl, runId: string): Promise<void> {
  const labelSelector = selector(runId);
  const left = new Set((await kubectl.listPods(labelSelector)).items.map(pod => pod.metadata.name));
  if (left.size === 0) {
    return;
  }
  await Promise.all([...left].map(name => kubectl.deletePod(name, 1)));
  const gone = new AbortController();
  const stopWhenEmpty = () => {
    if (left.size === 0) {
      gone.abort();
    }
  };
  await followPods(kubectl, {
    labelSelector,
    onPod: () => {},
    onList: names => {
      for (const name of left) {
        if (!names.has(name)) {
          left.delete(name);
        }
      }
      stopWhenEmpty();
    },
    onDeleted: pod => {
      left.delete(pod.metadata.name);
      stopWhenEmpty();
    },
    until: AbortSignal.any([gone.signal, AbortSignal.timeout(DELETE_MS)]),
  });
  await Promise.all([...left].map(name => kubectl.deletePod(name, 0)));
}

/** A pod that is being watched, until it has a conclusion. */
interface Watched {
  readonly target: SmokeTarget;
  readonly name: string;
  /** What the API server said at last. */
  pod: Pod | undefined;
  verdict: Verdict;
  /** Runs while the pod is `Running` and may still crash. */
  settling: NodeJS.Timeout | undefined;
  conclusion: Promise<SmokeResult> | undefined;
}

async function judgeAll(
  kubectl: Kubectl,
  targets: readonly SmokeTarget[],
  options: SmokeOptions,
): Promise<readonly SmokeResult[]> {
  const { signal } = options;
  const startedAt = Date.now();
  const finished = new AbortController();
  const pods: readonly Watched[] = targets.map((target, index) => ({
    target,
    name: podName(options.runId, index),
    pod: undefined,
    verdict: { state: 'pending', message: 'nothing' },
    settling: undefined,
    conclusion: undefined,
  }));
  const byName = new Map(pods.map(pod => [pod.name, pod]));

  const conclude = (watched: Watched, verdict: Exclude<Verdict, { state: 'pending' }>) => {
    if (watched.conclusion !== undefined) {
      return;
    }
    unsettle(watched);
    const { target } = watched;
    const error = verdict.state === 'failed' ? explain(kubectl, watched, verdict) : Promise.resolve(undefined);
    watched.conclusion = error.then(known => {
      const result = { target, error: known, message: verdict.message, durationMs: Date.now() - startedAt };
      options.onResult(result);
      return result;
    });
    if (pods.every(pod => pod.conclusion !== undefined)) {
      finished.abort();
    }
  };
  const look = (pod: Pod) => {
    const watched = byName.get(pod.metadata.name);
    if (watched === undefined || watched.conclusion !== undefined) {
      return;
    }
    const verdict = judge(pod, watched.target.imageId);
    watched.pod = pod;
    watched.verdict = verdict;
    if (verdict.state === 'running') {
      watched.settling ??= setTimeout(() => conclude(watched, verdict), SETTLE_MS);
    } else {
      unsettle(watched);
      if (verdict.state !== 'pending') {
        conclude(watched, verdict);
      }
    }
  };
  const miss = (watched: Watched | undefined) => {
    if (watched !== undefined) {
      conclude(watched, { state: 'failed', code: 'SMOKE_DELETED', message: 'the pod is gone' });
    }
  };

  try {
    await Promise.all(
      pods.map(async (watched, index) => {
        signal.throwIfAborted();
        try {
          look(await kubectl.createPod(manifest(watched.target, index, options)));
        } catch (thrown) {
          conclude(watched, { state: 'failed', code: 'SMOKE_REJECTED', message: messageOf(thrown) });
        }
      }),
    );
    await followPods(kubectl, {
      labelSelector: selector(options.runId),
      onPod: look,
      onList: names => {
        for (const watched of pods.filter(({ name }) => !names.has(name))) {
          miss(watched);
        }
      },
      onDeleted: pod => miss(byName.get(pod.metadata.name)),
      onTrouble: message => {
        // Nobody watches now: a Running that was seen before proves nothing until it is seen again.
        pods.forEach(unsettle);
        options.onTrouble(message);
      },
      until: AbortSignal.any([finished.signal, AbortSignal.timeout(options.timeoutMs), signal]),
    });
    signal.throwIfAborted();
    return await Promise.all(
      pods.map(async watched => {
        if (watched.conclusion === undefined) {
          conclude(watched, judgeTimeout(watched.verdict, await eventsOf(kubectl, watched.pod)));
        }
        return await (watched.conclusion as Promise<SmokeResult>);
      }),
    );
  } finally {
    pods.forEach(unsettle);
  }
}

function unsettle(watched: Watched): void {
  clearTimeout(watched.settling);
  watched.settling = undefined;
}

/** The error of a failed pod: the kubelet's words, then the pod's events and last log lines, as far as they are to be had. */
async function explain(kubectl: Kubectl, { target, pod }: Watched, verdict: FailedVerdict): Promise<SideloadError> {
  const events = await eventsOf(kubectl, pod);
  const log =
    verdict.code === 'SMOKE_CRASHED' && pod !== undefined
      ? await kubectl.logTail(pod.metadata.name).catch(() => '')
      : '';
  const details = [
    ...(pod === undefined ? [] : [`  pod phase: ${pod.status?.phase ?? 'unknown'}`]),
    ...events.map(event => `  event: ${describeEvent(event)}`),
    ...(log === '' ? [] : log.split('\n').map(line => `  log: ${line}`)),
  ];
  return new SideloadError(verdict.code, [`${target.reference}: ${verdict.message}`, ...details].join('\n'), {
    node: target.node,
  });
}

/** Events and logs explain a verdict and never make one: without the right to read them it stands as it is. */
async function eventsOf(kubectl: Kubectl, pod: Pod | undefined): Promise<readonly PodEvent[]> {
  return pod === undefined ? [] : await kubectl.eventsOf(pod.metadata.uid).catch(() => []);
}

function manifest(
  target: SmokeTarget,
  index: number,
  { runId, timeoutMs, command }: Pick<SmokeOptions, 'runId' | 'timeoutMs' | 'command'>,
): object {
  return smokePodManifest({
    name: podName(runId, index),
    nodeName: target.nodeName,
    image: target.reference,
    command,
    runId,
    deadlineSeconds: Math.ceil(timeoutMs / 1000) + DEADLINE_MARGIN_SECONDS,
  });
}

function podName(runId: string, index: number): string {
  return `kube-sideload-${runId}-${index}`;
}

function selector(runId: string): string {
  return `${RUN_LABEL}=${runId}`;
}

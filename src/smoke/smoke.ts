import { setTimeout as delay } from 'node:timers/promises';
import { SideloadError, toSideloadError } from '../errors.ts';
import { followPods } from './follow.ts';
import type { Kubectl } from './kubectl.ts';
import type { Pod } from './objects.ts';
import { RUN_LABEL, smokePodManifest } from './pod.ts';
import { describeEvent, judge, judgeTimeout, type Verdict } from './verdict.ts';

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
 * Asks the API server whether it would accept every pod, before anything is sent to a node.
 * @returns the errors by node name; empty when all is well
 * @throws SideloadError when the cluster refuses for a reason that is no node's own
 */
export async function checkCluster(
  kubectl: Kubectl,
  targets: readonly SmokeTarget[],
  options: Pick<SmokeOptions, 'runId' | 'timeoutMs' | 'command'>,
): Promise<ReadonlyMap<string, SideloadError>> {
  const errors = new Map<string, SideloadError>();
  const [first] = targets;
  if (first === undefined) {
    return errors;
  }
  await kubectl.createPod(manifest(first, 0, options), { dryRun: true });
  const nodes = new Map(targets.map(target => [target.nodeName, target.node]));
  await Promise.all(
    [...nodes].map(async ([nodeName, node]) => {
      if ((await kubectl.hasNode(nodeName)) === false) {
        const message = `the cluster has no node ${JSON.stringify(nodeName)}`;
        errors.set(nodeName, new SideloadError('NODE_NOT_IN_CLUSTER', message, { node }));
      }
    }),
  );
  return errors;
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

async function judgeAll(
  kubectl: Kubectl,
  targets: readonly SmokeTarget[],
  options: SmokeOptions,
): Promise<readonly SmokeResult[]> {
  const { signal } = options;
  const results = new Map<SmokeTarget, SmokeResult>();
  const byName = new Map<string, SmokeTarget>();
  const last = new Map<SmokeTarget, { readonly pod: Pod; readonly verdict: Verdict }>();
  const timers = new Map<SmokeTarget, NodeJS.Timeout>();
  const finished = new AbortController();
  const startedAt = Date.now();

  const conclude = (target: SmokeTarget, message: string, error?: SideloadError) => {
    if (results.has(target)) {
      return;
    }
    clearTimeout(timers.get(target));
    const result = { target, error, message, durationMs: Date.now() - startedAt };
    results.set(target, result);
    options.onResult(result);
    if (results.size === targets.length) {
      finished.abort();
    }
  };
  const rejected: Promise<void>[] = [];
  const fail = (target: SmokeTarget, verdict: Extract<Verdict, { state: 'failed' }>) => {
    rejected.push(
      explain(kubectl, target, verdict, last.get(target)?.pod).then(error => conclude(target, verdict.message, error)),
    );
  };
  const failed = new Set<SmokeTarget>();
  const look = (pod: Pod) => {
    const target = byName.get(pod.metadata.name);
    if (target === undefined || failed.has(target) || results.has(target)) {
      return;
    }
    const verdict = judge(pod, target.imageId);
    last.set(target, { pod, verdict });
    if (verdict.state !== 'running') {
      clearTimeout(timers.get(target));
      timers.delete(target);
    }
    if (verdict.state === 'passed') {
      conclude(target, verdict.message);
    } else if (verdict.state === 'failed') {
      failed.add(target);
      fail(target, verdict);
    } else if (verdict.state === 'running' && !timers.has(target)) {
      timers.set(
        target,
        setTimeout(() => conclude(target, verdict.message), SETTLE_MS),
      );
    }
  };
  const disappeared = (target: SmokeTarget) => {
    if (!failed.has(target) && !results.has(target)) {
      failed.add(target);
      fail(target, { state: 'failed', code: 'SMOKE_DELETED', message: 'the pod is gone' });
    }
  };

  try {
    await Promise.all(
      targets.map(async (target, index) => {
        signal.throwIfAborted();
        try {
          const pod = await kubectl.createPod(manifest(target, index, options));
          byName.set(pod.metadata.name, target);
          look(pod);
        } catch (thrown) {
          const error = toSideloadError(thrown, target.node);
          conclude(target, error.message, new SideloadError('SMOKE_REJECTED', error.message, { node: target.node }));
        }
      }),
    );
    const timeout = AbortSignal.timeout(options.timeoutMs);
    await followPods(kubectl, {
      labelSelector: selector(options.runId),
      onPod: look,
      onList: names => {
        for (const [name, target] of byName) {
          if (!names.has(name)) {
            disappeared(target);
          }
        }
      },
      onDeleted: pod => {
        const target = byName.get(pod.metadata.name);
        if (target !== undefined) {
          disappeared(target);
        }
      },
      onTrouble: message => {
        // Nobody watches now: a Running that was seen before proves nothing until it is seen again.
        for (const timer of timers.values()) {
          clearTimeout(timer);
        }
        timers.clear();
        options.onTrouble(message);
      },
      until: AbortSignal.any([finished.signal, timeout, signal]),
    });
    signal.throwIfAborted();
    await Promise.all(
      targets
        .filter(target => !results.has(target) && !failed.has(target))
        .map(async target => {
          const seen = last.get(target);
          const events = seen === undefined ? [] : await kubectl.eventsOf(seen.pod.metadata.uid).catch(() => []);
          const verdict = judgeTimeout(seen?.verdict ?? { state: 'pending', message: 'nothing' }, events);
          if (verdict.state === 'failed') {
            fail(target, verdict);
          }
        }),
    );
    await Promise.all(rejected);
    return targets.map(target => {
      const result = results.get(target);
      if (result === undefined) {
        throw new SideloadError('INTERNAL', `no verdict on ${target.reference}`, { node: target.node });
      }
      return result;
    });
  } finally {
    for (const timer of timers.values()) {
      clearTimeout(timer);
    }
  }
}

/** The error of a failed pod: the kubelet's words, then the pod's events and last log lines, as far as they are to be had. */
async function explain(
  kubectl: Kubectl,
  target: SmokeTarget,
  verdict: Extract<Verdict, { state: 'failed' }>,
  pod: Pod | undefined,
): Promise<SideloadError> {
  const events = pod === undefined ? [] : await kubectl.eventsOf(pod.metadata.uid).catch(() => []);
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

function manifest(
  target: SmokeTarget,
  index: number,
  { runId, timeoutMs, command }: Pick<SmokeOptions, 'runId' | 'timeoutMs' | 'command'>,
): object {
  return smokePodManifest({
    name: `kube-sideload-${runId}-${index}`,
    nodeName: target.nodeName,
    image: target.reference,
    command,
    runId,
    deadlineSeconds: Math.ceil(timeoutMs / 1000) + DEADLINE_MARGIN_SECONDS,
  });
}

function selector(runId: string): string {
  return `${RUN_LABEL}=${runId}`;
}

import { setTimeout as delay } from 'node:timers/promises';
import { follow, onAbort, pause, within } from '../abort.ts';
import { SideloadError, toSideloadError } from '../errors.ts';
import { normalise } from '../image/reference.ts';
import { NODE_RIGHTS, SMOKE_RIGHTS } from '../privileges.ts';
import { diagnose, type Proven } from './diagnosis.ts';
import { type Confinement, confinementOf, type Fit, type FitSettings, firstFit, fitPod } from './fit.ts';
import { followPods } from './follow.ts';
import type { Kubectl } from './kubectl.ts';
import { lostPods, runOfPod } from './lost.ts';
import { assertUsed, containersOf, type PodTemplate, withSpelling } from './manifest.ts';
import type { NodeObject, Pod } from './objects.ts';
import { ALL_RUNS, CONTAINER, RUN_LABEL, smokePodManifest } from './pod.ts';
import { rightsHint } from './refusal.ts';
import { slotsFor } from './slots.ts';
import { fail, judge, judgeTimeout, type SmokeExpect, type Verdict } from './verdict.ts';

/** One image that must start on one node. */
export interface SmokeTarget {
  /** The node as the user named it. */
  readonly node: string;
  /** `metadata.name` of the Kubernetes node. */
  readonly nodeName: string;
  readonly reference: string;
  /** What the pod writes for it. */
  readonly spelling: string;
  readonly imageId: string;
  /** The user of the image's config; empty for root. */
  readonly user: string;
}

export interface SmokeResult {
  readonly target: SmokeTarget;
  /** `undefined` when the kubelet, or the runtime, has started the image. */
  readonly error: SideloadError | undefined;
  /** What it said at last. */
  readonly message: string;
  /** From creation of the pod to the verdict. */
  readonly durationMs: number;
}

export interface SmokeOptions extends FitSettings {
  readonly runId: string;
  /** Runs that have lost their locks: nobody else deletes their pods. */
  readonly lostRuns: ReadonlySet<string>;
  /** For each pod. */
  readonly timeoutMs: number;
  readonly command: readonly string[];
  readonly template: PodTemplate | undefined;
  readonly expect: SmokeExpect;
  /** How many pods there are at most at a time. */
  readonly parallel: number;
  /** Cancels the job; pods are deleted all the same. */
  readonly signal: AbortSignal;
  readonly onResult: (result: SmokeResult) => void;
  readonly onTrouble: (message: string) => void;
  /** Names of the images that a node has, for the explanation of a failure. */
  readonly heldOn: (target: SmokeTarget) => Promise<readonly string[]>;
  /** What the run has seen of the image, and sees now, where it has put it; the node is as the cluster says. */
  readonly provenOn: (target: SmokeTarget, node: NodeObject | undefined) => Promise<Proven | undefined>;
}

/** How the pods of each image are made, by {@link fitKey}. */
export type Fits = ReadonlyMap<string, Fit>;

/** How long `Running` must last to count: longer than the second that a kubelet may take to notice a container's end. */
const SETTLE_MS = 2000;
/** How long deleted pods may take to disappear before they are deleted without grace; also how long an API server may be away. */
const DELETE_MS = 15_000;
const DELETE_RETRY_MS = 1000;
const CREATE_RETRY_MS = 1000;
/** Added to the timeout for the deadline in the pod, which the kubelet enforces when nobody is left to delete it. */
const DEADLINE_MARGIN_SECONDS = 60;

/**
 * Asks the API server whether it would accept the pods, before anything is sent to a node. Makes nothing.
 * @param log is told of what had to be changed for the namespace
 * @returns how each image's pods are to be made
 * @throws SideloadError when it refuses; INPUT_INVALID when the manifest starts none of the images
 */
export async function checkCluster(
  kubectl: Kubectl,
  targets: readonly SmokeTarget[],
  options: SmokeOptions,
  log: (line: string) => void,
): Promise<Fits> {
  const { template } = options;
  if (template !== undefined && targets.length > 0) {
    assertUsed(
      template,
      targets.map(({ spelling }) => normalise(spelling)),
    );
  }
  const rights = targets.length > 0 ? [...SMOKE_RIGHTS, ...NODE_RIGHTS.filter(({ verbs }) => verbs[0] === 'get')] : [];
  const asked = rights.map(async right => ({ ...right, missing: await kubectl.missingVerbs(right) }));
  for (const { resource, missing, without } of await Promise.all(asked)) {
    const faults = missing.map(verb => `cannot ${verb} resource "${resource}"`).join(', ');
    if (missing.length > 0 && without === undefined) {
      throw new SideloadError('CLUSTER_REFUSED', `the credentials ${faults} in the namespace ${kubectl.namespace}`, {
        hint: rightsHint(missing, 'pods', kubectl.namespace),
      });
    }
    if (missing.length > 0) {
      log(`the credentials ${faults}: ${without}`);
    }
  }
  const fits = new Map<string, Fit>();
  for (const target of targets) {
    if (!fits.has(fitKey(target))) {
      const first = firstFit(target.user, options);
      const { fit, changes } = await fitPod(kubectl, first, options, one => manifest(target, 0, one, options));
      for (const change of changes) {
        log(`the smoke pods of ${target.spelling} run ${change}`);
      }
      fits.set(fitKey(target), fit);
    }
  }
  return fits;
}

function fitKey({ spelling, user }: SmokeTarget): string {
  return `${spelling} ${user}`;
}

/**
 * Starts every target, waits for the kubelets' verdicts, and deletes the pods again, whatever happens.
 * @throws SideloadError when the pods cannot be deleted, or the reason of `signal` when it is aborted
 */
export async function runSmokePods(
  kubectl: Kubectl,
  targets: readonly SmokeTarget[],
  fits: Fits,
  options: SmokeOptions,
): Promise<readonly SmokeResult[]> {
  try {
    return await judgeAll(kubectl, targets, fits, options);
  } finally {
    await deletePods(kubectl, options.runId, options.lostRuns);
  }
}

/**
 * Deletes all pods of a run, and those of runs that are lost, and waits until the API server says that they are gone.
 * @throws SideloadError when it refuses, or stays away
 */
export async function deletePods(
  kubectl: Kubectl,
  runId: string,
  lostRuns: ReadonlySet<string> = new Set(),
): Promise<void> {
  const begunAtMs = performance.now();
  for (;;) {
    try {
      return await deleteOnce(kubectl, runId, lostRuns);
    } catch (thrown) {
      if (!isTemporary(thrown) || performance.now() - begunAtMs >= DELETE_MS) {
        throw thrown;
      }
      await delay(DELETE_RETRY_MS);
    }
  }
}

async function deleteOnce(kubectl: Kubectl, runId: string, lostRuns: ReadonlySet<string>): Promise<void> {
  const labelSelector = ALL_RUNS;
  const { items } = await kubectl.listPods(labelSelector);
  const own = items.filter(pod => runOfPod(pod) === runId);
  const left = new Set([...own, ...lostPods(items, runId, lostRuns)].map(pod => pod.metadata.name));
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
  const following = {
    labelSelector,
    onPod: () => {},
    onList: (names: ReadonlySet<string>) => {
      for (const name of left) {
        if (!names.has(name)) {
          left.delete(name);
        }
      }
      stopWhenEmpty();
    },
    onDeleted: (pod: Pod) => {
      left.delete(pod.metadata.name);
      stopWhenEmpty();
    },
  };
  await within(DELETE_MS, gone.signal, until => followPods(kubectl, { ...following, until }));
  await Promise.all([...left].map(name => kubectl.deletePod(name, 0)));
}

/** A pod that is being watched, until it has a conclusion. */
interface Watched {
  readonly target: SmokeTarget;
  readonly index: number;
  readonly name: string;
  startedAt: number;
  /** Whether the API server has said that the pod is made, and whether it had when the last list was asked for. */
  isCreated: boolean;
  isListable: boolean;
  /** What the API server said at last. */
  pod: Pod | undefined;
  verdict: Verdict;
  /** Runs while the pod is `Running` and may still crash. */
  settling: NodeJS.Timeout | undefined;
  conclusion: Verdict | undefined;
  /** Called with the conclusion. */
  concluded: () => void;
}

async function judgeAll(
  kubectl: Kubectl,
  targets: readonly SmokeTarget[],
  fits: Fits,
  options: SmokeOptions,
): Promise<readonly SmokeResult[]> {
  const { signal, expect, template } = options;
  const pods: readonly Watched[] = targets.map((target, index) => ({
    target,
    index,
    name: podName(options.runId, index),
    startedAt: 0,
    isCreated: false,
    isListable: false,
    pod: undefined,
    verdict: { state: 'pending', message: 'nothing' },
    settling: undefined,
    conclusion: undefined,
    concluded: () => {},
  }));
  const byName = new Map(pods.map(pod => [pod.name, pod]));

  const conclude = (watched: Watched, verdict: Verdict) => {
    if (watched.conclusion === undefined) {
      unsettle(watched);
      watched.conclusion = verdict;
      watched.concluded();
    }
  };
  const look = (pod: Pod) => {
    const watched = byName.get(pod.metadata.name);
    if (watched === undefined || watched.conclusion !== undefined) {
      return;
    }
    const { imageId, spelling } = watched.target;
    const containers = template === undefined ? [] : containersOf(template, normalise(spelling));
    const verdict = judge(pod, imageId, containers.length > 0 ? { expect, containers } : { expect });
    watched.isCreated = true;
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
      conclude(watched, fail('SMOKE_DELETED', 'the pod is gone'));
    }
  };

  const report = async (watched: Watched): Promise<SmokeResult> => {
    const { template, security } = options;
    const isOwn = template === undefined || containersOf(template, watched.target.reference).length === 0;
    const fit = fits.get(fitKey(watched.target));
    const confinement = isOwn && fit !== undefined ? confinementOf(fit, { security }) : undefined;
    const result = await explain(kubectl, watched, options, confinement);
    options.onResult(result);
    return result;
  };

  /** One pod from creation to its result. */
  const run = async (watched: Watched): Promise<SmokeResult> => {
    signal.throwIfAborted();
    watched.startedAt = Date.now();
    if (watched.conclusion !== undefined) {
      return await report(watched);
    }
    const concluded = new Promise<void>(resolve => {
      watched.concluded = resolve;
    });
    const fit = fits.get(fitKey(watched.target)) ?? firstFit(watched.target.user, options);
    await within(options.timeoutMs, signal, async over => {
      try {
        const pod = await create(
          kubectl,
          manifest(watched.target, watched.index, fit, options),
          over,
          options.onTrouble,
        );
        if (pod !== undefined) {
          look(pod);
        }
      } catch (thrown) {
        const { code, message, hint } = toSideloadError(thrown);
        conclude(watched, { ...fail(code, message), hint });
      }
      await Promise.race([concluded, new Promise<void>(resolve => onAbort(over, resolve))]);
    });
    signal.throwIfAborted();
    const result = await report(watched);
    if (targets.length > options.parallel) {
      // Somebody else wants its place. Should that fail, the deletion of all at the end is the one that counts.
      await kubectl.deletePod(watched.name, 1).catch(() => {});
    }
    return result;
  };

  const finished = follow(signal);
  const slots = slotsFor(options.parallel);
  // All of them, also when one throws: a pod that is being created meanwhile must not escape the deletion that follows.
  const running = Promise.allSettled(pods.map(watched => slots(() => run(watched)))).finally(() => finished.abort());
  const following = followPods(kubectl, {
    labelSelector: selector(options.runId),
    onListing: () => {
      for (const watched of pods) {
        watched.isListable = watched.isCreated;
      }
    },
    onPod: look,
    onList: names => {
      for (const watched of pods.filter(({ name, isListable }) => isListable && !names.has(name))) {
        miss(watched);
      }
    },
    onDeleted: pod => miss(byName.get(pod.metadata.name)),
    onTrouble: message => {
      // Nobody watches now: a Running that was seen before proves nothing until it is seen again.
      pods.forEach(unsettle);
      options.onTrouble(message);
    },
    until: finished.signal,
  }).catch((thrown: unknown) => {
    const { code, message, hint } = toSideloadError(thrown);
    for (const watched of pods) {
      conclude(watched, { ...fail(code, message), hint });
    }
  });
  const settled = await running;
  pods.forEach(unsettle);
  await following;
  return settled.map(one => {
    if (one.status === 'rejected') {
      throw one.reason;
    }
    return one.value;
  });
}

function unsettle(watched: Watched): void {
  clearTimeout(watched.settling);
  watched.settling = undefined;
}

/**
 * Creates a pod. An API server that is away is asked again; then the pod may be there already, from a request whose
 * answer was lost: the watch tells of it.
 * @throws SideloadError when it refuses, or CLUSTER_UNREACHABLE when the time is over
 */
async function create(
  kubectl: Kubectl,
  pod: object,
  over: AbortSignal,
  onTrouble: (message: string) => void,
): Promise<Pod | undefined> {
  for (let attempt = 1; ; attempt++) {
    try {
      return await kubectl.createPod(pod);
    } catch (thrown) {
      const { message } = toSideloadError(thrown);
      if (attempt > 1 && /\(AlreadyExists\)/.test(message)) {
        return undefined;
      }
      if (!isTemporary(thrown) || over.aborted) {
        throw thrown;
      }
      onTrouble(message);
      await pause(CREATE_RETRY_MS, over).catch(() => {});
    }
  }
}

function isTemporary(thrown: unknown): boolean {
  return toSideloadError(thrown).code === 'CLUSTER_UNREACHABLE';
}

/**
 * The result of a pod that has its conclusion, or that ran out of time; a failure with all that can be learned about it.
 * Node, events, log and images explain a verdict and never make one: without the right to read them it stands as it is.
 */
async function explain(
  kubectl: Kubectl,
  watched: Watched,
  { heldOn, provenOn }: SmokeOptions,
  confinement: Confinement | undefined,
): Promise<SmokeResult> {
  const { target, pod, conclusion } = watched;
  const result = (verdict: Verdict, error?: SideloadError): SmokeResult => ({
    target,
    error,
    message: verdict.message,
    durationMs: Date.now() - watched.startedAt,
  });
  if (conclusion !== undefined && conclusion.state !== 'failed') {
    return result(conclusion);
  }
  const [events, object] = await Promise.all([
    pod === undefined ? [] : kubectl.eventsOf(pod.metadata.uid).catch(() => []),
    kubectl.getNode(target.nodeName).catch(() => undefined),
  ]);
  const verdict = conclusion ?? judgeTimeout(watched.verdict, { events, node: object });
  const isAboutName = verdict.code === 'SMOKE_IMAGE_NEVER_PULL' || verdict.code === 'SMOKE_IMAGE_INSPECT';
  const isAboutImage = isAboutName || verdict.code === 'SMOKE_OTHER_IMAGE';
  const [held, proven] = await Promise.all([
    isAboutName ? heldOn(target).catch(() => namesOf(object)) : [],
    isAboutImage ? provenOn(target, object === 'absent' ? undefined : object).catch(() => undefined) : undefined,
  ]);
  const hasRun = ['SMOKE_CRASHED', 'SMOKE_PROBE', 'SMOKE_TIMEOUT', 'SMOKE_ENDED'].includes(verdict.code);
  const container = failedContainer(pod);
  const log =
    hasRun && container !== undefined && pod !== undefined
      ? await kubectl.logTail(pod.metadata.name, container).catch(() => '')
      : '';
  const { node, nodeName, reference, spelling, imageId } = target;
  const evidence = {
    node,
    nodeName,
    reference,
    spelling,
    imageId,
    pod,
    events,
    log,
    object,
    held,
    proven,
    confinement,
  };
  return result(verdict, diagnose(verdict, evidence));
}

/** The container whose log tells something: the first that ended badly, else the first that has begun. */
function failedContainer(pod: Pod | undefined): string | undefined {
  const all = [...(pod?.status?.initContainerStatuses ?? []), ...(pod?.status?.containerStatuses ?? [])];
  const failed = all.find(({ state }) => state?.terminated !== undefined && state.terminated.exitCode !== 0);
  const begun = all.find(({ state }) => state?.running !== undefined || state?.terminated !== undefined);
  const one = failed ?? begun;
  return one === undefined ? undefined : (one.name ?? CONTAINER);
}

function namesOf(object: Awaited<ReturnType<Kubectl['getNode']>>): readonly string[] {
  return object === undefined || object === 'absent'
    ? []
    : (object.status?.images ?? []).flatMap(({ names }) => names ?? []);
}

function manifest(
  { nodeName, spelling }: SmokeTarget,
  index: number,
  fit: Fit,
  { runId, timeoutMs, command, template }: SmokeOptions,
): object {
  return smokePodManifest({
    name: podName(runId, index),
    nodeName,
    image: spelling,
    command,
    runId,
    deadlineSeconds: Math.ceil(timeoutMs / 1000) + DEADLINE_MARGIN_SECONDS,
    // An image that the manifest does not use gets a pod of ours.
    template: template === undefined ? undefined : withSpelling(template, spelling),
    ...fit,
  });
}

function podName(runId: string, index: number): string {
  return `kube-sideload-${runId}-${index}`;
}

function selector(runId: string): string {
  return `${RUN_LABEL}=${runId}`;
}

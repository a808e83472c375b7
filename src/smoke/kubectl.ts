import { within } from '../abort.ts';
import { messageOf, SideloadError } from '../errors.ts';
import type { ClusterRight } from '../privileges.ts';
import type { NodeList, NodeObject, Pod, PodEvent, PodList, WatchEvent } from './objects.ts';
import { type KubectlProgram, localKubectl } from './program.ts';
import { refusal } from './refusal.ts';
import { slotsFor } from './slots.ts';

/**
 * The cluster, through the user's own `kubectl` or `oc`: every way of logging in works. All calls are `--raw` requests:
 * no discovery, no cache on disk, and the rights that are needed are those of the few requests below.
 */
export interface Kubectl {
  /** Of the smoke pods. */
  readonly namespace: string;
  /** Creates a pod and returns it as the API server stored it; with `dryRun` everything is checked and nothing is made. */
  createPod(pod: object, options?: { readonly dryRun?: boolean }): Promise<Pod>;
  /** Which of its verbs the credentials lack, for nodes everywhere, else in the namespace; none when that may not be asked. */
  missingVerbs(right: ClusterRight): Promise<readonly string[]>;
  listPods(labelSelector: string): Promise<PodList>;
  /** Calls `onEvent` for every change from `resourceVersion` on, until the watch ends, for whatever reason. */
  watchPods(
    labelSelector: string,
    resourceVersion: string,
    onEvent: (event: WatchEvent) => void,
    signal: AbortSignal,
  ): Promise<void>;
  /** Deletes a pod; one that is gone is fine. With a grace period of 0 the API server forgets it at once. */
  deletePod(name: string, gracePeriodSeconds: number): Promise<void>;
  /** Events of one pod, by UID: those of an earlier pod of the same name are not among them. */
  eventsOf(podUid: string): Promise<readonly PodEvent[]>;
  /** `absent` when the cluster has no such node, `undefined` when the credentials may not read nodes. */
  getNode(name: string): Promise<NodeObject | 'absent' | undefined>;
  /**
   * The nodes that a label selector takes; all when it is empty.
   * @throws SideloadError INPUT_INVALID for a selector that is none, CLUSTER_REFUSED without the right to list nodes
   */
  listNodes(labelSelector: string): Promise<readonly NodeObject[]>;
  /** The last lines of the log of a pod, or of one of its containers; empty when there is none to be had. */
  logTail(name: string, container?: string): Promise<string>;
  /** Ends what it takes to reach the cluster. Never rejects. */
  close(): Promise<void>;
}

type Waiting = <T>(answer: Promise<T>) => Promise<T>;

interface KubectlOptions {
  /** Name or path of the program. */
  readonly program: string;
  /** Path of the kubeconfig; `undefined` for the program's own default. */
  readonly kubeconfig: string | undefined;
  readonly namespace: string;
}

/** Longest time that one request may take; a watch ends by itself after this and is opened again. */
const REQUEST_TIMEOUT_SECONDS = 60;
/** And the program: what it logs in by may be another program, which waits for somebody. */
const PROGRAM_MS = (REQUEST_TIMEOUT_SECONDS + 30) * 1000;
/** At most this many at once: each is a process of some 40 MB; and one SSH connection carries ten by default, watch included. */
const MAX_REQUESTS = 6;

function silence(): SideloadError {
  return new SideloadError('CLUSTER_UNREACHABLE', `kubectl has not ended within ${PROGRAM_MS / 1000} s`, {
    hint: 'Try `kubectl get nodes` with this kubeconfig, as the user of the job and without a terminal: a program that it logs in by (`exec`) may be waiting for somebody.',
  });
}

/** @throws SideloadError KUBECTL_NOT_FOUND */
export async function findKubectl(
  { program, kubeconfig, namespace }: KubectlOptions,
  waiting?: Waiting,
): Promise<Kubectl> {
  return kubectlWith(await localKubectl(program, kubeconfig), namespace, waiting);
}

/** @param waiting is given each answer while it is waited for; by default nobody is told */
export function kubectlWith(program: KubectlProgram, namespace: string, waiting: Waiting = answer => answer): Kubectl {
  const pods = `/api/v1/namespaces/${namespace}/pods`;
  const slots = slotsFor(MAX_REQUESTS);

  async function request(args: readonly string[], input = ''): Promise<string> {
    const argv = [`--request-timeout=${REQUEST_TIMEOUT_SECONDS}s`, ...args];
    const ask = (limit: AbortSignal) => program.run(argv, input, limit);
    const result = await slots(() => waiting(within(PROGRAM_MS, undefined, ask, silence)));
    if (result.code !== 0) {
      throw refusal(result.stderr.trim() || `kubectl ended with exit code ${result.code}`);
    }
    return result.stdout;
  }

  return {
    namespace,
    createPod: async (pod, { dryRun = false } = {}) =>
      parse(await request(['create', `--raw=${pods}${dryRun ? '?dryRun=All' : ''}`, '-f', '-'], JSON.stringify(pod))),
    missingVerbs: async ({ resource: full, verbs }) => {
      const [resource, subresource] = full.split('/');
      const where = full === 'nodes' ? {} : { namespace };
      const answers = await Promise.all(
        verbs.map(async verb => {
          const spec = { resourceAttributes: { ...where, verb, resource, ...(subresource && { subresource }) } };
          const review = { apiVersion: 'authorization.k8s.io/v1', kind: 'SelfSubjectAccessReview', spec };
          const uri = '/apis/authorization.k8s.io/v1/selfsubjectaccessreviews';
          return await request(['create', `--raw=${uri}`, '-f', '-'], JSON.stringify(review)).then(
            answer => parse<{ status?: { allowed?: boolean } }>(answer).status?.allowed !== false,
            // Whoever may not ask learns it from the requests themselves.
            () => true,
          );
        }),
      );
      return verbs.filter((_, index) => answers[index] === false);
    },
    listPods: async labelSelector => parse(await request(['get', `--raw=${pods}?${query({ labelSelector })}`])),
    watchPods: async (labelSelector, resourceVersion, onEvent, signal) => {
      const uri = `${pods}?${query({ watch: 'true', labelSelector, resourceVersion, timeoutSeconds: String(REQUEST_TIMEOUT_SECONDS) })}`;
      // A connection that breaks off leaves half a line, which is no JSON.
      const { code, stderr } = await program.stream(['get', `--raw=${uri}`], line => onEvent(parse(line)), signal);
      if (code !== 0) {
        throw refusal(stderr.trim() || `kubectl ended with exit code ${code}`);
      }
    },
    deletePod: async (name, gracePeriodSeconds) => {
      const body = JSON.stringify({ apiVersion: 'v1', kind: 'DeleteOptions', gracePeriodSeconds });
      await request(['delete', `--raw=${pods}/${name}`, '-f', '-'], body).catch(error => {
        if (!/\(NotFound\)/.test(messageOf(error))) {
          throw error;
        }
      });
    },
    eventsOf: async podUid => {
      const uri = `/api/v1/namespaces/${namespace}/events?${query({ fieldSelector: `involvedObject.uid=${podUid}` })}`;
      return parse<{ items: PodEvent[] }>(await request(['get', `--raw=${uri}`])).items;
    },
    getNode: async name => {
      try {
        return parse<NodeObject>(await request(['get', `--raw=/api/v1/nodes/${encodeURIComponent(name)}`]));
      } catch (error) {
        if (/\(NotFound\)/.test(messageOf(error))) {
          return 'absent';
        }
        if (/\(Forbidden\)/.test(messageOf(error))) {
          return undefined;
        }
        throw error;
      }
    },
    listNodes: async labelSelector => {
      const selected = labelSelector === '' ? '' : `?${query({ labelSelector })}`;
      try {
        return parse<NodeList>(await request(['get', `--raw=/api/v1/nodes${selected}`])).items;
      } catch (error) {
        if (/\(Forbidden\)/.test(messageOf(error))) {
          throw new SideloadError('CLUSTER_REFUSED', messageOf(error), {
            hint: 'Let the credentials `list` nodes (a ClusterRole), or name the nodes in `nodes`.',
            cause: error,
          });
        }
        if (/\(BadRequest\)|unable to parse requirement/.test(messageOf(error))) {
          throw new SideloadError('INPUT_INVALID', `\`node-selector\`: ${messageOf(error)}`, {
            hint: 'Write it as for `kubectl get nodes --selector`, as in `pool=ci,!node-role.kubernetes.io/control-plane`.',
            cause: error,
          });
        }
        throw error;
      }
    },
    logTail: async (name, container) => {
      const asked = query({ ...(container === undefined ? {} : { container }), tailLines: '20', limitBytes: '8192' });
      return (await request(['get', `--raw=${pods}/${name}/log?${asked}`]).catch(() => '')).trim();
    },
    close: () => program.close(),
  };
}

function query(parameters: Readonly<Record<string, string>>): string {
  return new URLSearchParams(parameters).toString();
}

function parse<T>(json: string): T {
  try {
    return JSON.parse(json) as T;
  } catch (cause) {
    throw new SideloadError('CLUSTER_UNREACHABLE', `the answer of the API is not JSON: ${json.slice(0, 200)}`, {
      cause,
    });
  }
}

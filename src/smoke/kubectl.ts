import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { getExecOutput } from '@actions/exec';
import { which } from '@actions/io';
import { messageOf, SideloadError } from '../errors.ts';
import type { NodeList, NodeObject, Pod, PodEvent, PodList, WatchEvent } from './objects.ts';

/**
 * The cluster, through the user's own `kubectl` or `oc`: every way of logging in works. All calls are `--raw` requests:
 * no discovery, no cache on disk, and the rights that are needed are those of the few requests below.
 */
export interface Kubectl {
  /** Creates a pod and returns it as the API server stored it; with `dryRun` everything is checked and nothing is made. */
  createPod(pod: object, options?: { readonly dryRun?: boolean }): Promise<Pod>;
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
  /** The last lines of the pod's log; empty when there is none to be had. */
  logTail(name: string): Promise<string>;
}

interface KubectlOptions {
  /** Name or path of the program. */
  readonly program: string;
  /** Path of the kubeconfig; `undefined` for the program's own default. */
  readonly kubeconfig: string | undefined;
  readonly namespace: string;
}

/** Longest time that one request may take; a watch ends by itself after this and is opened again. */
const REQUEST_TIMEOUT_SECONDS = 60;

/** @throws SideloadError KUBECTL_NOT_FOUND */
export async function findKubectl({ program, kubeconfig, namespace }: KubectlOptions): Promise<Kubectl> {
  const path = await which(program, true).catch(cause => {
    throw new SideloadError('KUBECTL_NOT_FOUND', `there is no program ${JSON.stringify(program)} on the runner`, {
      cause,
    });
  });
  const global = kubeconfig === undefined ? [] : [`--kubeconfig=${kubeconfig}`];
  const pods = `/api/v1/namespaces/${namespace}/pods`;

  async function request(args: readonly string[], input = ''): Promise<string> {
    const result = await getExecOutput(path, [...global, `--request-timeout=${REQUEST_TIMEOUT_SECONDS}s`, ...args], {
      silent: true,
      ignoreReturnCode: true,
      input: Buffer.from(input),
    });
    if (result.exitCode !== 0) {
      throw refusal(result.stderr.trim() || `kubectl ended with exit code ${result.exitCode}`);
    }
    return result.stdout;
  }

  return {
    createPod: async (pod, { dryRun = false } = {}) =>
      parse(await request(['create', `--raw=${pods}${dryRun ? '?dryRun=All' : ''}`, '-f', '-'], JSON.stringify(pod))),
    listPods: async labelSelector => parse(await request(['get', `--raw=${pods}?${query({ labelSelector })}`])),
    watchPods: async (labelSelector, resourceVersion, onEvent, signal) => {
      const uri = `${pods}?${query({ watch: 'true', labelSelector, resourceVersion, timeoutSeconds: String(REQUEST_TIMEOUT_SECONDS) })}`;
      // @actions/exec can neither be cancelled nor read line by line with back pressure.
      const child = spawn(path, [...global, 'get', `--raw=${uri}`], { stdio: ['ignore', 'pipe', 'pipe'], signal });
      const ended = once(child, 'close');
      let stderr = '';
      child.stderr.on('data', (chunk: Buffer) => {
        stderr = (stderr + chunk.toString()).slice(-4096);
      });
      const lines = createInterface({ input: child.stdout });
      let broken: unknown;
      lines.on('line', line => {
        try {
          onEvent(parse(line));
        } catch (thrown) {
          // A connection that breaks off leaves half a line; thrown in here it would end the process.
          broken ??= thrown;
          child.kill();
        }
      });
      const [code] = (await ended.catch(cause => {
        throw signal.aborted ? signal.reason : cause;
      })) as [number | null];
      if (broken !== undefined) {
        throw broken;
      }
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
            hint: 'Let the credentials `list` nodes (a ClusterRole), or list the nodes in `nodes`.',
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
    logTail: async name =>
      (await request(['get', `--raw=${pods}/${name}/log?tailLines=20&limitBytes=8192`]).catch(() => '')).trim(),
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

/** Tells from kubectl's words what went wrong; they are the API machinery's own and the same in `oc`. */
function refusal(stderr: string): SideloadError {
  const said = stderr
    .split('\n')
    .filter(line => !/^[EWI]\d{4} /.test(line))
    .join('\n')
    .trim();
  const message = said === '' ? stderr : said;
  if (/namespaces? "[^"]*" not found/.test(message)) {
    return new SideloadError('NAMESPACE_NOT_FOUND', message);
  }
  if (/\((Forbidden|Unauthorized)\)|must be logged in|provide credentials/i.test(message)) {
    return new SideloadError('CLUSTER_REFUSED', message);
  }
  if (/server localhost:8080 was refused/.test(message)) {
    return new SideloadError('KUBECONFIG_INVALID', message, {
      hint: 'Without a kubeconfig kubectl tries localhost:8080: pass a path or the content in `kubeconfig`.',
    });
  }
  if (
    /error loading config file|error in configuration|invalid configuration|no configuration has been provided|unable to (read|load)|getting credentials|context .* does not exist|yaml:|stat .*no such file/i.test(
      message,
    )
  ) {
    return new SideloadError('KUBECONFIG_INVALID', message);
  }
  if (
    /was refused|no route to host|connection reset|EOF$|i\/o timeout|timed out|deadline exceeded|no such host|unable to connect|\((ServiceUnavailable|Timeout|TooManyRequests)\)|x509|TLS/i.test(
      message,
    )
  ) {
    return new SideloadError('CLUSTER_UNREACHABLE', message);
  }
  return new SideloadError('CLUSTER_REFUSED', message);
}

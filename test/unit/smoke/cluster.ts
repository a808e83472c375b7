import { EventEmitter, once } from 'node:events';
import { vi } from 'vitest';
import { SideloadError } from '../../../src/errors.ts';
import type { Kubectl } from '../../../src/smoke/kubectl.ts';
import type { Pod, PodEvent, WatchEvent } from '../../../src/smoke/objects.ts';
import { RECORDED_IMAGE_ID } from './recorded.ts';

type Status = NonNullable<Pod['status']>;

export const STATUS = {
  pending: { phase: 'Pending' },
  creating: { phase: 'Pending', containerStatuses: [{ state: { waiting: { reason: 'ContainerCreating' } } }] },
  running: {
    phase: 'Running',
    containerStatuses: [{ imageID: RECORDED_IMAGE_ID, state: { running: { startedAt: '2026-01-01T00:00:00Z' } } }],
  },
  completed: {
    phase: 'Succeeded',
    containerStatuses: [{ imageID: RECORDED_IMAGE_ID, state: { terminated: { exitCode: 0, reason: 'Completed' } } }],
  },
  crashed: {
    phase: 'Failed',
    containerStatuses: [{ imageID: RECORDED_IMAGE_ID, state: { terminated: { exitCode: 3, reason: 'Error' } } }],
  },
  neverPull: {
    phase: 'Pending',
    containerStatuses: [{ state: { waiting: { reason: 'ErrImageNeverPull', message: 'not present' } } }],
  },
} as const satisfies Record<string, Status>;

export const API_DOWN = new SideloadError('CLUSTER_UNREACHABLE', 'The connection to the server was refused');

/** A cluster whose pods do what the test says. */
export interface FakeCluster {
  readonly kubectl: Kubectl;
  /** Pods by name, as they are now. */
  readonly pods: Map<string, Pod>;
  /** Everything that was asked, as `create NAME`, `list`, `watch`, `delete NAME GRACE`. */
  readonly calls: string[];
  /** What the next requests of a kind end in, one after the other, before they work again. */
  readonly fail: { readonly create: unknown[]; readonly list: unknown[]; readonly delete: unknown[] };
  /** Whether a deletion with grace makes a pod disappear. */
  deletes: boolean;
  events: readonly PodEvent[];
  /** Gives a pod another status, and tells the watch of it. */
  become(name: string, status: Status): void;
  /** Takes a pod away, as somebody else would. */
  remove(name: string): void;
  /** Sends any event to the watch. */
  send(event: WatchEvent): void;
  /** Ends the watch that is open, well or with an error. */
  endWatch(error?: Error): void;
  /** Resolves when a watch is open. */
  watching(): Promise<void>;
}

export function fakeCluster(): FakeCluster {
  const emitter = new EventEmitter();
  let open: { readonly onEvent: (event: WatchEvent) => void; readonly end: (error?: Error) => void } | undefined;
  let uid = 0;
  const failNext = (queue: unknown[]) => {
    const error = queue.shift();
    if (error !== undefined) throw error;
  };
  const remove = (name: string) => {
    const pod = cluster.pods.get(name);
    if (pod !== undefined) {
      cluster.pods.delete(name);
      cluster.send({ type: 'DELETED', object: pod });
    }
  };
  const kubectl: Kubectl = {
    namespace: 'smoke',
    async createPod(manifest, { dryRun = false } = {}) {
      const { metadata } = manifest as Pod;
      cluster.calls.push(`${dryRun ? 'dry-run' : 'create'} ${metadata.name}`);
      failNext(cluster.fail.create);
      const pod = { ...(manifest as Pod), metadata: { ...metadata, uid: `uid-${uid++}` }, status: STATUS.pending };
      if (!dryRun) cluster.pods.set(metadata.name, pod);
      return pod;
    },
    async listPods() {
      cluster.calls.push('list');
      failNext(cluster.fail.list);
      return { metadata: { resourceVersion: '1' }, items: [...cluster.pods.values()] };
    },
    watchPods(_selector, _version, onEvent, signal) {
      cluster.calls.push('watch');
      return new Promise((resolve, reject) => {
        const end = (error?: Error) => {
          open = undefined;
          if (error === undefined) resolve();
          else reject(error);
        };
        signal.addEventListener('abort', () => end(signal.reason), { once: true });
        open = { onEvent, end };
        emitter.emit('watch');
      });
    },
    async deletePod(name, grace) {
      cluster.calls.push(`delete ${name} ${grace}`);
      failNext(cluster.fail.delete);
      if (cluster.deletes || grace === 0) remove(name);
    },
    eventsOf: async () => cluster.events,
    getNode: async name => ({ metadata: { name } }),
    listNodes: async () => [],
    logTail: async () => '',
    missingVerbs: async () => [],
    close: async () => {},
  };
  const cluster: FakeCluster = {
    kubectl,
    pods: new Map(),
    calls: [],
    fail: { create: [], list: [], delete: [] },
    deletes: true,
    events: [],
    become(name, status) {
      const pod = { ...(cluster.pods.get(name) as Pod), status };
      cluster.pods.set(name, pod);
      cluster.send({ type: 'MODIFIED', object: pod });
    },
    remove,
    send: event => open?.onEvent(event),
    endWatch: error => open?.end(error),
    async watching() {
      if (open === undefined) await once(emitter, 'watch');
    },
  };
  vi.spyOn(kubectl, 'logTail');
  return cluster;
}

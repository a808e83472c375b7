import { pause } from '../abort.ts';
import { toSideloadError } from '../errors.ts';
import type { Kubectl } from './kubectl.ts';
import type { Pod } from './objects.ts';
import { isForbidden } from './refusal.ts';

interface FollowOptions {
  readonly labelSelector: string;
  /** Called before each listing. */
  readonly onListing?: () => void;
  /** Called with the state of each pod at first, and after every change. */
  readonly onPod: (pod: Pod) => void;
  /** Called with the names of all pods after every (re-)listing: a pod that is not among them is gone. */
  readonly onList?: (names: ReadonlySet<string>) => void;
  readonly onDeleted: (pod: Pod) => void;
  /** Called when the API server does not answer; following goes on. */
  readonly onTrouble?: (message: string) => void;
  /** Ends the following, without an error. */
  readonly until: AbortSignal;
}

/** From one attempt to the next, when the API server does not answer or ends watches at once. */
const RETRY_MS = 1000;
/** An API server that has just started may refuse credentials for a moment; one that goes on does not know them. */
const MAX_REFUSALS = 5;

/**
 * Follows pods by list and watch, as client-go's reflector does: the list gives the state and the version from which to
 * watch; a watch that ends, for whatever reason, begins again with a list. Trouble is reported and does not end it.
 * @throws SideloadError CLUSTER_REFUSED when the credentials are refused, again and again
 */
export async function followPods(kubectl: Kubectl, options: FollowOptions): Promise<void> {
  const { labelSelector, until } = options;
  let refusals = 0;
  while (!until.aborted) {
    try {
      options.onListing?.();
      const list = await kubectl.listPods(labelSelector);
      if (until.aborted) {
        return;
      }
      for (const pod of list.items) {
        options.onPod(pod);
      }
      options.onList?.(new Set(list.items.map(pod => pod.metadata.name)));
      if (until.aborted) {
        return;
      }
      const openedAt = Date.now();
      await kubectl.watchPods(
        labelSelector,
        list.metadata.resourceVersion,
        event => {
          if (until.aborted || event.type === 'BOOKMARK' || event.type === 'ERROR') {
            return; // An ERROR (410 Gone, say) is followed by the end of the watch, and that by a new list.
          }
          (event.type === 'DELETED' ? options.onDeleted : options.onPod)(event.object);
        },
        until,
      );
      refusals = 0;
      await wait(RETRY_MS - (Date.now() - openedAt), until);
    } catch (error) {
      if (until.aborted) {
        return;
      }
      const trouble = toSideloadError(error);
      refusals = isForbidden(trouble) ? refusals + 1 : 0;
      if (refusals >= MAX_REFUSALS) {
        throw trouble;
      }
      options.onTrouble?.(trouble.message);
      await wait(RETRY_MS, until);
    }
  }
}

async function wait(milliseconds: number, until: AbortSignal): Promise<void> {
  if (milliseconds > 0) {
    await pause(milliseconds, until).catch(() => {});
  }
}

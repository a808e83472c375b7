/** Calls back when a signal fires, in the same turn when it has fired already. @returns what takes that back */
export function onAbort(signal: AbortSignal, act: () => void): () => void {
  if (signal.aborted) {
    act();
    return () => {};
  }
  const acts = actsOf(signal);
  const own = () => act();
  acts.add(own);
  return () => void acts.delete(own);
}

/**
 * What is to be done when a signal fires. A signal gets one listener from us, however many nodes and layers wait for it:
 * Node takes the eleventh for a leak, and says so in the log (nodejs/node#47039 ended that after Node 20).
 */
const ACTS = new WeakMap<AbortSignal, Set<() => void>>();

function actsOf(signal: AbortSignal): Set<() => void> {
  const known = ACTS.get(signal);
  if (known !== undefined) {
    return known;
  }
  const acts = new Set<() => void>();
  ACTS.set(signal, acts);
  const listener = () => {
    for (const act of acts) {
      act();
    }
  };
  signal.addEventListener('abort', listener, { once: true });
  return acts;
}

/** A signal that fires with others, or when it is told to. */
export interface Following {
  readonly signal: AbortSignal;
  abort(reason?: unknown): void;
  /** It fires with the others no more. */
  release(): void;
}

/** In place of `AbortSignal.any`, which on Node 20 lets go of signals that nobody else holds: those of timers are lost. */
export function follow(...signals: readonly AbortSignal[]): Following {
  const controller = new AbortController();
  const stops: (() => void)[] = [];
  const release = () => {
    for (const stop of stops.splice(0)) {
      stop();
    }
  };
  const abort = (reason?: unknown) => {
    release();
    controller.abort(reason);
  };
  for (const signal of signals) {
    stops.push(onAbort(signal, () => abort(signal.reason)));
  }
  return { signal: controller.signal, abort, release };
}

/** What a timer of Node can count to. */
const LONGEST_MS = 2 ** 31 - 1;

/**
 * Does something that has to be over within a time: the signal that it gets fires then, and when `outer` does. In place of
 * `AbortSignal.timeout`, whose timer does not keep its signal alive (on Node 20 a garbage collection ends it unfired), and
 * which nobody can take back.
 * @param act may begin the time anew, with another limit and another reason
 * @param late the reason with which the signal fires when the time has passed
 */
export async function within<T>(
  limitMs: number,
  outer: AbortSignal | undefined,
  act: (signal: AbortSignal, again: (limitMs: number, late: () => unknown) => void) => Promise<T>,
  late: () => unknown = () => new DOMException(`not done within ${limitMs / 1000} s`, 'TimeoutError'),
): Promise<T> {
  const following = outer === undefined ? follow() : follow(outer);
  let timer: NodeJS.Timeout | undefined;
  const begin = (ms: number, why: () => unknown) => {
    clearTimeout(timer);
    timer = setTimeout(() => following.abort(why()), Math.min(ms, LONGEST_MS));
  };
  begin(limitMs, late);
  try {
    return await act(following.signal, begin);
  } finally {
    clearTimeout(timer);
    following.release();
  }
}

/** Waits. @throws the signal's reason on abort */
export async function pause(durationMs: number, signal: AbortSignal): Promise<void> {
  await new Promise<void>((resolve, reject) => {
    signal.throwIfAborted();
    const stop = onAbort(signal, () => {
      clearTimeout(timer);
      reject(signal.reason);
    });
    const timer = setTimeout(
      () => {
        stop();
        resolve();
      },
      Math.min(durationMs, LONGEST_MS),
    );
  });
}

/** Runs what it is given, at most `count` at a time, in the order of the calls. */
export function slotsFor(count: number): <T>(act: () => Promise<T>) => Promise<T> {
  let free = count;
  const waiting: (() => void)[] = [];
  return async act => {
    if (free > 0) {
      free--;
    } else {
      await new Promise<void>(resolve => waiting.push(resolve));
    }
    try {
      return await act();
    } finally {
      const next = waiting.shift();
      if (next === undefined) {
        free++;
      } else {
        next();
      }
    }
  };
}

/** Of several rounds: the middle, and how far they lie apart. */
export interface Spread {
  readonly median: number;
  readonly lowest: number;
  readonly highest: number;
}

/** @returns `undefined` for no values. */
export function spread(values: readonly number[]): Spread | undefined {
  const sorted = values.toSorted((one, other) => one - other);
  const lowest = sorted[0];
  const highest = sorted.at(-1);
  return lowest === undefined || highest === undefined ? undefined : { median: median(sorted), lowest, highest };
}

/**
 * One series against another: the ratio of the medians, and the lowest and highest ratio of one round, so that what
 * slowed the machine down during a round weighs on both sides. Index is the round.
 */
export function ratio(
  ours: readonly (number | undefined)[],
  base: readonly (number | undefined)[],
): Spread | undefined {
  const pairs = ours.flatMap((one, round) => {
    const other = base[round];
    return one === undefined || other === undefined ? [] : [one / other];
  });
  const [above, below, of] = [spread(ours.filter(isNumber)), spread(base.filter(isNumber)), spread(pairs)];
  return above === undefined || below === undefined || of === undefined
    ? undefined
    : { ...of, median: above.median / below.median };
}

function median(sorted: readonly number[]): number {
  const middle = Math.floor(sorted.length / 2);
  const [below = Number.NaN, above = Number.NaN] = [sorted[middle - 1], sorted[middle]];
  return sorted.length % 2 === 1 ? above : (below + above) / 2;
}

function isNumber(value: number | undefined): value is number {
  return value !== undefined;
}

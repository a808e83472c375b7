import { SideloadError } from './errors.ts';
import { bestMatch, formatPlatform, type Platform } from './image/platform.ts';
import { type Node, ready } from './node/node.ts';
import { READ_RECORD, readRecord } from './node/record.ts';
import { runScript } from './node/script.ts';
import { inspect } from './node/steps.ts';
import { differenceOf } from './plan.ts';
import { errorReport, type ImageReport } from './report/report.ts';
import type { Run } from './run.ts';
import type { HeldImage } from './runtime/runtime.ts';

/** What every node should have under one reference. */
export interface Expectation {
  readonly reference: string;
  readonly variants: readonly { readonly platform: Platform; readonly imageId: string }[];
  /** Whether it is the image of sandboxes, which only nodes need whose runtime makes them of it. */
  readonly isSandbox: boolean;
}

type Drift = NonNullable<ImageReport['drift']>;

/** How what a node holds differs from what it should; `undefined` when it does not. Pure. */
function driftOf(
  { variants }: Pick<Expectation, 'variants'>,
  platform: Platform,
  held: HeldImage | undefined,
  wasPinned: (imageId: string) => boolean,
): { readonly drift: Drift; readonly says: string; readonly imageId: string } | undefined {
  const wanted = bestMatch(variants, platform);
  if (wanted === undefined) {
    const built = variants.map(variant => formatPlatform(variant.platform)).join(', ');
    const says = `it is there for ${built}, and the node is ${formatPlatform(platform)}`;
    return { drift: 'no-platform', says, imageId: variants[0]?.imageId ?? '' };
  }
  const { imageId } = wanted;
  const difference = differenceOf(held, wanted);
  if (difference !== undefined) {
    return { drift: difference.kind, says: difference.says, imageId };
  }
  return held?.isPinned === false && wasPinned(imageId)
    ? { drift: 'not-pinned', says: 'it was pinned, and is not any more', imageId }
    : undefined;
}

/**
 * Compares what a node holds with what it should; the node's `checked` has the answer for each image.
 * @throws SideloadError DRIFT, with all that is wrong on the node
 */
export async function checkNode(node: Node, expectations: readonly Expectation[], run: Run): Promise<void> {
  const { connection, facts } = ready(node);
  const wanted = expectations.filter(
    ({ reference, isSandbox }) => !isSandbox || facts.sandbox?.reference === reference,
  );
  const references = wanted.map(({ reference }) => reference);
  const held = await inspect(node, references, run.signal);
  const recorded = facts.privilege === 'user' ? [] : readRecord(await runScript(connection, READ_RECORD, run.signal));
  node.checked = wanted.map(expectation => {
    const { reference } = expectation;
    const wasPinned = (imageId: string) =>
      recorded.some(one => one.reference === reference && one.imageId === imageId && one.isPinned === true);
    const found = driftOf(expectation, facts.platform, held.get(reference), wasPinned);
    const error =
      found === undefined
        ? undefined
        : errorReport(new SideloadError('DRIFT', `${reference}: ${found.says}`, { node: node.settings.label }));
    return {
      reference,
      imageId: found?.imageId ?? held.get(reference)?.imageId ?? '',
      outcome: found === undefined ? 'present' : 'none',
      estimatedBytes: 0,
      isEstimateExact: true,
      bytesSent: 0,
      drift: found?.drift,
      error,
    } as const;
  });
  const faults = node.checked.flatMap(({ error }) => error?.message ?? []);
  if (faults.length > 0) {
    throw new SideloadError('DRIFT', faults.join('\n'));
  }
}

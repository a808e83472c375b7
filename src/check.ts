import { type ErrorCode, SideloadError } from './errors.ts';
import { bestMatch, formatPlatform, type Platform } from './image/platform.ts';
import { type Node, ready } from './node/node.ts';
import { READ_RECORD, readRecord } from './node/record.ts';
import { runScript } from './node/script.ts';
import { askShortNames, type NameFault, namesOn } from './node/short-names.ts';
import { inspect } from './node/steps.ts';
import { differenceOf } from './plan.ts';
import { nameFinding } from './preflight.ts';
import { errorReport, type ImageReport } from './report/report.ts';
import type { Run } from './run.ts';
import type { HeldImage } from './runtime/runtime.ts';

/** What every node should have under one reference. */
export interface Expectation {
  readonly reference: string;
  /** How pods write it, each way once; absent means in full. */
  readonly spellings?: readonly string[];
  readonly variants: readonly { readonly platform: Platform; readonly imageId: string }[];
  /** Whether it is the image of sandboxes, which only nodes need whose runtime makes them of it. */
  readonly isSandbox: boolean;
  /** Whether it has to be pinned; where this is not said, the record on the node says it. */
  readonly isPinned?: boolean;
}

type Drift = NonNullable<ImageReport['drift']>;

/** How what a node holds differs from what it should; `undefined` when it does not. Pure. */
function driftOf(
  { variants }: Pick<Expectation, 'variants'>,
  platform: Platform,
  held: HeldImage | undefined,
  mustBePinned: (imageId: string) => boolean,
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
  return held?.isPinned === false && mustBePinned(imageId)
    ? { drift: 'not-pinned', says: 'it was pinned, and is not any more', imageId }
    : undefined;
}

/** What it is, and what it should be. */
function saying({ says, drift, imageId }: NonNullable<ReturnType<typeof driftOf>>): string {
  return drift === 'missing' || drift === 'not-unpacked' ? `${says}; it should be ${imageId}` : says;
}

/** A name that pods write and that leads to nothing there: for them the image is missing. */
function unusableBy(fault: NameFault | undefined, { variants }: Pick<Expectation, 'variants'>) {
  return fault === undefined
    ? undefined
    : {
        drift: 'missing' as const,
        says: `no pod can start it by the name ${fault.spelling}: ${fault.why}`,
        imageId: variants[0]?.imageId ?? '',
      };
}

/**
 * Asks a node, in one round trip, what it holds, and compares it with what it should; the node's `seen` has the answer for
 * each image. This is `mode: check`, and the last look of a push.
 * @throws SideloadError with the code, and all that is wrong on the node
 */
export async function checkNode(
  node: Node,
  expectations: readonly Expectation[],
  code: ErrorCode,
  run: Run,
): Promise<void> {
  node.seen = []; // What was seen before counts no more.
  const { connection, facts } = ready(node);
  const here = expectations.filter(({ reference, isSandbox }) => !isSandbox || facts.sandbox?.reference === reference);
  const written = here.map(image => ({ image, reference: image.reference, spellings: image.spellings ?? [] }));
  const asked = written.flatMap(({ spellings }) => spellings);
  const { names, faults: nameFaults } = namesOn(written, await askShortNames(node, asked, run.signal));
  const doubts = nameFaults.filter(({ kind }) => kind !== 'refused');
  const label = node.settings.label;
  node.findings = [...node.findings, ...doubts.map(fault => ({ node: label, ...nameFinding(fault, false) }))];
  // A push knows the names that it has put there.
  const own = new Map(node.images.map(({ reference, spelling }) => [reference, spelling]));
  const wanted = names.map(one => ({
    ...one.image,
    reference: one.reference,
    spelling: own.get(one.reference) ?? one.spelling,
  }));
  const references = wanted.map(({ reference }) => reference);
  const spelled = new Map(wanted.map(({ reference, spelling }) => [reference, spelling]));
  const held = await inspect(node, references, run.signal, spelled);
  const isRecordAsked = wanted.some(({ isPinned }) => isPinned === undefined) && facts.privilege !== 'user';
  const recorded = isRecordAsked
    ? readRecord(await runScript(connection, READ_RECORD, run.signal, 'reading what is ours'))
    : [];
  node.seen = wanted.map(expectation => {
    const { reference, spelling, isPinned } = expectation;
    const unusable = nameFaults.find(fault => fault.kind === 'refused' && fault.reference === reference);
    const wasPinned = (imageId: string) =>
      recorded.some(one => one.reference === reference && one.imageId === imageId && one.isPinned === true);
    const found =
      driftOf(expectation, facts.platform, held.get(reference), id => isPinned ?? wasPinned(id)) ??
      unusableBy(unusable, expectation);
    return {
      reference,
      spelling,
      imageId: found?.imageId ?? held.get(reference)?.imageId ?? '',
      drift: found?.drift,
      error:
        found === undefined
          ? undefined
          : errorReport(new SideloadError(code, `${reference}: ${saying(found)}`, { node: node.settings.label })),
    };
  });
  const faults = node.seen.flatMap(({ error }) => error?.message ?? []);
  if (faults.length > 0) {
    throw new SideloadError(code, faults.join('\n'));
  }
}

/**
 * The last look of a push at a node: whether all that was proven of it is still so, after everything that this run does there.
 * @throws SideloadError CHANGED_SINCE
 */
export async function lookLast(node: Node, run: Run): Promise<void> {
  const expectations = node.images.map(({ reference, image, isSandbox }) => ({
    reference,
    variants: [image],
    isSandbox: false, // A node has been sent none but its own.
    isPinned: node.hasPinned && !isSandbox,
  }));
  try {
    await checkNode(node, expectations, 'CHANGED_SINCE', run);
  } finally {
    for (const image of node.images) {
      const { drift, error } = node.seen.find(({ reference }) => reference === image.reference) ?? {};
      if (error !== undefined) {
        image.error ??= new SideloadError(error.code, error.message, { node: node.settings.label });
      }
      if (drift !== undefined && drift !== 'not-pinned') {
        image.outcome = 'changed';
      }
    }
  }
}

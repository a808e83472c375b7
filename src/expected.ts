import * as v from 'valibot';
import type { Expectation } from './check.ts';
import { SideloadError } from './errors.ts';
import { parsePlatform } from './image/platform.ts';
import { normalise } from './image/reference.ts';
import { DocumentSchema } from './report/report.ts';

/**
 * What a push has put on its nodes, by the file of its `report-json`.
 * @throws SideloadError INPUT_INVALID for what is not the record of a push that succeeded
 */
export function parseExpected(text: string, file: string): readonly Expectation[] {
  const refuse = (why: string): never => {
    throw new SideloadError('INPUT_INVALID', `\`expected\`: ${file} ${why}`, {
      hint: 'name the file that `report-json` of a push has written',
    });
  };
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch {
    return refuse('is not JSON');
  }
  const parsed = v.safeParse(DocumentSchema, json);
  if (!parsed.success) {
    const [issue] = parsed.issues;
    return refuse(`is not a report: ${v.getDotPath(issue) ?? 'the whole'}: ${issue.message}`);
  }
  const { mode, succeeded, images, nodes } = parsed.output;
  if (mode !== 'push' || !succeeded) {
    return refuse(`is the report of a ${mode} that ${succeeded ? 'put nothing on nodes' : 'failed'}`);
  }
  const listed = nodes.flatMap(node => node.images);
  const spellings = listed.map(({ spelling }) => spelling).filter(spelling => spelling !== undefined);
  const expectations = Object.entries(images).map(([reference, ids]) => ({
    reference,
    spellings: [...new Set(spellings.filter(spelling => stands(spelling) === reference))],
    variants: Object.entries(ids).map(([platform, imageId]) => ({ platform: parsePlatform(platform), imageId })),
    isSandbox: listed.some(image => image.reference === reference && image.isSandbox === true),
  }));
  return expectations.length > 0 ? expectations : refuse('names no image');
}

/** The full name that a short one stands for, as the images of a record are named. */
function stands(spelling: string): string | undefined {
  try {
    return normalise(spelling);
  } catch {
    return undefined;
  }
}

/**
 * One list out of several; the same reference must be the same image in all of them.
 * @throws SideloadError INPUT_INVALID
 */
export function mergeExpected(lists: readonly (readonly Expectation[])[]): readonly Expectation[] {
  const merged = new Map<string, Expectation>();
  for (const expectation of lists.flat()) {
    const other = merged.get(expectation.reference);
    if (other !== undefined && JSON.stringify(other.variants) !== JSON.stringify(expectation.variants)) {
      throw new SideloadError(
        'INPUT_INVALID',
        `\`expected\`: the files have different images ${expectation.reference}`,
        {
          hint: 'name the report of the latest push only',
        },
      );
    }
    const spellings = new Set([...(other?.spellings ?? []), ...(expectation.spellings ?? [])]);
    merged.set(expectation.reference, { ...(other ?? expectation), spellings: [...spellings] });
  }
  return [...merged.values()];
}

/**
 * What CI systems take: GitHub drops a page of more than 1 MiB, and the outputs of a job beyond 1 MB together, counted as
 * UTF-16 (docs/notes/ci.md). A part that is too long is cut, and says so; `report-json` has everything.
 */

/** The longest that a text of somebody else is shown where there is no room for all of it. */
const SHORT_CHARACTERS = 200;
/** Fields that can be long. */
const LONG: ReadonlySet<string> = new Set(['message', 'hint', 'smoke']);

/** The lines of a page that fit, and one that counts the others. */
export function linesWithin(lines: readonly string[], maxBytes: number, what: string): readonly string[] {
  let bytes = 0;
  const count = lines.findIndex(line => {
    bytes += Buffer.byteLength(line) + 1;
    return bytes > maxBytes;
  });
  return count < 0
    ? lines
    : [
        ...lines.slice(0, count),
        '',
        `${lines.length - count} more ${what} are in the file of <code>report-json</code>.`,
        '',
      ];
}

/**
 * A list as JSON: whole; else with long texts cut; else as many as fit, those with an `error` first, and an object that counts
 * the others as `leftOut`.
 */
export function jsonWithin(items: readonly object[], maxCharacters: number): string {
  const whole = JSON.stringify(items);
  if (whole.length <= maxCharacters) {
    return whole;
  }
  const texts = items.map(item => ({ item, text: JSON.stringify(item, cutLong) }));
  const hasError = ({ item }: (typeof texts)[number]) => 'error' in item && item.error !== undefined;
  const sorted = [...texts.filter(hasError), ...texts.filter(one => !hasError(one))];
  let characters = '[{"leftOut":}]'.length + String(items.length).length;
  const kept = new Set<object>();
  for (const { item, text } of sorted) {
    characters += text.length + 1;
    if (characters > maxCharacters) break;
    kept.add(item);
  }
  const shown = texts.filter(({ item }) => kept.has(item)).map(({ text }) => text);
  const leftOut = items.length - kept.size;
  return `[${[...shown, ...(leftOut === 0 ? [] : [JSON.stringify({ leftOut })])].join(',')}]`;
}

function cutLong(field: string, value: unknown): unknown {
  return typeof value === 'string' && LONG.has(field) && value.length > SHORT_CHARACTERS
    ? `${value.slice(0, SHORT_CHARACTERS)}…`
    : value;
}

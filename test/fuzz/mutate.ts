/** What parsers have stumbled over: brackets of all kinds, names that objects have of their own, numbers at the edges. */
const PIECES = [
  ...[
    '? ',
    '- ',
    '[',
    ']',
    '{',
    '}',
    ': ',
    ', ',
    '&a ',
    '*a',
    '!!map ',
    '\n---\n',
    '|\n',
    '>\n',
    '"',
    "'",
    '#',
    '\n',
    '\t',
    ' ',
  ],
  ...[
    'null',
    'true',
    '[]',
    '{}',
    '""',
    '{"a":',
    '__proto__',
    'constructor',
    'toString',
    '\\u0000',
    '\0',
    '\ufeff',
    '\u202e',
    '𝕏',
  ],
  ...['0', '-1', '1e999', '9'.repeat(20), '4294967296', '18446744073709551616', '0x7fffffff', '.5', '077777777777'],
  ...[
    'sha256:',
    'a'.repeat(64),
    '@',
    '/',
    '..',
    ':',
    '*',
    '!',
    '|1|',
    '$(id)',
    '`',
    '::error::',
    '##[',
    '%s',
    '\x1b[2J',
    '\r',
  ],
];
const MAX_BYTES = 64 << 10;

/**
 * Changes bytes here and there: bits, bytes, pieces that mean something, ranges taken out, doubled or taken from another input.
 * @param random between 0 and 1
 */
export function mutate(input: Buffer, other: Buffer, random: () => number): Buffer<ArrayBuffer> {
  const below = (limit: number) => Math.floor(random() * limit);
  let bytes = Buffer.from(input);
  const replace = (start: number, end: number, ...middle: readonly Buffer[]) => {
    bytes = Buffer.concat([bytes.subarray(0, start), ...middle, bytes.subarray(end)]).subarray(0, MAX_BYTES);
  };
  const range = (source: Buffer, longest: number): readonly [number, number] => {
    const start = below(source.length + 1);
    return [start, Math.min(source.length, start + below(longest))];
  };
  const ways: readonly (() => void)[] = [
    () => {
      const at = below(bytes.length);
      if (bytes.length > 0) bytes[at] = (bytes[at] ?? 0) ^ (1 << below(8));
    },
    () => {
      if (bytes.length > 0) bytes[below(bytes.length)] = below(256);
    },
    () => {
      const at = below(bytes.length + 1);
      replace(at, at, Buffer.from(PIECES[below(PIECES.length)] ?? ''));
    },
    () => {
      const [start, end] = range(bytes, 8);
      replace(start, end, Buffer.from(PIECES[below(PIECES.length)] ?? ''));
    },
    () => replace(...range(bytes, 64)),
    () => {
      const [start, end] = range(bytes, 64);
      replace(start, start, ...Array.from({ length: 1 << below(9) }, () => bytes.subarray(start, end)));
    },
    () => {
      const piece = Buffer.from(PIECES[below(PIECES.length)] ?? '');
      const at = below(bytes.length + 1);
      replace(at, at, ...Array.from({ length: 1 << below(13) }, () => piece));
    },
    () => {
      const [start, end] = range(other, 512);
      const at = below(bytes.length + 1);
      replace(at, at, other.subarray(start, end));
    },
    () => replace(below(bytes.length + 1), bytes.length),
  ];
  for (let count = 1 + below(6); count > 0; count -= 1) ways[below(ways.length)]?.();
  return bytes;
}

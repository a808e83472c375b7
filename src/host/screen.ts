import { wrap } from '../report/text.ts';

/** Standard error as somebody sees it: lines that stay, and below them a few that change. */
export interface Screen {
  /** Whether somebody looks at it. */
  readonly isLive: boolean;
  readonly size: { readonly columns: number; readonly rows: number };
  /** A line that stays, or several. */
  write(text: string, style?: Style): void;
  /** Replaces the lines that change; those that do not fit are cut. */
  draw(lines: readonly string[]): void;
}

type Style = 'title' | 'warning' | 'error';

const COLUMNS = 100;
const ROWS = 24;
const SGR = { title: '1', warning: '33', error: '31', '✔': '32', '✘': '31' } as const;

/** The screen behind a stream. `NO_COLOR` (no-color.org) and `TERM=dumb` are heeded. */
export function screenOf(stream: NodeJS.WriteStream, env: NodeJS.ProcessEnv): Screen {
  const isLive = stream.isTTY === true && env.TERM !== 'dumb';
  const hasColour = isLive && (env.NO_COLOR ?? '') === '';
  let drawn: readonly string[] = [];
  const paint = (text: string, sgr: string) => (hasColour ? `\u001b[${sgr}m${text}\u001b[0m` : text);
  const marks = (text: string) =>
    text.replaceAll(/^[✔✘]|(?<= )[✔✘](?= )/gm, mark => paint(mark, SGR[mark as '✔' | '✘']));
  const size = () => ({ columns: stream.columns || COLUMNS, rows: stream.rows || ROWS });
  /** To the beginning of the first line that changes, which is where the cursor was before they were drawn. */
  const home = () => (drawn.length > 1 ? `\u001b[${drawn.length - 1}A\r` : drawn.length === 1 ? '\r' : '');
  const body = (lines: readonly string[]) =>
    // The rest of each line is cleared after it is written, never before: nothing flickers.
    lines.map(line => `${marks(cut(line, size().columns - 1))}\u001b[K`).join('\n');
  return {
    isLive,
    get size() {
      return size();
    },
    write(unwrapped, style) {
      const text = isLive ? wrapLines(unwrapped, size().columns) : unwrapped;
      const [gap = ''] = /^\n*/.exec(text) ?? [];
      const [first = '', ...rest] = text.slice(gap.length).split('\n');
      const head = style === undefined ? marks(first) : paint(first, SGR[style]);
      const whole = gap + [head, ...rest.map(line => (style === undefined ? marks(line) : line))].join('\n');
      const above = drawn.length === 0 ? '' : `${home()}\u001b[J`;
      stream.write(`${above}${whole}\n${body(drawn)}`);
    },
    draw(lines) {
      const shown = lines.slice(0, Math.max(1, size().rows - 1));
      const below = shown.length < drawn.length ? '\u001b[J' : '';
      const end = shown.length === 0 ? '' : body(shown);
      const text = `${home()}${end}${shown.length === 0 && drawn.length > 0 ? '\u001b[J' : below}`;
      drawn = shown;
      if (text !== '') {
        stream.write(text);
      }
    },
  };
}

/** Whole words; what goes on in the next line stands a little to the right. */
function wrapLines(text: string, columns: number): string {
  return text
    .split('\n')
    .map(line => {
      if (line.length <= columns) {
        return line;
      }
      const indent = /^ */.exec(line)?.[0] ?? '';
      const [first = '', ...rest] = wrap(line.trimStart(), columns - indent.length - CONTINUED.length);
      return [`${indent}${first}`, ...rest.map(part => `${indent}${CONTINUED}${part}`)].join('\n');
    })
    .join('\n');
}

const CONTINUED = '    ';

function cut(line: string, columns: number): string {
  const characters = [...line];
  return characters.length > columns ? `${characters.slice(0, Math.max(0, columns - 1)).join('')}…` : line;
}

/** A stream that notes what is written to it. */
export interface Recorded {
  readonly stream: NodeJS.WriteStream;
  text(): string;
  writes(): readonly string[];
}

export function stream({ isTTY, columns }: { readonly isTTY: boolean; readonly columns: number }): Recorded {
  const writes: string[] = [];
  const fake = {
    isTTY,
    columns,
    rows: 20,
    write: (chunk: string) => {
      writes.push(chunk);
      return true;
    },
  };
  return { stream: fake as unknown as NodeJS.WriteStream, text: () => writes.join(''), writes: () => writes };
}

/** What a terminal shows after these bytes: it knows line feed, return, cursor up, and erasing to the end. */
export function emulate(text: string): readonly string[] {
  const lines = [''];
  let row = 0;
  let column = 0;
  // biome-ignore lint/suspicious/noControlCharactersInRegex: terminals are steered by them.
  for (const [token, argument, letter] of text.matchAll(/\u001b\[([\d;]*)([A-Za-z])|[^\u001b]/gu)) {
    const line = lines[row] ?? '';
    if (letter === 'A') {
      row = Math.max(0, row - Number(argument || 1));
    } else if (letter === 'K') {
      lines[row] = line.slice(0, column);
    } else if (letter === 'J') {
      lines.splice(row + 1);
      lines[row] = line.slice(0, column);
    } else if (letter === 'm') {
      // Colours take no room.
    } else if (letter !== undefined) {
      throw new Error(`the terminal of this test does not know ${JSON.stringify(token)}`);
    } else if (token === '\n') {
      row++;
      column = 0;
      lines[row] ??= '';
    } else if (token === '\r') {
      column = 0;
    } else {
      lines[row] = `${line.slice(0, column).padEnd(column)}${token}${line.slice(column + 1)}`;
      column++;
    }
  }
  return lines;
}

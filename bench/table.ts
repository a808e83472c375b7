/** Rows under headings, in columns as wide as their widest cell; numbers, which begin with a digit, to the right. */
export function table(title: string, headings: readonly string[], rows: readonly (readonly string[])[]): string {
  const widths = headings.map((heading, column) =>
    Math.max(heading.length, ...rows.map(row => (row[column] ?? '').length)),
  );
  const line = (cells: readonly string[]) =>
    cells
      .map((cell, column) => {
        const width = widths[column] ?? 0;
        return /^[\d.]/.test(cell) ? cell.padStart(width) : cell.padEnd(width);
      })
      .join('  ')
      .trimEnd();
  return [title, line(headings), line(widths.map(width => '-'.repeat(width))), ...rows.map(line), ''].join('\n');
}

export function formatSeconds(seconds: number): string {
  return `${seconds.toFixed(seconds < 10 ? 2 : 1)} s`;
}

/** In the units of the targets: MB of a million bytes, and KiB below one. */
export function formatBytes(bytes: number): string {
  return bytes < 1e6 ? `${(bytes / 1024).toFixed(0)} KiB` : `${(bytes / 1e6).toFixed(bytes < 1e7 ? 1 : 0)} MB`;
}

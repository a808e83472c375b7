/** Rows under headings, in columns as wide as their widest cell. A column of nothing but numbers goes to the right. */
export function table(title: string, headings: readonly string[], rows: readonly (readonly string[])[]): string {
  const columns = headings.map((heading, column) => {
    const cells = rows.map(row => row[column] ?? '');
    const isNumeric = cells.every(cell => /^([\d.]+( (s|ms|MB|KiB)\b.*)?|)$/.test(cell));
    return { width: Math.max(heading.length, ...cells.map(cell => cell.length)), isNumeric };
  });
  const line = (cells: readonly string[]) =>
    columns
      .map(({ width, isNumeric }, column) => {
        const cell = cells[column] ?? '';
        return isNumeric ? cell.padStart(width) : cell.padEnd(width);
      })
      .join('  ')
      .trimEnd();
  return [title, line(headings), line(columns.map(({ width }) => '-'.repeat(width))), ...rows.map(line), ''].join('\n');
}

export function formatSeconds(seconds: number): string {
  return `${seconds.toFixed(seconds < 10 ? 2 : 1)} s`;
}

/** In the units of the targets: MB of a million bytes, and KiB below one. */
export function formatBytes(bytes: number): string {
  return bytes < 1e6 ? `${(bytes / 1024).toFixed(0)} KiB` : `${(bytes / 1e6).toFixed(bytes < 1e7 ? 1 : 0)} MB`;
}

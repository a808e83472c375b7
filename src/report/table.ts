import { ERRORS } from '../errors.ts';
import type { NodeReport, Report } from './report.ts';
import { formatBytes, formatDuration } from './units.ts';

const HEADINGS = ['node', 'platform', 'runtime', 'image', 'outcome', 'sent', 'smoke pod', 'time'] as const;

/** One row for each image on each node; a node that failed before has one row with its error. */
function rows(report: Report): readonly (readonly string[])[] {
  return report.nodes.flatMap(node =>
    node.images.length === 0 ? [row(node, undefined)] : node.images.map(image => row(node, image)),
  );
}

function row(node: NodeReport, image: NodeReport['images'][number] | undefined): readonly string[] {
  return [
    node.node,
    node.platform ?? '–',
    node.runtime ?? '–',
    image?.reference ?? '–',
    image?.outcome === 'sent' || image?.outcome === 'present' ? image.outcome : (node.error?.code ?? 'unchanged'),
    image === undefined ? '–' : formatBytes(image.bytesSent),
    image?.smoke ?? '–',
    formatDuration(node.durationMs),
  ];
}

/** The table as aligned text for a log. */
export function textTable(report: Report): readonly string[] {
  const lines = [HEADINGS, ...rows(report)];
  const widths = HEADINGS.map((_, column) => Math.max(...lines.map(line => line[column]?.length ?? 0)));
  return lines.map(line =>
    line
      .map((cell, column) => cell.padEnd(widths[column] ?? 0))
      .join('  ')
      .trimEnd(),
  );
}

/** The page of the job in GitHub's Markdown: the verdict first, then the table, then what failed and what to do. */
export function markdown(report: Report, ok: boolean): string {
  const errors = [report, ...report.nodes].flatMap(part => {
    if (part.error === undefined) {
      return [];
    }
    const { code, message, hint } = part.error;
    const where = 'node' in part ? `${part.node}: ` : '';
    return [
      `### ${escapeCell(where)}${ERRORS[code].title} (\`${code}\`)`,
      '```text',
      message.replaceAll('```', "'''"),
      '```',
      `**Next step:** ${hint}`,
      '',
    ];
  });
  return [
    `## kube-sideload: ${ok ? 'every node runs what CI built' : 'failed'}`,
    '',
    `| ${HEADINGS.join(' | ')} |`,
    `| ${HEADINGS.map(() => '---').join(' | ')} |`,
    ...rows(report).map(cells => `| ${cells.map(escapeCell).join(' | ')} |`),
    '',
    ...errors,
  ].join('\n');
}

function escapeCell(text: string): string {
  return text.replaceAll('|', String.raw`\|`).replaceAll('<', '&lt;').replaceAll('\n', ' ');
}

import { ERRORS } from '../errors.ts';
import { allFindings, type Finding, type ImageReport, type NodeReport, type Report } from './report.ts';
import { formatBytes, formatDuration } from './units.ts';

type Row = readonly string[];

interface Columns {
  readonly headings: Row;
  readonly row: (node: NodeReport, image: ImageReport | undefined) => Row;
}

const PUSH: Columns = {
  headings: ['node', 'platform', 'runtime', 'image', 'outcome', 'sent', 'smoke pod', 'time'],
  row: (node, image) => [
    ...about(node, image),
    image?.outcome === 'sent' || image?.outcome === 'present' ? image.outcome : (node.error?.code ?? 'unchanged'),
    image === undefined ? '–' : formatBytes(image.bytesSent),
    image?.smoke ?? '–',
    formatDuration(node.durationMs),
  ],
};

const PLAN: Columns = {
  headings: ['node', 'platform', 'runtime', 'image', 'plan', 'to send', 'findings'],
  row: (node, image) => [
    ...about(node, image),
    image === undefined ? '–' : image.outcome === 'present' ? 'has it' : 'send',
    image === undefined ? '–' : estimate(image),
    node.findings.map(({ code }) => code).join(', ') || 'none',
  ],
};

function about(node: NodeReport, image: ImageReport | undefined): Row {
  return [node.node, node.platform ?? '–', node.runtime ?? '–', image?.reference ?? '–'];
}

/** What would be sent of an image, in words: the layers are compressed only when they are sent. */
export function estimate({ outcome, estimatedBytes, isEstimateExact }: ImageReport): string {
  if (estimatedBytes === 0) {
    return outcome === 'present' ? formatBytes(0) : 'sent once, by another name';
  }
  return isEstimateExact ? formatBytes(estimatedBytes) : `up to ${formatBytes(estimatedBytes)}`;
}

/** One row for each image on each node; a node that failed before has one row with its error. */
function tableOf(report: Report): readonly Row[] {
  const { headings, row } = report.mode === 'plan' ? PLAN : PUSH;
  return [
    headings,
    ...report.nodes.flatMap(node =>
      node.images.length === 0 ? [row(node, undefined)] : node.images.map(image => row(node, image)),
    ),
  ];
}

/** The table as aligned text for a log. */
export function textTable(report: Report): readonly string[] {
  return align(tableOf(report));
}

/** What was found before anything was sent, as aligned text; one line when nothing was. */
export function findingsTable(findings: readonly Finding[]): readonly string[] {
  return findings.length === 0 ? ['nothing stands in the way'] : align([FINDING_HEADINGS, ...findings.map(findingRow)]);
}

const FINDING_HEADINGS: Row = ['node', 'severity', 'code', 'what'];

function findingRow({ node, severity, code, message }: Finding): Row {
  return [node, severity, code, message.replaceAll('\n', ' ')];
}

function align(lines: readonly Row[]): readonly string[] {
  const widths = lines[0]?.map((_, column) => Math.max(...lines.map(line => line[column]?.length ?? 0))) ?? [];
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
  const findings = allFindings(report);
  const title = report.mode === 'plan' ? PLAN_TITLES : PUSH_TITLES;
  return [
    `## kube-sideload: ${ok ? title.ok : title.failed}`,
    '',
    ...markdownTable(tableOf(report)),
    '',
    ...(findings.length === 0
      ? []
      : ['### Before anything was sent', '', ...markdownTable([FINDING_HEADINGS, ...findings.map(findingRow)]), '']),
    ...errors,
  ].join('\n');
}

const PUSH_TITLES = { ok: 'every node runs what CI built', failed: 'failed' };
const PLAN_TITLES = { ok: 'a push would start', failed: 'a push would not start' };

function markdownTable([headings = [], ...rows]: readonly Row[]): readonly string[] {
  return [
    `| ${headings.join(' | ')} |`,
    `| ${headings.map(() => '---').join(' | ')} |`,
    ...rows.map(cells => `| ${cells.map(escapeCell).join(' | ')} |`),
  ];
}

function escapeCell(text: string): string {
  return text.replaceAll('|', String.raw`\|`).replaceAll('<', '&lt;').replaceAll('\n', ' ');
}

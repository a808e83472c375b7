import {
  allFindings,
  errorsOf,
  type Finding,
  type ImageReport,
  type NodeReport,
  type Report,
  type RetentionReport,
} from './report.ts';
import { linesWithin } from './room.ts';
import { harmless, markdownSentence, markdownText, wrap } from './text.ts';
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
    image === undefined || image.outcome === 'none' ? (node.error?.code ?? 'unchanged') : image.outcome,
    image === undefined ? '–' : formatBytes(image.bytesSent),
    image?.smoke?.replaceAll('\n', ' ') ?? '–',
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

const CHECK: Columns = {
  headings: ['node', 'platform', 'runtime', 'image', 'state', 'time'],
  row: (node, image) => [
    ...about(node, image),
    image === undefined ? (node.error?.code ?? 'nothing expected') : (image.drift ?? 'as it should be'),
    formatDuration(node.durationMs),
  ],
};

const PRUNE_HEADINGS: Row = ['node', 'platform', 'runtime', 'image', 'put there', 'outcome'];

const FATES: Readonly<Record<RetentionReport['fate'], string>> = {
  kept: 'kept',
  'in-use': 'kept, in use',
  changed: 'left alone, changed by others',
  gone: 'no longer there',
  removable: 'would be removed',
  removed: 'removed',
};

function pruneRows(node: NodeReport): readonly Row[] {
  const first = about(node, undefined).slice(0, -1);
  const { retention = [], error } = node;
  // What stopped half-way has removed an unknown part of it.
  const fateOf = ({ fate }: RetentionReport) =>
    error !== undefined && fate === 'removable' ? error.code : FATES[fate];
  return retention.length === 0
    ? [[...first, '–', '–', error?.code ?? 'nothing of ours']]
    : retention.map(one => [...first, one.reference, one.placedAt.slice(0, 16).replace('T', ' '), fateOf(one)]);
}

function about(node: NodeReport, image: ImageReport | undefined): Row {
  return [node.node, node.platform ?? '–', node.runtime ?? '–', image?.reference ?? '–'];
}

/** What would be sent of an image, in words: the layers are compressed only when they are sent. */
function estimate({ outcome, estimatedBytes, isEstimateExact }: ImageReport): string {
  if (estimatedBytes === 0) {
    return outcome === 'present' ? formatBytes(0) : 'sent once, by another name';
  }
  return isEstimateExact ? formatBytes(estimatedBytes) : `up to ${formatBytes(estimatedBytes)}`;
}

const COLUMNS: Readonly<Record<string, Columns>> = { plan: PLAN, check: CHECK };

/** One row for each image on each node; a node that failed before has one row with its error. */
function tableOf(report: Report): readonly Row[] {
  if (report.bundle !== undefined) {
    return bundleTable(report);
  }
  if (report.mode === 'prune') {
    return [PRUNE_HEADINGS, ...report.nodes.flatMap(pruneRows)];
  }
  const { headings, row } = COLUMNS[report.mode] ?? PUSH;
  return [
    headings,
    ...report.nodes.flatMap(node =>
      node.images.length === 0 ? [row(node, undefined)] : node.images.map(image => row(node, image)),
    ),
  ];
}

/** One row for each platform of each name in the bundle. */
function bundleTable({ images }: Report): readonly Row[] {
  const rows = Object.entries(images).flatMap(([reference, ids]) =>
    Object.entries(ids).map(([platform, imageId]) => [reference, platform, imageId]),
  );
  return [['image', 'platform', 'image ID'], ...rows];
}

/** The table as aligned text, in as many columns of characters as the log has, if it can be. */
export function textTable(report: Report, columns = Number.POSITIVE_INFINITY): readonly string[] {
  let table = tableOf(report);
  for (const narrow of [withShortNames, without('platform'), without('runtime')]) {
    if (widthOf(table) > columns) {
      table = narrow(table);
    }
  }
  return align(squeeze(table, columns));
}

const GAP = 2;

/** What was found before anything was sent, as aligned text, whole words in as many lines as it takes; one line when nothing was. */
export function findingsTable(findings: readonly Finding[], columns = Number.POSITIVE_INFINITY): readonly string[] {
  if (findings.length === 0) {
    return ['nothing stands in the way'];
  }
  const table = [FINDING_HEADINGS, ...findings.map(findingRow)];
  const room = columns - widthOf(table.map(row => [...row.slice(0, -1), '']));
  return align(
    table.flatMap(row => {
      const [first = '', ...rest] = wrap(row.at(-1) ?? '', Math.max(room, LEAST_TEXT));
      return [[...row.slice(0, -1), first], ...rest.map(line => [...row.slice(0, -1).map(() => ''), line])];
    }),
  );
}

const LEAST_TEXT = 40;

const FINDING_HEADINGS: Row = ['node', 'severity', 'code', 'what'];

function findingRow({ node, severity, code, message }: Finding): Row {
  return [node, severity, code, message.replaceAll('\n', ' ')];
}

function widthsOf(table: readonly Row[]): readonly number[] {
  return table[0]?.map((_, column) => Math.max(...table.map(row => row[column]?.length ?? 0))) ?? [];
}

function widthOf(table: readonly Row[]): number {
  return widthsOf(table).reduce((sum, width) => sum + width + GAP, -GAP);
}

/** Docker Hub's names as people write them. */
function withShortNames(table: readonly Row[]): readonly Row[] {
  return table.map(row => row.map(cell => cell.replace(/^docker\.io\/(library\/)?/, '')));
}

/** Without a column of which the log has told already. */
function without(heading: string): (table: readonly Row[]) => readonly Row[] {
  return table => {
    const column = table[0]?.indexOf(heading) ?? -1;
    return table.map(row => row.filter((_, index) => index !== column));
  };
}

/** Which columns may be cut, and what must stay of them. */
const CUTTABLE: Readonly<Record<string, number>> = { 'smoke pod': 16, image: 20, node: 12 };

/** Cuts the widest cells of the columns that may be, in their middle: both ends of a name tell something. */
function squeeze(table: readonly Row[], columns: number): readonly Row[] {
  let result = table;
  for (const [heading, least] of Object.entries(CUTTABLE)) {
    const excess = widthOf(result) - columns;
    const column = result[0]?.indexOf(heading) ?? -1;
    const width = widthsOf(result)[column];
    if (excess > 0 && width !== undefined) {
      const room = Math.max(least, width - excess);
      result = result.map(row => row.map((cell, index) => (index === column ? cutMiddle(cell, room) : cell)));
    }
  }
  return result;
}

function cutMiddle(text: string, room: number): string {
  const tail = Math.floor((room - 1) / 2);
  return text.length <= room ? text : `${text.slice(0, room - 1 - tail)}…${text.slice(text.length - tail)}`;
}

function align(lines: readonly Row[]): readonly string[] {
  const widths = widthsOf(lines);
  return lines.map(line =>
    line
      .map((cell, column) => cell.padEnd(widths[column] ?? 0))
      .join(' '.repeat(GAP))
      .trimEnd(),
  );
}

/** The page of the job in GitHub's Markdown: the verdict first, then the table, then what failed and what to do. */
export function markdown(report: Report, ok: boolean): string {
  const errors = errorsOf(report).map(({ title, error: { code, message, hint } }) =>
    [
      `### ${markdownSentence(title)} (\`${code}\`)`,
      '```text',
      cutEnd(harmless(message), MAX_CHARACTERS.message).replaceAll('```', "'''"),
      '```',
      `**Next step:** ${markdownSentence(cutEnd(hint, MAX_CHARACTERS.hint))}`,
      '',
    ].join('\n'),
  );
  const findings = allFindings(report);
  const title = TITLES[report.mode] ?? pushTitles(report);
  return [
    `## kube-sideload: ${ok ? title.ok : title.failed}`,
    '',
    ...markdownTable(tableOf(report), 'rows of this table'),
    '',
    ...(findings.length === 0
      ? []
      : [
          '### Before anything was sent',
          '',
          ...markdownTable([FINDING_HEADINGS, ...findings.map(findingRow)], 'findings'),
          '',
        ]),
    ...linesWithin(errors, MAX_PART_BYTES, 'errors'),
  ].join('\n');
}

/** Without smoke pods nobody has said that anything runs. */
function pushTitles({ nodes }: Report): Titles {
  const isRun = nodes.every(({ images }) => images.some(({ smoke }) => smoke !== undefined));
  return { ok: `every node ${isRun ? 'runs' : 'holds'} what CI built`, failed: 'failed' };
}

interface Titles {
  readonly ok: string;
  readonly failed: string;
}

const TITLES: Readonly<Record<string, Titles>> = {
  plan: { ok: 'a push would start', failed: 'a push would not start' },
  check: { ok: 'every node has what it should', failed: 'not every node has what it should' },
  prune: { ok: 'old images are gone', failed: 'failed' },
  bundle: { ok: 'the bundle is complete', failed: 'no bundle was written' },
};

function markdownTable([headings = [], ...rows]: readonly Row[], what: string): readonly string[] {
  const lines = rows.map(
    cells => `| ${cells.map(cell => markdownText(cutEnd(cell, MAX_CHARACTERS.cell))).join(' | ')} |`,
  );
  return [
    `| ${headings.join(' | ')} |`,
    `| ${headings.map(() => '---').join(' | ')} |`,
    ...linesWithin(lines, MAX_PART_BYTES, what),
  ];
}

/** Of the page's three parts together less than 1 MiB, which is what GitHub takes; nobody may take the room of all others. */
const MAX_PART_BYTES = 320_000;
const MAX_CHARACTERS = { cell: 400, message: 8000, hint: 2000 };

function cutEnd(text: string, room: number): string {
  return text.length <= room ? text : `${text.slice(0, room)}…`;
}

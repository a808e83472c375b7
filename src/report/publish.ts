import { ERRORS, toSideloadError } from '../errors.ts';
import { EXIT, type ExitCode, type Host, type OutputName } from '../host/host.ts';
import { reportDocument } from './document.ts';
import { type ReportFiles, writeReports } from './files.ts';
import { outputsOf } from './outputs.ts';
import {
  bytesSent,
  causesOf,
  type ErrorReport,
  errorsOf,
  isMisused,
  listOf,
  type Report,
  redacted,
  succeeded,
  warningsOf,
} from './report.ts';
import { markdown, textTable } from './table.ts';
import { formatBytes, formatDuration } from './units.ts';

/** Writes the whole record to everything the host offers, and only then says that the job has failed, once. */
export async function publish(
  record: Report,
  host: Host,
  files: ReportFiles = {},
  exitCode: ExitCode = EXIT.failed,
): Promise<void> {
  const report = redacted(record, host.redact);
  const ok = succeeded(report);
  if (report.nodes.length > 0 || report.bundle !== undefined) {
    for (const line of textTable(report, host.size.columns)) {
      host.result(line);
    }
  }
  for (const { nodes, finding } of warningsOf(report)) {
    host.warning(`${listOf(nodes)}: ${describe(finding)}`);
  }
  for (const { title, error } of errorsOf(report)) {
    host.error(describe(error), title);
  }
  for (const [name, value] of Object.entries(outputsOf(report))) {
    host.output(name as OutputName, value);
  }
  await host.summary(markdown(report, ok));
  const isWritten = await writeAll(report, host, files);
  if (ok && isWritten) {
    host.result(success(report));
  } else if (!ok) {
    host.fail(causesOf(report), exitCode === EXIT.failed && isMisused(report) ? EXIT.usage : exitCode);
  } else {
    host.fail(`${ERRORS.REPORT_FAILED.title} [REPORT_FAILED]`, EXIT.failed);
  }
}

/** The record as document and files. A file that was asked for and cannot be written fails the job: it is evidence. */
export async function writeAll(report: Report, host: Host, files: ReportFiles): Promise<boolean> {
  const document = redacted(reportDocument(report, host.ci), host.redact);
  host.report(document);
  try {
    await writeReports(files, document);
    return true;
  } catch (thrown) {
    const error = toSideloadError(thrown);
    host.error(describe(error), ERRORS[error.code].title);
    return false;
  }
}

/** An error with what to do next, as every log shows it. */
export function describe({ code, message, hint }: ErrorReport): string {
  return `${message}\nNext step: ${hint} [${code}]`;
}

function success(report: Report): string {
  if (report.bundle !== undefined) {
    const { path, sizeBytes, digest } = report.bundle;
    return `done: ${path}, ${formatBytes(sizeBytes)}, ${digest}`;
  }
  const [nodes, hold] =
    report.nodes.length === 1 ? ['the node', 'holds'] : [`all ${report.nodes.length} nodes`, 'hold'];
  if (report.mode === 'plan') {
    return `a push to ${nodes} would start`;
  }
  if (report.mode === 'check') {
    return `${nodes} ${hold} what should be there`;
  }
  if (report.mode === 'prune') {
    const fates = report.nodes.flatMap(node => node.retention ?? []).map(({ fate }) => fate);
    const count = (wanted: string) => fates.filter(fate => fate === wanted).length;
    return `done: ${count('removed')} references removed, ${count('removable')} could be, ${count('in-use')} are old and in use`;
  }
  const duration = formatDuration(Date.parse(report.endedAt) - Date.parse(report.startedAt));
  return `done: ${nodes} ${hold} what CI built; ${formatBytes(bytesSent(report))} sent, ${duration}`;
}

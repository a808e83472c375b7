import type { CiRun } from '../host/host.ts';
import { VERSION } from '../version.ts';
import { bytesSent, heldOf, type Report, type ReportDocument, SCHEMA_VERSION, succeeded } from './report.ts';

/** The record as `report-json` and `--json` publish it. */
export function reportDocument(report: Report, ci: CiRun | undefined): ReportDocument {
  const { startedAt, endedAt, ...rest } = report;
  return {
    schemaVersion: SCHEMA_VERSION,
    tool: { name: 'kube-sideload', version: VERSION },
    ci,
    succeeded: succeeded(report),
    startedAt,
    endedAt,
    durationMs: Math.max(0, Date.parse(endedAt) - Date.parse(startedAt)),
    bytesSent: bytesSent(report),
    ...rest,
    held: heldOf(report),
  };
}

export function jsonText(document: ReportDocument): string {
  return `${JSON.stringify(document, undefined, 2)}\n`;
}

import type { ReportDocument } from './report.ts';

/** GitLab refuses a larger file, or more variables on the smallest plan, and the whole report with it. */
const MAX_BYTES = 5120;
const MAX_VARIABLES = 20;

/**
 * The record as `KEY=value` lines in the form of GitLab's dotenv reports: no quotes, no comments, no empty lines or
 * values. No key may be the variable of an input: later jobs of the pipeline inherit them all.
 */
export function dotenvText(document: ReportDocument): string {
  const failed = document.nodes.filter(node => node.error !== undefined);
  const images = Object.entries(document.held ?? {});
  const facts: readonly (readonly [string, string | number | boolean | undefined])[] = [
    ['SUCCEEDED', document.succeeded],
    ['CHANGED', document.changed],
    ['RUN', document.run],
    ['TOOL_VERSION', document.tool.version],
    ['BYTES_SENT', document.bytesSent],
    ['DURATION_MS', document.durationMs],
    ['NODE_COUNT', document.nodes.length],
    ['FAILED_NODE_COUNT', failed.length],
    ['FAILED_NODES', failed.map(({ node }) => node).join(',')],
    ['ERROR_CODE', (document.error ?? failed[0]?.error)?.code],
    ['IMAGE_COUNT', images.length],
    ...images.flatMap(([reference, ids], index) => [
      [`IMAGE_${index + 1}`, reference] as const,
      // Several platforms as `linux/amd64=sha256:…,linux/arm64=sha256:…`; one alone is a plain ID.
      [`IMAGE_${index + 1}_ID`, idsText(ids)] as const,
    ]),
  ];
  let text = '';
  let count = 0;
  for (const [key, value] of facts) {
    const line = `KUBE_SIDELOAD_${key}=${oneLine(String(value ?? ''))}\n`;
    if (value === undefined || value === '') {
      continue;
    }
    if (count === MAX_VARIABLES || Buffer.byteLength(text + line) > MAX_BYTES) {
      break;
    }
    text += line;
    count++;
  }
  return text;
}

function idsText(ids: Readonly<Record<string, string>>): string {
  const entries = Object.entries(ids);
  return entries.length === 1 ? (entries[0]?.[1] ?? '') : entries.map(pair => pair.join('=')).join(',');
}

function oneLine(text: string): string {
  return text.replaceAll(/\p{Cc}+/gu, ' ').trim();
}

import { ERRORS } from '../errors.ts';
import type { Host } from '../host/host.ts';
import { allFindings, bytesSent, type ErrorReport, type Report, succeeded } from './report.ts';
import { estimate, markdown, textTable } from './table.ts';
import { formatBytes } from './units.ts';

/** Writes the whole record to everything the host offers, and only then says that the job has failed, once. */
export async function publish(report: Report, host: Host): Promise<void> {
  const ok = succeeded(report);
  for (const node of report.nodes) {
    await host.group(`${node.error === undefined ? '✔' : '✘'} ${node.node}`, async () => {
      host.info(`  address ${node.address}, Kubernetes node ${node.kubernetesName ?? 'unknown'}`);
      host.info(`  ${node.platform ?? 'platform unknown'}, ${node.runtime ?? 'runtime unknown'}`);
      for (const image of node.images) {
        const sent =
          report.mode === 'plan'
            ? `${estimate(image)} to send`
            : `${image.outcome}, ${formatBytes(image.bytesSent)} sent`;
        host.info(`  ${image.reference} ${image.imageId}: ${sent}`);
        if (image.smoke !== undefined) {
          host.info(`  ${image.reference}: verdict: ${image.smoke}`);
        }
      }
    });
  }
  for (const line of textTable(report)) {
    host.info(line);
  }
  for (const { node, severity, code, message, hint } of allFindings(report)) {
    if (severity === 'warning') {
      host.warning(`${node}: ${describe({ code, message, hint })}`);
    }
  }
  for (const node of report.nodes) {
    if (node.error !== undefined) {
      host.error(describe(node.error), `${node.node}: ${ERRORS[node.error.code].title}`);
    }
  }
  if (report.error !== undefined) {
    host.error(describe(report.error), ERRORS[report.error.code].title);
  }
  host.output('images', Object.keys(report.images).join('\n'));
  host.output('image-ids', JSON.stringify(report.images));
  host.output('nodes', JSON.stringify(report.nodes));
  host.output('bytes-sent', String(bytesSent(report)));
  host.output('changed', String(report.changed));
  await host.summary(markdown(report, ok));
  if (!ok) {
    host.fail(conclusion(report));
  }
}

function describe({ code, message, hint }: ErrorReport): string {
  return `${message}\nNext step: ${hint} [${code}]`;
}

function conclusion(report: Report): string {
  const failed = report.nodes.filter(node => node.error !== undefined);
  if (report.error !== undefined) {
    return `${ERRORS[report.error.code].title} [${report.error.code}]`;
  }
  const named = failed.map(node => `${node.node} [${node.error?.code}]`).join(', ');
  return `${failed.length} of ${report.nodes.length} nodes failed: ${named}`;
}

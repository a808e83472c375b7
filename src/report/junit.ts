import { ERRORS } from '../errors.ts';
import {
  type ErrorReport,
  type ImageReport,
  type NodeReport,
  type Report,
  type ReportDocument,
  stoppingErrors,
  succeeded,
} from './report.ts';

const SUITE = 'kube-sideload';

interface TestCase {
  /** With the node in it: GitLab lists names alone, and Jenkins would cut a class name at the dots of an address. */
  readonly name: string;
  readonly durationMs: number;
  readonly failure?: ErrorReport | undefined;
  /** Why there is no verdict. */
  readonly skipped?: string | undefined;
}

/**
 * The record in the form of JUnit that Jenkins and GitLab read: a test case for each image on each node, one for a node
 * on which something else failed, one for what stopped the whole run.
 */
export function junitText(document: ReportDocument): string {
  const cases = [...document.nodes.flatMap(node => casesOf(node, document)), ...wholeRun(document)];
  const failures = cases.filter(({ failure }) => failure !== undefined).length;
  const skipped = cases.filter(one => one.skipped !== undefined).length;
  const counts = `tests="${cases.length}" failures="${failures}" errors="0" skipped="${skipped}" time="${seconds(document.durationMs)}"`;
  return [
    '<?xml version="1.0" encoding="UTF-8"?>',
    `<testsuites name="${SUITE}" ${counts}>`,
    // Without the zone: the form of the JUnit schema that Jenkins has.
    `  <testsuite name="${SUITE} ${xmlText(document.mode)}" ${counts} timestamp="${document.startedAt.slice(0, 19)}">`,
    ...cases.flatMap(testCase),
    '  </testsuite>',
    '</testsuites>',
    '',
  ].join('\n');
}

function casesOf(node: NodeReport, report: Report): readonly TestCase[] {
  const { durationMs } = node;
  const whole = { name: `${node.node}: node`, durationMs };
  const images = node.images.map(image => {
    // An image that was not seen at the end has no verdict of its own; some error says why.
    const isTold = image.error !== undefined || image.isHeld === true || report.mode !== 'push';
    const skipped = isTold ? undefined : `${UNPROVEN[image.outcome] ?? 'not proven'}: ${reasonOf(node, report)}`;
    return { name: `${node.node}: ${image.reference}`, durationMs, failure: image.error, skipped };
  });
  const isImages = node.images.some(({ error }) => error?.code === node.error?.code);
  return node.error !== undefined && !isImages
    ? [{ ...whole, failure: node.error }, ...images]
    : images.length > 0
      ? images
      : report.mode === 'prune' && node.retention !== undefined
        ? [whole]
        : [{ ...whole, skipped: reasonOf(node, report) }];
}

/** Why an image has no verdict, by its outcome. */
const UNPROVEN: Readonly<Partial<Record<ImageReport['outcome'], string>>> = {
  none: 'not put on the node',
  restored: 'put there and taken back',
};

function reasonOf(node: NodeReport, report: Report): string {
  if (node.error !== undefined) {
    return `the node failed [${node.error.code}]`;
  }
  if (report.error !== undefined) {
    return `the run was stopped [${report.error.code}]`;
  }
  return 'another node failed, and it is all nodes or none';
}

function wholeRun(report: Report): readonly TestCase[] {
  const about = { name: 'run', durationMs: 0 };
  const stopped = stoppingErrors(report);
  if (stopped.length > 0) {
    return stopped.map((failure, index) => ({
      ...about,
      name: index === 0 ? 'run' : `run (${failure.code})`,
      failure,
    }));
  }
  const isSilent = !succeeded(report) && report.nodes.every(node => node.error === undefined);
  return isSilent ? [{ ...about, failure: { code: 'INTERNAL', message: 'nothing was proven', hint: '' } }] : [];
}

function testCase({ name, durationMs, failure, skipped }: TestCase): readonly string[] {
  const start = `    <testcase classname="${SUITE}" name="${xmlText(name)}" time="${seconds(durationMs)}"`;
  if (failure !== undefined) {
    const { code, message, hint } = failure;
    const title = `${ERRORS[code].title} [${code}]`;
    return [
      `${start}>`,
      `      <failure message="${xmlText(title)}" type="${code}">${xmlText(`${message}\nNext step: ${hint}`)}</failure>`,
      '    </testcase>',
    ];
  }
  if (skipped !== undefined) {
    return [`${start}>`, `      <skipped message="${xmlText(skipped)}"/>`, '    </testcase>'];
  }
  return [`${start}/>`];
}

function seconds(milliseconds: number): string {
  return (milliseconds / 1000).toFixed(3);
}

/** Text for XML 1.0, which has no place for most control characters and for half a surrogate pair. */
function xmlText(text: string): string {
  return (
    text
      // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what must go.
      .replaceAll(/[\u0000-\u0008\u000b\u000c\u000e-\u001f\ufffe\uffff]|\p{Surrogate}/gu, '\ufffd')
      .replaceAll('&', '&amp;')
      .replaceAll('<', '&lt;')
      .replaceAll('>', '&gt;')
      .replaceAll('"', '&quot;')
      .replaceAll('\r', '&#13;')
  );
}

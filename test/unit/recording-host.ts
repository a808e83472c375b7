import { tmpdir } from 'node:os';
import type { Host } from '../../src/host/host.ts';
import type { InputName } from '../../src/inputs.ts';
import type { ReportDocument } from '../../src/report/report.ts';

/** A host that notes what is done to it, in order. */
export interface RecordingHost extends Host {
  /** Each as `METHOD ARGUMENTS…`. */
  readonly calls: readonly string[];
  readonly masked: readonly string[];
  readonly outputs: Readonly<Record<string, string>>;
  readonly markdown: string;
  readonly documents: readonly ReportDocument[];
  readonly exitCodes: readonly number[];
  /** Of each call of `progress`. */
  readonly progressLines: readonly (readonly string[])[];
}

export function recordingHost(
  inputs: Partial<Record<InputName, string>> = {},
  isLive = false,
  size = { columns: 100, rows: 10 },
): RecordingHost {
  const calls: string[] = [];
  const masked: string[] = [];
  const outputs: Record<string, string> = {};
  const documents: ReportDocument[] = [];
  const exitCodes: number[] = [];
  const progressLines: (readonly string[])[] = [];
  let markdown = '';
  const note =
    (method: string) =>
    (...texts: readonly string[]) => {
      calls.push([method, ...texts].join(' '));
    };
  return {
    calls,
    masked,
    outputs,
    documents,
    exitCodes,
    progressLines,
    get markdown() {
      return markdown;
    },
    input: name => inputs[name],
    defaultConfig: undefined,
    ci: undefined,
    temporaryDirectory: tmpdir(),
    mask: secret => masked.push(secret),
    redact: text => masked.reduce((rest, secret) => rest.replaceAll(secret, '***'), text),
    info: note('info'),
    result: note('result'),
    warning: note('warning'),
    error: note('error'),
    group: async (title, body) => {
      note('group')(title);
      return await body();
    },
    isLive,
    size,
    progress: lines => {
      note('progress')(...lines);
      progressLines.push(lines);
    },
    output: (name, value) => {
      note('output')(name);
      outputs[name] = value;
    },
    summary: async text => {
      note('summary')();
      markdown = text;
    },
    report: document => {
      note('report')();
      documents.push(document);
    },
    saveState: note('saveState'),
    state: () => '',
    fail: (message, exitCode) => {
      note('fail')(message);
      exitCodes.push(exitCode);
    },
  };
}

import type { InputName } from '../inputs.ts';
import type { ReportDocument } from '../report/report.ts';
import type { SecretOrigin } from './secrets.ts';

/** What the job did, for the steps after it. Values are texts; structured ones are JSON. */
export type OutputName = 'images' | 'image-ids' | 'nodes' | 'bytes-sent' | 'changed' | 'drift' | 'bundle';

export const OUTPUTS: Readonly<Record<OutputName, string>> = {
  images:
    'The references that all nodes were seen to hold at the end of a push or check (with `mode: bundle`: that the file holds), one per line; empty when the job failed.',
  'image-ids': 'JSON: image ID (config digest) of these, by reference and platform.',
  nodes:
    'JSON: one object per node with its facts, findings, bytes sent, verdicts and error. Of very many, long texts are cut, then those fit that failed, and `leftOut` in a last object counts the others.',
  'bytes-sent': 'Bytes of image archives sent to all nodes together.',
  changed:
    '`true` when some node did not have the images before (with `mode: plan` and `check`: does not have them; with `prune`: lost some), else `false`.',
  drift:
    'JSON, with `mode: check`: one object per node and image that is not as it should be, or per node that could not be asked.',
  bundle: 'The file that `mode: bundle` has written.',
};

/** The job around the run, as far as the CI system tells. */
export type CiRun = NonNullable<ReportDocument['ci']>;

/** Names under which the main step leaves word for the post step; after `settled` nothing is put back any more. */
export type StateName = 'started' | 'run' | 'scratch' | 'settled' | 'finished';

/**
 * The CI system or terminal around us. The core knows nothing else of it: where its log groups, masks, annotations and
 * outputs go is the business of the file that makes a `Host`.
 */
export interface Host {
  /** The text of an input as the user gave it; `undefined` when not set. */
  input(name: InputName): string | undefined;
  /** The configuration file to look for in the working directory; `undefined` where only a named one is read. */
  readonly defaultConfig: string | undefined;
  /** `undefined` outside of CI. */
  readonly ci: CiRun | undefined;
  /** A directory on a real disk for files of this run; the run makes its own directory inside. */
  readonly temporaryDirectory: string;
  /** Keeps a secret out of all that is written from now on, each of its lines by itself. */
  mask(secret: string, origin: SecretOrigin): void;
  /**
   * The text as people may see it: nothing in it is a command for whatever shows it, and what was masked is not in it. All
   * that a host writes has passed through here; for outputs and files the record has (`redacted`).
   */
  redact(text: string): string;
  info(line: string): void;
  /** A line of the table at the end, which is shown also to those who want to know nothing else. */
  result(line: string): void;
  warning(message: string): void;
  /** One annotation. */
  error(message: string, title: string): void;
  /** A foldable part of the log. */
  group<T>(title: string, body: () => Promise<T>): Promise<T>;
  /** Whether somebody looks at a terminal: there the lines of `progress` replace the ones before. */
  readonly isLive: boolean;
  /** How many characters of a line can be seen at once, and how many lines. */
  readonly size: { readonly columns: number; readonly rows: number };
  /** Lines that are worth seeing while they are true and no longer; none at all ends it. */
  progress(lines: readonly string[]): void;
  output(name: OutputName, value: string): void;
  /** Markdown for the page of the job; where there is none, nothing happens: the log has it all. */
  summary(markdown: string): Promise<void>;
  /** The whole record, for hosts that print it. */
  report(document: ReportDocument): void;
  saveState(name: StateName, value: string): void;
  state(name: StateName): string;
  /** Marks the job as failed; called once, last. CI systems that know one way to fail ignore the exit code. */
  fail(message: string, exitCode: ExitCode): void;
}

/** Exit codes of the command line; one that a signal ended has 128 and the number of the signal, as shells say. */
export const EXIT = { ok: 0, failed: 1, usage: 2, SIGHUP: 129, SIGINT: 130, SIGTERM: 143 } as const;

export type ExitCode = (typeof EXIT)[keyof typeof EXIT];

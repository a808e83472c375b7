import type { InputName } from '../inputs.ts';

/** What the job did, for the steps after it. Values are texts; structured ones are JSON. */
export type OutputName = 'images' | 'image-ids' | 'nodes' | 'bytes-sent' | 'changed';

export const OUTPUTS: Readonly<Record<OutputName, string>> = {
  images: 'The references that the nodes now hold, one per line.',
  'image-ids': 'JSON: image ID (config digest) by reference and platform.',
  nodes: 'JSON: one object per node with its facts, findings, bytes sent, verdicts and error.',
  'bytes-sent': 'Bytes of image archives sent to all nodes together.',
  changed:
    '`true` when some node did not have the images before (with `mode: plan`: does not have them), else `false`.',
};

/** Names under which the main step leaves word for the post step. */
export type StateName = 'started' | 'run' | 'scratch' | 'finished';

/**
 * The CI system or terminal around us. The core knows nothing else of it: where its log groups, masks, annotations and
 * outputs go is the business of the file that makes a `Host`.
 */
export interface Host {
  /** The text of an input as the user gave it; `undefined` when not set. */
  input(name: InputName): string | undefined;
  /** A directory on a real disk for files of this run; the run makes its own directory inside. */
  readonly temporaryDirectory: string;
  /** Keeps a secret out of the log from now on, each of its lines by itself (Gitea and Forgejo mask lines only). */
  mask(secret: string): void;
  info(line: string): void;
  warning(message: string): void;
  /** One annotation. */
  error(message: string, title: string): void;
  /** A foldable part of the log. */
  group<T>(title: string, body: () => Promise<T>): Promise<T>;
  /** Whether somebody looks at a terminal: progress lines replace one another there. */
  readonly isLive: boolean;
  /** A line that is worth seeing while it is true and no longer: progress of a transfer. */
  progress(line: string): void;
  output(name: OutputName, value: string): void;
  /** Markdown for the page of the job; where there is none, nothing happens: the log has it all. */
  summary(markdown: string): Promise<void>;
  saveState(name: StateName, value: string): void;
  state(name: StateName): string;
  /** Marks the job as failed; called once, last. */
  fail(message: string): void;
}

import { tmpdir } from 'node:os';
import type { Host } from '../../src/host/host.ts';
import type { InputName } from '../../src/inputs.ts';

/** A host that notes what is done to it, in order. */
export interface RecordingHost extends Host {
  /** Each as `METHOD ARGUMENTS…`. */
  readonly calls: readonly string[];
  readonly masked: readonly string[];
  readonly outputs: Readonly<Record<string, string>>;
  readonly markdown: string;
}

export function recordingHost(inputs: Partial<Record<InputName, string>> = {}, isLive = false): RecordingHost {
  const calls: string[] = [];
  const masked: string[] = [];
  const outputs: Record<string, string> = {};
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
    get markdown() {
      return markdown;
    },
    input: name => inputs[name],
    temporaryDirectory: tmpdir(),
    mask: secret => masked.push(secret),
    info: note('info'),
    warning: note('warning'),
    error: note('error'),
    group: async (title, body) => {
      note('group')(title);
      return await body();
    },
    isLive,
    progress: note('progress'),
    output: (name, value) => {
      note('output')(name);
      outputs[name] = value;
    },
    summary: async text => {
      note('summary')();
      markdown = text;
    },
    saveState: note('saveState'),
    state: () => '',
    fail: note('fail'),
  };
}

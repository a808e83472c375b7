import { tmpdir } from 'node:os';
import type { InputName } from '../inputs.ts';
import { jsonText } from '../report/document.ts';
import { ciRun } from './ci.ts';
import { EXIT, type ExitCode, type Host, type OutputName } from './host.ts';
import { type Screen, screenOf } from './screen.ts';
import { secretStore } from './secrets.ts';

export interface TerminalOptions {
  /** Flags by input name. */
  readonly flags: Partial<Record<InputName, string>>;
  /** The record as JSON on standard output, in place of the outputs. */
  readonly isJson?: boolean;
  /** Only what is wrong, and the table at the end. */
  readonly isQuiet?: boolean;
  readonly env?: NodeJS.ProcessEnv;
  readonly stdout?: NodeJS.WriteStream;
  readonly stderr?: NodeJS.WriteStream;
}

export interface TerminalHost extends Host {
  /** How the process is to end. */
  readonly exitCode: ExitCode;
}

/** The environment variable that sets an input for the command line; the only way in for secrets, besides files. */
export function variableOf(name: InputName): string {
  return `KUBE_SIDELOAD_${name.replaceAll('-', '_').toUpperCase()}`;
}

/**
 * A shell, or a job of any CI that runs commands. The story goes to standard error, the outputs as `name=value` lines
 * (or one JSON text for values of several lines) to standard output, so that a pipeline can read them; in a terminal,
 * where nobody does, they are left out.
 */
export function terminalHost(options: TerminalOptions): TerminalHost {
  const { flags, isJson = false, isQuiet = false, env = process.env, stdout = process.stdout } = options;
  const { stderr = process.stderr } = options;
  const secrets = secretStore();
  const screen = screenOf(stderr, env);
  let exitCode: ExitCode = EXIT.ok;
  let hasStory = false;
  let hasResult = false;
  /** Whoever looks on sees where something begins; the log of a job stays as short as it is. */
  const apart = (text: string) => (screen.isLive && hasStory ? `\n${text}` : text);
  const write = (line: string, style?: Parameters<Screen['write']>[1]) => {
    hasStory = true;
    screen.write(secrets.redact(line), style);
  };
  return {
    input: name => flags[name] ?? env[variableOf(name)],
    defaultConfig: 'kube-sideload.yaml',
    ci: ciRun(env),
    temporaryDirectory: tmpdir(),
    mask: secrets.add,
    redact: secrets.redact,
    info: line => isQuiet || write(line),
    result: line => {
      write(hasResult ? line : apart(line));
      hasResult = true;
    },
    warning: message => isQuiet || write(apart(`warning: ${message}`), 'warning'),
    error: (message, title) => write(apart(`error: ${title}\n${message}`), 'error'),
    group: async (title, body) => {
      if (!isQuiet) {
        write(apart(title), 'title');
      }
      return await body();
    },
    isLive: screen.isLive,
    get size() {
      return screen.size;
    },
    progress: lines => {
      if (isQuiet) {
        return;
      }
      const shown = lines.map(secrets.redact);
      if (screen.isLive) {
        screen.draw(shown);
      } else {
        shown.map(line => screen.write(line));
      }
    },
    output: (name: OutputName, value) => {
      if (!isJson && stdout.isTTY !== true) {
        stdout.write(`${name}=${value.includes('\n') ? JSON.stringify(value) : value}\n`);
      }
    },
    summary: async () => {},
    report: document => {
      if (isJson) {
        stdout.write(jsonText(document));
      }
    },
    saveState: () => {},
    state: () => '',
    fail: (message, code) => {
      exitCode = code;
      write(apart(`failed: ${message}`), 'error');
    },
    get exitCode() {
      return exitCode;
    },
  };
}

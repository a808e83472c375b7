import { tmpdir } from 'node:os';
import { stripVTControlCharacters } from 'node:util';
import type { InputName } from '../inputs.ts';
import type { Host, OutputName } from './host.ts';

interface TerminalOptions {
  /** Flags by input name. */
  readonly flags: Partial<Record<InputName, string>>;
  readonly env?: NodeJS.ProcessEnv;
  readonly stdout?: NodeJS.WriteStream;
  readonly stderr?: NodeJS.WriteStream;
}

/** The environment variable that sets an input for the command line; the only way in for secrets, besides files. */
export function variableOf(name: InputName): string {
  return `KUBE_SIDELOAD_${name.replaceAll('-', '_').toUpperCase()}`;
}

/**
 * A shell, or a job of any CI that runs commands. The story goes to standard error, the outputs as `name=value` lines
 * (or one JSON text for values of several lines) to standard output, so that a pipeline can read them.
 */
export function terminalHost({
  flags,
  env = process.env,
  stdout = process.stdout,
  stderr = process.stderr,
}: TerminalOptions): Host & { readonly failed: boolean } {
  const secrets = new Set<string>();
  const live = stderr.isTTY === true;
  let failed = false;
  let progressShown = false;
  const write = (line: string) => {
    let text = line;
    // The longest first: one secret may be a part of another.
    for (const secret of [...secrets].sort((one, other) => other.length - one.length)) {
      text = text.replaceAll(secret, '***');
    }
    if (progressShown) {
      stderr.write('\r\u001b[K');
      progressShown = false;
    }
    stderr.write(`${live ? text : stripVTControlCharacters(text)}\n`);
  };
  return {
    input: name => flags[name] ?? env[variableOf(name)],
    temporaryDirectory: tmpdir(),
    mask: secret => {
      for (const line of secret.split(/\r?\n/)) {
        if (line.trim() !== '') {
          secrets.add(line);
        }
      }
    },
    info: write,
    warning: message => write(`warning: ${message}`),
    error: (message, title) => write(`error: ${title}\n${message}`),
    group: async (title, body) => {
      write(title);
      return await body();
    },
    isLive: live,
    progress: line => {
      if (live) {
        stderr.write(`\r\u001b[K${line.slice(0, (stderr.columns ?? 80) - 1)}`);
        progressShown = true;
      } else {
        write(line);
      }
    },
    output: (name: OutputName, value) => {
      stdout.write(`${name}=${value.includes('\n') ? JSON.stringify(value) : value}\n`);
    },
    summary: async () => {},
    saveState: () => {},
    state: () => '',
    fail: message => {
      failed = true;
      write(`failed: ${message}`);
    },
    get failed() {
      return failed;
    },
  };
}

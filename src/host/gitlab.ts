import { type TerminalHost, type TerminalOptions, terminalHost } from './terminal.ts';

/**
 * A job of GitLab, which runs commands: the terminal's words, with stages as sections that fold. Outputs are for
 * `report-dotenv` and `report-json` there; in the log they would only be in the way. GitLab masks variables of one line
 * with 8 characters or more, and no others: the terminal's own replacement masks the rest.
 */
export function gitlabHost(options: TerminalOptions): TerminalHost {
  const { stderr = process.stderr, isQuiet = false } = options;
  const host = terminalHost(options);
  let sections = 0;
  return {
    ...host,
    get size() {
      return { columns: 120, rows: 1 };
    },
    get exitCode() {
      return host.exitCode;
    },
    output: () => {},
    group: async (title, body) => {
      if (isQuiet) {
        return await body();
      }
      const name = `kube_sideload_${++sections}`;
      stderr.write(`\u001b[0Ksection_start:${now()}:${name}[collapsed=true]\r\u001b[0K${host.redact(title)}\n`);
      try {
        return await body();
      } finally {
        stderr.write(`\u001b[0Ksection_end:${now()}:${name}\r\u001b[0K\n`);
      }
    },
  };
}

/** In whole seconds, as GitLab reads it. */
function now(): number {
  return Math.floor(Date.now() / 1000);
}

import { parseArgs } from 'node:util';
import { isMode, SHELLS, SHORT, SWITCHES } from './commands.ts';
import { completionScript } from './completion.ts';
import { runPush, withoutNodes } from './entry.ts';
import { SideloadError } from './errors.ts';
import { commandHelp, helpText } from './help.ts';
import { ciRun } from './host/ci.ts';
import { gitlabHost } from './host/gitlab.ts';
import { EXIT } from './host/host.ts';
import { catchStray } from './host/stray.ts';
import { terminalHost } from './host/terminal.ts';
import { INPUT_NAMES, INPUTS, type InputName, inputSpec, takesSeveral } from './inputs.ts';
import { jsonText, reportDocument } from './report/document.ts';
import { redacted } from './report/report.ts';
import { harmless } from './report/text.ts';
import { faultOfOptions, faultOfRepeated, faultOfWords } from './usage.ts';
import { VERSION } from './version.ts';

type Switch = keyof typeof SWITCHES;

function parse(argv: readonly string[]) {
  const flags = INPUT_NAMES.filter(name => inputSpec(name).type !== 'secret');
  const switches = Object.keys(SWITCHES) as readonly Switch[];
  return parseArgs({
    args: [...argv],
    options: {
      ...Object.fromEntries(flags.map(name => [name, { type: 'string', multiple: true }] as const)),
      ...Object.fromEntries(
        switches.map(name => [
          name,
          { type: 'boolean', ...(SHORT[name] !== undefined && { short: SHORT[name] }) } as const,
        ]),
      ),
    },
    allowPositionals: true,
    strict: true,
  });
}

async function main(argv: readonly string[]): Promise<number> {
  const startedAt = new Date().toISOString();
  /** Whoever reads the record learns of a wrong command line, too. */
  const usageError = (message: string) => {
    if (argv.includes('--json')) {
      const error = new SideloadError('INPUT_INVALID', message, { hint: 'Compare with `kube-sideload --help`.' });
      const host = { input: (name: InputName) => (name === 'mode' ? argv.find(isMode) : undefined) };
      const document = reportDocument(withoutNodes(host, startedAt, error), ciRun(process.env));
      process.stdout.write(jsonText(redacted(document, harmless)));
    }
    process.stderr.write(`${harmless(message)}\nTry \`kube-sideload --help\`.\n`);
    return EXIT.usage;
  };
  let parsed: ReturnType<typeof parse>;
  try {
    parsed = parse(argv);
  } catch (error) {
    return usageError(faultOfOptions(error));
  }
  const values: Readonly<Record<string, unknown>> = parsed.values;
  const isOn = (name: Switch) => values[name] === true;
  const [command, ...rest] = parsed.positionals;
  if (isOn('version')) {
    return print(`${VERSION}\n`);
  }
  if (command === undefined && isOn('json') && !isOn('help')) {
    return usageError('a command is missing, such as `push`');
  }
  if (command === undefined) {
    print(helpText());
    return isOn('help') ? EXIT.ok : EXIT.usage;
  }
  if (command === 'help') {
    return print(isMode(rest[0]) ? commandHelp(rest[0]) : helpText());
  }
  if (command === 'completion') {
    const shell = SHELLS.find(one => one === rest[0]);
    return shell === undefined || rest.length > 1
      ? usageError(`completion is for one of: ${SHELLS.join(', ')}`)
      : print(completionScript(shell));
  }
  if (!isMode(command) || rest.length > 0) {
    return usageError(faultOfWords(parsed.positionals));
  }
  if (isOn('help')) {
    return print(commandHelp(command));
  }
  const flags: Partial<Record<InputName, string>> = {};
  for (const name of INPUT_NAMES) {
    const given = values[name];
    if (Array.isArray(given)) {
      if (given.length > 1 && !takesSeveral(name)) {
        return usageError(faultOfRepeated(name, given));
      }
      flags[name] = given.join('\n');
    }
  }
  // `push` is the default, and leaves the mode to whoever sets it.
  if (command !== INPUTS.mode.default) {
    if (flags.mode !== undefined && flags.mode !== command) {
      return usageError(`${command} and --mode=${flags.mode} contradict each other`);
    }
    flags.mode = command;
  }
  const makeHost = process.env.GITLAB_CI ? gitlabHost : terminalHost;
  const host = makeHost({ flags, isJson: isOn('json'), isQuiet: isOn('quiet') });
  catchStray(host);
  await runPush(host);
  return host.exitCode;
}

function print(text: string): number {
  process.stdout.write(text);
  return EXIT.ok;
}

process.exitCode = await main(process.argv.slice(2));

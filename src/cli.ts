import { parseArgs } from 'node:util';
import { isMode, SHELLS, SHORT, SWITCHES } from './commands.ts';
import { completionScript } from './completion.ts';
import { runPush } from './entry.ts';
import { commandHelp, helpText } from './help.ts';
import { gitlabHost } from './host/gitlab.ts';
import { EXIT } from './host/host.ts';
import { terminalHost } from './host/terminal.ts';
import { INPUT_NAMES, INPUTS, type InputName, inputSpec } from './inputs.ts';
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
  let parsed: ReturnType<typeof parse>;
  try {
    parsed = parse(argv);
  } catch (error) {
    return usageError(error instanceof Error ? error.message : String(error));
  }
  const values: Readonly<Record<string, unknown>> = parsed.values;
  const isOn = (name: Switch) => values[name] === true;
  const [command, ...rest] = parsed.positionals;
  if (isOn('version')) {
    return print(`${VERSION}\n`);
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
    return usageError(`unknown command: ${parsed.positionals.join(' ')}`);
  }
  if (isOn('help')) {
    return print(commandHelp(command));
  }
  const flags: Partial<Record<InputName, string>> = {};
  for (const name of INPUT_NAMES) {
    const given = values[name];
    if (Array.isArray(given)) {
      // A flag that is given several times makes a list; where one value is wanted, the parser says so.
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
  await runPush(host);
  return host.exitCode;
}

function print(text: string): number {
  process.stdout.write(text);
  return EXIT.ok;
}

function usageError(message: string): number {
  process.stderr.write(`${message}\nTry \`kube-sideload --help\`.\n`);
  return EXIT.usage;
}

process.exitCode = await main(process.argv.slice(2));

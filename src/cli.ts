import { parseArgs } from 'node:util';
import { runPush } from './entry.ts';
import { helpText } from './help.ts';
import { terminalHost } from './host/terminal.ts';
import { INPUT_NAMES, INPUTS, type InputName, inputSpec } from './inputs.ts';
import { VERSION } from './version.ts';

/** Exit codes: 0 done, 1 failed, 2 the command line is wrong. */
const USAGE_ERROR = 2;

async function main(argv: readonly string[]): Promise<number> {
  const options = Object.fromEntries(
    INPUT_NAMES.filter(name => inputSpec(name).type !== 'secret').map(
      name => [name, { type: 'string', multiple: true }] as const,
    ),
  );
  let parsed: ReturnType<typeof parse>;
  function parse() {
    return parseArgs({
      args: [...argv],
      options: { ...options, help: { type: 'boolean', short: 'h' }, version: { type: 'boolean' } },
      allowPositionals: true,
      strict: true,
    });
  }
  try {
    parsed = parse();
  } catch (error) {
    return usageError(error instanceof Error ? error.message : String(error));
  }
  const { help, version, ...values } = parsed.values;
  const [command, ...rest] = parsed.positionals;
  if (help === true || (command === undefined && version !== true)) {
    process.stdout.write(helpText());
    return help === true ? 0 : USAGE_ERROR;
  }
  if (version === true) {
    process.stdout.write(`${VERSION}\n`);
    return 0;
  }
  const mode = INPUTS.mode.type.oneOf.find(one => one === command);
  if (mode === undefined || rest.length > 0) {
    return usageError(`unknown command: ${parsed.positionals.join(' ')}`);
  }
  const flags: Partial<Record<InputName, string>> = {};
  for (const name of INPUT_NAMES) {
    const given = (values as Record<string, unknown>)[name];
    if (Array.isArray(given)) {
      // A flag that is given several times makes a list; where one value is wanted, the parser says so.
      flags[name] = given.join('\n');
    }
  }
  // `push` is the default, and leaves the mode to whoever sets it.
  if (mode !== INPUTS.mode.default) {
    if (flags.mode !== undefined && flags.mode !== mode) {
      return usageError(`${mode} and --mode=${flags.mode} contradict each other`);
    }
    flags.mode = mode;
  }
  const host = terminalHost({ flags });
  await runPush(host);
  return host.failed ? 1 : 0;
}

function usageError(message: string): number {
  process.stderr.write(`${message}\nTry \`kube-sideload --help\`.\n`);
  return USAGE_ERROR;
}

process.exitCode = await main(process.argv.slice(2));

import { COMMANDS, MODES, SHELLS, SHORT, SWITCHES } from './commands.ts';
import { variableOf } from './host/terminal.ts';
import { INPUT_NAMES, type Inputs, inputSpec } from './inputs.ts';
import { wrap } from './report/text.ts';

const WIDTH = 100;
const INDENT = 6;

/** What `kube-sideload --help` prints: the commands, the common case, and how it ends. */
export function helpText(): string {
  const width = Math.max(...[...MODES, 'completion'].map(name => name.length));
  return [
    'kube-sideload: put container images on Kubernetes nodes over SSH, without a registry',
    '',
    'Usage:',
    '  kube-sideload COMMAND [options]',
    '',
    'Commands:',
    ...MODES.map(mode => `  ${mode.padEnd(width)}  ${COMMANDS[mode].about}`),
    `  ${'completion'.padEnd(width)}  print a completion script: ${SHELLS.join(', ')}`,
    '',
    'Examples:',
    ...MODES.flatMap(mode => examples(mode).slice(0, 4)),
    '',
    '`kube-sideload COMMAND --help` has more examples and explains every option.',
    '',
    ...endings(),
    '',
  ].join('\n');
}

/** What `kube-sideload COMMAND --help` prints. */
export function commandHelp(mode: Inputs['mode']): string {
  return [
    ...wrap(`kube-sideload ${mode}: ${COMMANDS[mode].help}`, WIDTH),
    '',
    'Usage:',
    `  kube-sideload ${mode} [options]`,
    '',
    'Examples:',
    ...examples(mode),
    '',
    ...wrap(
      `Every option can also be set by a variable, as in $${variableOf('ssh-user')}, or in kube-sideload.yaml; secrets only by a variable or a file that an option names.`,
      WIDTH,
    ),
    '',
    'Options:',
    ...options(),
    '',
    ...endings(),
    '',
  ].join('\n');
}

function examples(mode: Inputs['mode']): readonly string[] {
  return COMMANDS[mode].examples.flatMap(([line, purpose]) => [`  # ${purpose}`, `  kube-sideload ${line}`]);
}

function options(): readonly string[] {
  const inputs = INPUT_NAMES.filter(name => name !== 'mode').flatMap(name => {
    const { type, default: preset, help } = inputSpec(name);
    const choices = typeof type === 'object' ? ` One of: ${type.oneOf.join(', ')}.` : '';
    const fallback = preset === undefined ? '' : ` Default: ${preset}.`;
    const heading = type === 'secret' ? `  $${variableOf(name)}` : `  --${name}`;
    return [heading, ...indented(`${help}${choices}${fallback}`)];
  });
  const switches = Object.entries(SWITCHES).flatMap(([name, help]) => {
    const letter = SHORT[name as keyof typeof SWITCHES];
    return [`  ${letter === undefined ? '' : `-${letter}, `}--${name}`, ...indented(help)];
  });
  return [...inputs, ...switches];
}

function indented(text: string): readonly string[] {
  return wrap(text, WIDTH - INDENT).map(line => `${' '.repeat(INDENT)}${line}`);
}

function endings(): readonly string[] {
  return [
    'Exit codes:',
    '  0    every node did what the command says',
    '  1    something failed; the last lines say where, why and what to do next',
    '  2    the command line, an input or a file of settings is wrong; nothing was done',
    '  130  interrupted (SIGINT); 129 and 143 likewise for SIGHUP and SIGTERM',
  ];
}

import { describe, expect, it } from 'vitest';
import { COMMANDS, MODES, SHORT, SWITCHES } from '../../src/commands.ts';
import { commandHelp, helpText } from '../../src/help.ts';
import { EXIT } from '../../src/host/host.ts';
import { variableOf } from '../../src/host/terminal.ts';
import { INPUT_NAMES, INPUTS, inputSpec } from '../../src/inputs.ts';

it('there is a command for each mode, with examples', () => {
  expect(MODES.toSorted()).toEqual(INPUTS.mode.type.oneOf.toSorted());
  for (const mode of MODES) {
    expect(COMMANDS[mode].examples.length).toBeGreaterThan(1);
    expect(helpText()).toMatch(new RegExp(`^ {2}${mode} +\\S`, 'm'));
    for (const [line] of COMMANDS[mode].examples) expect(commandHelp(mode)).toContain(`  kube-sideload ${line}\n`);
  }
});

describe.each(MODES)('the help of %s', mode => {
  const lines = commandHelp(mode).split('\n');

  it.each(INPUT_NAMES.filter(name => name !== 'mode'))('tells of %s, with its default and its choices', name => {
    const { type, default: preset } = inputSpec(name);
    // A secret is no flag: the command line is seen by everybody on the machine.
    const heading = type === 'secret' ? `  $${variableOf(name)}` : `  --${name}`;
    const start = lines.indexOf(heading);
    expect(start).toBeGreaterThan(0);
    const rest = lines.slice(start + 1);
    const end = rest.findIndex(line => !line.startsWith('      '));
    const text = rest
      .slice(0, end)
      .map(line => line.trim())
      .join(' ');
    if (preset !== undefined) expect(text).toContain(`Default: ${preset}.`);
    if (typeof type === 'object') expect(text).toContain(`One of: ${type.oneOf.join(', ')}.`);
  });

  it.each(Object.keys(SWITCHES) as (keyof typeof SWITCHES)[])('tells of --%s', name => {
    const letter = SHORT[name];
    expect(lines).toContain(letter === undefined ? `  --${name}` : `  -${letter}, --${name}`);
  });
});

it.each(Object.entries(EXIT))('explains exit code %s', (_name, code) => {
  for (const text of [helpText(), ...MODES.map(commandHelp)]) {
    expect(text.slice(text.indexOf('Exit codes:'))).toMatch(new RegExp(`\\b${code}\\b`));
  }
});

it('fits into a terminal', () => {
  for (const text of [helpText(), ...MODES.map(commandHelp)]) {
    for (const line of text.split('\n')) expect(line.length, line).toBeLessThanOrEqual(100);
  }
});

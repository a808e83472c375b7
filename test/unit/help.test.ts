import { expect, it } from 'vitest';
import { helpText } from '../../src/help.ts';
import { variableOf } from '../../src/host/terminal.ts';
import { INPUT_NAMES, inputSpec } from '../../src/inputs.ts';

const lines = helpText().split('\n');

it.each(INPUT_NAMES)('tells of %s, with its default and its choices', name => {
  const { type, default: preset } = inputSpec(name);
  // A secret is no flag: the command line is seen by everybody on the machine.
  const heading = type === 'secret' ? `  $${variableOf(name)}` : `  --${name}`;
  const start = lines.indexOf(heading);
  expect(start).toBeGreaterThan(0);
  const rest = lines.slice(start + 1);
  const text = rest
    .slice(
      0,
      rest.findIndex(line => !line.startsWith('      ')),
    )
    .map(line => line.trim())
    .join(' ');
  if (preset !== undefined) expect(text).toContain(`Default: ${preset}.`);
  if (typeof type === 'object') expect(text).toContain(`One of: ${type.oneOf.join(', ')}.`);
});

it('fits into a terminal', () => {
  for (const line of lines) expect(line.length, line).toBeLessThanOrEqual(110);
});

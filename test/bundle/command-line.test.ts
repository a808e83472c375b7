import { expect, it } from 'vitest';
import { INPUT_NAMES, inputSpec } from '../../src/inputs.ts';
import { VERSION } from '../../src/version.ts';
import { runCli } from '../shipped.ts';

it('prints its help, with every flag', async () => {
  for (const flag of ['--help', '-h']) {
    const { code, stdout, stderr } = await runCli([flag]);
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
    for (const name of INPUT_NAMES.filter(one => inputSpec(one).type !== 'secret'))
      expect(stdout).toContain(`  --${name}\n`);
  }
});

it('prints its version', async () => {
  expect(await runCli(['--version'])).toMatchObject({ code: 0, stdout: `${VERSION}\n`, stderr: '' });
});

it.each<[what: string, args: readonly string[], said: RegExp]>([
  ['an unknown flag', ['push', '--nope'], /Unknown option '--nope'/],
  ['an unknown command', ['pull'], /unknown command: pull/],
  ['one word too many', ['push', 'app:1'], /unknown command: push app:1/],
  ['two words that contradict each other', ['plan', '--mode=push'], /plan and --mode=push contradict each other/],
  ['a flag without its value', ['push', '--images'], /--images/],
  ['a flag that takes no value', ['--help=yes'], /--help/],
])('ends with 2 when the command line is wrong: %s', async (_what, args, said) => {
  const { code, stdout, stderr } = await runCli(args);
  expect({ code, stdout }).toEqual({ code: 2, stdout: '' });
  expect(stderr).toMatch(said);
  expect(stderr).toMatch(/Try `kube-sideload --help`/);
  expect(stderr).not.toMatch(/^\s+at /m);
});

it('ends with 2 and its help when it is told nothing', async () => {
  const { code, stdout } = await runCli([]);
  expect(code).toBe(2);
  expect(stdout).toContain('Usage:');
});

it.each(['ssh-private-key', 'ssh-key-passphrase', 'ssh-password', 'sudo-password'])(
  'takes no secret as a flag, and does not repeat it: --%s',
  async name => {
    const { code, log } = await runCli(['push', `--${name}=hunter2hunter2`]);
    expect(code).toBe(2);
    expect(log).not.toContain('hunter2');
  },
);

it('takes a flag several times for a list, and once where one value is wanted', async () => {
  const list = await runCli(['push', '--nodes=a b', '--nodes=c d', '--smoke=none']);
  expect(list.log).toMatch(/"a b" is not a node[\s\S]*"c d" is not a node/);
  const port = await runCli(['push', '--ssh-port=22', '--ssh-port=23']);
  expect(port.log).toMatch(/`ssh-port` must be a port/);
});

import { execFileSync } from 'node:child_process';
import { expect, test } from 'vitest';
import { commandLine } from '../../src/ssh/quote.ts';

const ARGUMENTS = [
  '',
  ' ',
  'two words',
  'docker.io/library/app:v1.2',
  '--platform=linux/amd64',
  '=ls',
  '%self',
  "it's",
  "'",
  "''",
  'a!b',
  '!!',
  'back\\slash',
  '\\',
  "\\'",
  '$HOME `id` $(id)',
  '"quoted"',
  '*',
  '?',
  '[a]',
  '{a,b}',
  '~',
  '~root',
  '#no comment',
  'a;b&c|d<e>f(g)h',
  '^x^y',
  '-n',
  'tab\there',
  'ümläut …',
];

test.each(['sh', 'dash', 'bash'])('every argument comes through %s unchanged', shell => {
  const line = commandLine(['printf', '%s\\0', ...ARGUMENTS]);
  const printed = execFileSync(shell, ['-c', line], { encoding: 'utf8' });
  expect(printed.split('\0').slice(0, -1)).toEqual(ARGUMENTS);
});

test('a program name with an equals sign is not read as an assignment', () => {
  expect(() => execFileSync('sh', ['-c', commandLine(['a=b'])], { stdio: 'pipe' })).toThrow('a=b');
});

test('ordinary commands stay as they are, so that logs are readable and every shell agrees', () => {
  const line = commandLine(['sudo', '-n', 'ctr', '-a', '/run/k3s/containerd/containerd.sock', 'images', 'import', '-']);
  expect(line).toBe('sudo -n ctr -a /run/k3s/containerd/containerd.sock images import -');
});

test('characters that fish and csh read inside single quotes stand outside of them', () => {
  expect(commandLine(['echo', "a b\\c!d'e"])).toBe("echo 'a b'\\\\'c'\\!'d'\\''e'");
});

test.each(['a\nb', 'a\rb', 'a\0b'])('what not all shells can quote is refused: %j', argument => {
  expect(() => commandLine(['echo', argument])).toThrow(expect.objectContaining({ code: 'INPUT_INVALID' }));
});

test('an empty command is refused', () => {
  expect(() => commandLine([])).toThrow(expect.objectContaining({ code: 'INPUT_INVALID' }));
});

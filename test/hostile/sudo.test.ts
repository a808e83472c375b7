import { readFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { afterAll, beforeAll, describe, expect, inject, it } from 'vitest';
import { enter } from '../lab/index.ts';
import { must } from '../node/people.ts';
import { ALLOWANCES, tricksOn } from '../tricks.ts';

const lab = inject('lab');
const files = resolve(import.meta.dirname, '..', '..', 'docs', 'privileges');
const node = lab.nodes.find(({ kind }) => kind === 'crio') ?? expect.unreachable();
const USER = 'trickster';
const SUDOERS = `/etc/sudoers.d/${USER}`;

/** As an administrator has it who lets the user do all that the file has, with `keep` and `pin`. */
function textOf(name: string): string {
  const text = readFileSync(join(files, `sudoers.${name}`), 'utf8').replaceAll(/^#(?=kube-sideload ALL| {4})/gm, '');
  return text.replaceAll(/^(Defaults:)?kube-sideload\b/gm, `$1${USER}`);
}

/** Programs that this node has not; sudo finds nothing that is not there. */
const programs = [
  ...new Set(ALLOWANCES.flatMap(({ commands }) => commands.map(command => command.replace(/ .*/, '')))),
];
const paths = programs.filter(program => program.startsWith('/'));

beforeAll(async () => {
  await must(
    node,
    `useradd --create-home --home-dir /srv/${USER} ${USER}
for program in ${paths.join(' ')}; do
  [ -e $program ] || { mkdir -p \${program%/*} && printf '#!/bin/sh\\n' >$program && chmod 755 $program && echo $program >>/run/${USER}; }
done`,
  );
});
afterAll(() =>
  must(node, `xargs rm -f </run/${USER}; rm -f /run/${USER} ${SUDOERS}; userdel --remove ${USER} 2>/dev/null`),
);

/** Those of the commands that sudo would run for the user. */
async function allowed(commands: readonly string[]): Promise<readonly string[]> {
  const script = `set -f
while IFS= read -r command; do
  sudo -n -l -U ${USER} $command >/dev/null 2>&1 </dev/null && printf '%s\\n' "$command"
done
exit 0`;
  const { stdout } = await enter(node, ['sh', '-c', script], { input: `${commands.join('\n')}\n`, timeoutMs: 120_000 });
  return stdout.split('\n').filter(line => line !== '');
}

/** Of so many tricks one is tried on real sudo, of the file with two commands all. */
const EACH = 40;

describe.each(ALLOWANCES)('sudo with sudoers.$name', ({ name, commands }) => {
  it('allows what a run asks for, and refuses what else a user may try', async () => {
    await must(
      node,
      `cat >${SUDOERS}.new <<'END'\n${textOf(name)}END\nvisudo -c -q -f ${SUDOERS}.new && mv ${SUDOERS}.new ${SUDOERS}`,
    );
    expect(await allowed(commands)).toEqual(commands);
    // The shell above passes no empty word: what is an allowed command without it is no trick.
    const isAllowed = (trick: string) => commands.includes(trick.split(' ').filter(Boolean).join(' '));
    const tricks = commands.flatMap(tricksOn).filter(trick => !/[\n\t]/.test(trick) && !isAllowed(trick));
    const tried = tricks.filter((_, index) => name === 'podman-load' || index % EACH === 0);
    expect(tried.length).toBeGreaterThan(30);
    expect(await allowed(tried)).toEqual([]);
  });
});

it('keeps settings of the user, and words with blanks in them, from what root runs', async () => {
  const [inspect = expect.unreachable()] = ALLOWANCES.filter(({ name }) => name === 'podman-load').flatMap(
    ({ commands }) => commands.filter(command => command.includes(' inspect ')),
  );
  await must(node, `cat >${SUDOERS} <<'END'\n${textOf('podman-load')}END`);
  const words = inspect.split(' ').map(word => `'${word}'`);
  const ask = async (before: string, after = '') => {
    const { stdout, stderr } = await enter(node, [
      'su',
      USER,
      '-c',
      `HOME=/srv/${USER} CONTAINERS_CONF=/srv/mine.conf sudo -n ${before} ${words.join(' ')}${after}`,
    ]);
    return `${stdout}${stderr}`;
  };
  expect(await ask('')).toMatch(/no such image|image not known/);
  for (const before of ['CONTAINERS_CONF=/srv/mine.conf', '-E', '-R /srv', '-D /srv', `-u ${USER}`, '-g root']) {
    expect(await ask(before), before).toMatch(/^sudo: |not allowed|a password is required/);
  }
  for (const after of [' ""', "'\n--root=/srv'", "'\t--root=/srv'", "' --root=/srv'", " '--root /srv'"]) {
    expect(await ask('', after), after).toMatch(/^sudo: /);
  }
});

import { spawnSync } from 'node:child_process';
import { mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, it, onTestFinished } from 'vitest';
import { withHeartbeat } from '../../../src/node/heartbeat.ts';

/** What a shell would make something of. */
const HOSTILE = ['a b', '$(touch pwned)', '`touch pwned`', '; touch pwned;', '*', "'", '"', '\n', '-n', '', '3'];

function inDirectory(argv: readonly string[], redirection = '') {
  const directory = mkdtempSync(join(tmpdir(), 'kube-sideload-heartbeat-'));
  onTestFinished(() => rmSync(directory, { recursive: true, force: true }));
  // Nobody waits a minute and a half here; between beats the true one sleeps.
  writeFileSync(join(directory, 'sleep'), '#!/bin/sh\n[ "$1" != 90 ] || exit 0\nexec /bin/sleep "$@"\n', {
    mode: 0o755,
  });
  const { status, stdout } = spawnSync('/bin/sh', ['-c', `/usr/bin/mkfifo said; "$@" ${redirection}`, 'sh', ...argv], {
    cwd: directory,
    env: { PATH: `${directory}:${process.env.PATH}` },
    input: 'what is sent',
    encoding: 'utf8',
  });
  return { status, stdout, directory, files: () => readdirSync(directory).toSorted() };
}

it('runs a command with its words as they are, its input, and its exit code', () => {
  const print = ['sh', '-c', 'cat; printf "<%s>" "$@"; exit 7', 'sh', ...HOSTILE];
  const { status, stdout, files } = inDirectory(withHeartbeat(print, [['touch', 'abandoned']]));
  expect(stdout).toBe(`what is sent${HOSTILE.map(word => `<${word}>`).join('')}`);
  expect(status).toBe(7);
  expect(files()).toEqual(['said', 'sleep']);
});

it('has a node that is alone with a failed import remove what is left, by commands whose words are no shell text', async () => {
  const abandoned = [
    ['sh', '-c', 'shift; printf "<%s>" "$@" >first', 'sh', 'x', ...HOSTILE],
    ['sh', '-c', 'cat first >said'],
  ];
  const { directory, files } = inDirectory(withHeartbeat(['false'], abandoned), '2>&-');
  expect(await readFile(join(directory, 'said'), 'utf8')).toBe(HOSTILE.map(word => `<${word}>`).join(''));
  expect(files()).toEqual(['first', 'said', 'sleep']);
});

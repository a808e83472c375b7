import { chmodSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, expect, it } from 'vitest';
import { localKubectl } from '../../../src/smoke/program.ts';

const directory = mkdtempSync(join(tmpdir(), 'kube-sideload-program-'));
afterAll(() => rmSync(directory, { recursive: true, force: true }));

const { signal: SIGNAL } = new AbortController();

async function kubectl(script: string) {
  const path = join(directory, 'kubectl');
  writeFileSync(path, `#!/bin/sh\n${script}\n`);
  chmodSync(path, 0o755);
  return await localKubectl(path, '/a/config');
}

it('gets arguments and input, and gives both outputs and its exit code', async () => {
  const program = await kubectl('echo "$@"; cat; echo no >&2; exit 3');
  const answer = { code: 3, stderr: 'no\n' };
  expect(await program.run(['get'], '', SIGNAL)).toEqual({ ...answer, stdout: '--kubeconfig=/a/config get\n' });
  expect(await program.run(['create'], '{}', SIGNAL)).toEqual({
    ...answer,
    stdout: '--kubeconfig=/a/config create\n{}',
  });
});

it('that ends with its input unread gives its exit code', async () => {
  const program = await kubectl('exec <&-; echo refused >&2; exit 1');
  const input = 'x'.repeat(1 << 20);
  expect(await program.run(['create'], input, SIGNAL)).toEqual({ code: 1, stdout: '', stderr: 'refused\n' });
});

it('is ended with the signal, whatever it waits for', async () => {
  const program = await kubectl('trap "" TERM; echo begun >&2; while :; do sleep 60 & wait; done');
  const abort = new AbortController();
  const running = program.run(['get'], '', abort.signal);
  abort.abort(new Error('that will do'));
  await expect(running).rejects.toThrow('that will do');
});

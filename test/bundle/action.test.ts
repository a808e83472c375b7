import { mkdtemp, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type Inputs, runAction, runPost } from '../shipped.ts';
import { expectRefusal, unreachable } from './refusal.ts';

let directory: string;
/** With an image that can be read, and a node that cannot be reached. */
let inputs: Inputs;

beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), 'kube-sideload-action-'));
  inputs = await unreachable(directory);
});

afterAll(() => rm(directory, { recursive: true, force: true }));

it('a summary is the record for the page of the job', async () => {
  const { summary } = await runAction(inputs);
  expect(summary).toMatch(/^## kube-sideload: failed\n/);
  expect(summary).toContain('| w1 | – | – | – | SSH_UNREACHABLE |');
  expect(summary).toContain('**Next step:**');
});

it('files that the runner does not offer are not needed: outputs and state go to the log', async () => {
  const env = { GITHUB_OUTPUT: undefined, GITHUB_STATE: undefined, GITHUB_STEP_SUMMARY: undefined };
  const main = await runAction(inputs, { env });
  expectRefusal(main, 'SSH_UNREACHABLE', /w1/);
  expect(main.stdout).toContain('::save-state name=started::true');
  expect(main.stdout).toContain('::set-output name=changed::false');
});

describe('the post step of a run that was killed', () => {
  it('removes what it left on the runner, says what it could not reach, and does not fail the job', async () => {
    const scratch = await mkdtemp(join(directory, 'kube-sideload-killed-'));
    await writeFile(join(scratch, 'kubeconfig'), 'secret');
    const main = await runAction({ ...inputs, nodes: '' });
    const killed = { ...main, state: { started: 'true', run: 't4y1q2abcdef', scratch } };
    const post = await runPost(killed, inputs);
    expect(post).toMatchObject({ code: 0, leftOnRunner: [] });
    expect(post.log).toContain('the job of run t4y1q2abcdef was ended from outside');
    expect(post.log).toMatch(/::warning::.*w1/);
    await expect(stat(scratch)).rejects.toThrow('ENOENT');
  });

  it('removes it also when the inputs cannot be read any more', async () => {
    const scratch = await mkdtemp(join(directory, 'kube-sideload-killed-'));
    const main = await runAction({ ...inputs, nodes: '' });
    const killed = { ...main, state: { started: 'true', run: 't4y1q2abcdef', scratch } };
    expect(await runPost(killed, { ...inputs, 'ssh-private-key': '' })).toMatchObject({ code: 0, leftOnRunner: [] });
    await expect(stat(scratch)).rejects.toThrow('ENOENT');
  });
});

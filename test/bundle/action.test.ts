import { mkdtemp, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type ActionOutcome, type Inputs, type Options, runAction, runPost } from '../shipped.ts';
import { KEYS } from '../ssh/server.ts';
import { dockerArchive, sampleImage, sampleLayer, writeTar } from '../unit/image/archives.ts';
import { closedPort, expectRefusal } from './refusal.ts';

let directory: string;
/** With an image that can be read, and a node that cannot be reached. */
let inputs: Inputs;

beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), 'kube-sideload-action-'));
  const port = await closedPort();
  const archive = dockerArchive([[['app:1'], sampleImage([await sampleLayer('etc/one')])]], 'docker');
  inputs = {
    archive: await writeTar(join(directory, 'app.tar'), archive),
    nodes: `127.0.0.1:${port}=w1`,
    'ssh-private-key': KEYS.user.privateKey,
    'ssh-known-hosts': `[127.0.0.1]:${port} ${KEYS.ed25519.publicKey}`,
    smoke: 'none',
  };
});

afterAll(() => rm(directory, { recursive: true, force: true }));

function annotations({ stdout }: ActionOutcome): readonly string[] {
  return stdout.split('\n').filter(line => line.startsWith('::error'));
}

/** Gitea and Forgejo run the action in a container without a home, and take no summaries. */
const GITEA: Options = { env: { HOME: undefined, GITHUB_STEP_SUMMARY: undefined, GITEA_ACTIONS: 'true' } };

describe.each<[name: string, options: Options]>([
  ['GitHub', {}],
  ['Gitea and Forgejo', GITEA],
])('under %s', (_name, options) => {
  it('wrong inputs give one error, no output, and a post step that does nothing', async () => {
    const wrong = { ...inputs, nodes: '' };
    const main = await runAction(wrong, options);
    expectRefusal(
      main,
      'INPUT_INVALID',
      /::error title=An input is wrong::`nodes` is empty%0ANext step: list the nodes/,
    );
    expect(main.outputs).toEqual({});
    expect(main.summary).toBe('');
    expect(annotations(main)).toHaveLength(1);
    expect(main.stdout).toMatch(/\nAn input is wrong \[INPUT_INVALID\]\n$/);
    expect(await runPost(main, wrong, options)).toMatchObject({ code: 0, log: '', outputs: {}, leftOnRunner: [] });
  });

  it('no inputs at all give one error', async () => {
    const main = await runAction({}, options);
    expectRefusal(main, 'INPUT_INVALID', /problems with the inputs/);
    expect(main.log).toContain('`images` is empty');
    expect(main.log).toContain('`nodes` is empty');
  });

  it('a failed run leaves a complete record, one annotation for the node, and nothing else', async () => {
    const main = await runAction(inputs, options);
    expectRefusal(main, 'SSH_UNREACHABLE', /::error title=w1%3A The node cannot be reached over SSH::/);
    expect(annotations(main)).toHaveLength(1);
    expect(main.stdout).toContain('\n1 of 1 nodes failed: w1 [SSH_UNREACHABLE]\n');
    expect(main.outputs).toMatchObject({ images: 'docker.io/library/app:1', changed: 'false', 'bytes-sent': '0' });
    expect(main.nodes).toMatchObject([{ node: 'w1', error: { code: 'SSH_UNREACHABLE' } }]);
    expect(main.stdout.match(/^::group::/gm)?.length).toBe(main.stdout.match(/^::endgroup::/gm)?.length);
    const post = await runPost(main, inputs, options);
    expect(post).toMatchObject({ code: 0, log: '', leftOnRunner: [] });
  });
});

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

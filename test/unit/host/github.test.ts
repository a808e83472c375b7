import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { beforeEach, describe, expect, it, onTestFinished, vi } from 'vitest';
import { githubHost } from '../../../src/host/github.ts';
import { EXIT } from '../../../src/host/host.ts';

let directory: string;
let stdout: string;

beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'kube-sideload-github-'));
  stdout = '';
  vi.stubEnv('GITHUB_ACTIONS', 'true');
  const spy = vi.spyOn(process.stdout, 'write').mockImplementation(chunk => {
    stdout += chunk;
    return true;
  });
  onTestFinished(() => {
    spy.mockRestore();
    vi.unstubAllEnvs();
    process.exitCode = undefined;
    rmSync(directory, { recursive: true });
  });
});

/** An empty file of the runner, behind a variable. */
function runnerFile(variable: string): () => string {
  const path = join(directory, variable);
  writeFileSync(path, '');
  vi.stubEnv(variable, path);
  return () => readFileSync(path, 'utf8');
}

describe('under GitHub’s contract', () => {
  it('inputs are variables, whatever the shell thinks of their names', () => {
    const host = githubHost({ 'INPUT_SSH-USER': 'ci', INPUT_NODES: '' });
    expect([host.input('ssh-user'), host.input('nodes'), host.input('images')]).toEqual(['ci', '', undefined]);
  });

  it('outputs go to their file, also with several lines', () => {
    const read = runnerFile('GITHUB_OUTPUT');
    const host = githubHost();
    host.output('images', 'app:1\ndb:2');
    expect(read()).toMatch(/^images<<(\S+)\napp:1\ndb:2\n\1\n$/);
    expect(stdout).toBe('');
  });

  it('secrets are masked each line by itself, and no empty line', () => {
    githubHost().mask('line one\r\n\n  \nline two%\n', 'job');
    expect(stdout).toBe('::add-mask::line one\n::add-mask::line two%25\n');
  });

  it('the summary goes to its file', async () => {
    const read = runnerFile('GITHUB_STEP_SUMMARY');
    await githubHost().summary('## page');
    expect(read()).toBe('## page\n');
  });

  it('an error is one annotation with its title, several lines long', () => {
    githubHost().error('one\ntwo', 'w1: Title');
    expect(stdout).toBe('::error title=w1%3A Title::one%0Atwo\n');
  });

  it('what a node says is no command', () => {
    githubHost().info('said:\n::set-env name=X::y\n  ##[error]z');
    expect(stdout).toBe('said:\n| ::set-env name=X::y\n  ## [error]z\n');
  });

  it('a failure is an exit code', () => {
    githubHost().fail('2 of 3 nodes failed', EXIT.SIGINT);
    expect(process.exitCode).toBe(1);
    expect(stdout).toContain('2 of 3 nodes failed');
  });

  it('a stage is a group, and the state is for the post step', async () => {
    const read = runnerFile('GITHUB_STATE');
    const host = githubHost();
    await host.group('Stage', async () => host.info('line'));
    host.saveState('run', 't4y1q2abcdef');
    expect(stdout).toBe('::group::Stage\nline\n::endgroup::\n');
    expect(read()).toContain('t4y1q2abcdef');
  });
});

describe('under Gitea’s and Forgejo’s, who lack some of it', () => {
  it.each(['GITEA_ACTIONS', 'FORGEJO_ACTIONS'])('annotations are plain lines: %s', name => {
    const host = githubHost({ GITHUB_ACTIONS: 'true', [name]: 'true' });
    host.error('one\ntwo', 'w1: Title');
    host.warning('three');
    host.mask('a secret', 'job');
    expect(stdout).toBe('::endgroup::\nerror: w1: Title\none\ntwo\nwarning: three\n::add-mask::a secret\n');
  });

  it('where nobody knows commands there are none, and secrets are replaced', async () => {
    const host = githubHost({});
    host.mask('a secret', 'job');
    await host.group('Stage', async () => host.info('a secret'));
    host.error('one', 'Title');
    host.fail('a secret', EXIT.failed);
    expect(stdout).toBe('Stage\n***\nerror: Title\none\n***\n');
    expect(host.redact('a secret')).toBe('***');
  });

  it('a summary that nobody takes is no failure', async () => {
    await githubHost({}).summary('## page');
    expect(stdout).toBe('');
  });

  it('files of a run go to the machine’s temporary directory', () => {
    expect(githubHost({}).temporaryDirectory).toBe(tmpdir());
    expect(githubHost({ RUNNER_TEMP: '/runner/temp' }).temporaryDirectory).toBe('/runner/temp');
  });
});

import { spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { afterAll, beforeEach, describe, expect, it } from 'vitest';

const root = resolve(import.meta.dirname, '..', '..');
const base = mkdtempSync(join(tmpdir(), 'kube-sideload-tags-'));
const WORKFLOW = '.github/workflows/sideload.yml';
let repository = base;
let count = 0;

afterAll(() => rmSync(base, { recursive: true, force: true }));

function git(...args: readonly string[]): string {
  const identity = ['-c', 'user.name=test', '-c', 'user.email=test@example.invalid', '-c', 'commit.gpgsign=false'];
  const { status, stdout, stderr } = spawnSync('git', [...identity, ...args], { cwd: repository, encoding: 'utf8' });
  expect(status, stderr).toBe(0);
  return stdout.trim();
}

/** Makes a commit of these files. @returns its ID */
function commit(files: Readonly<Record<string, string>>): string {
  for (const [file, content] of Object.entries(files)) {
    mkdirSync(dirname(join(repository, file)), { recursive: true });
    writeFileSync(join(repository, file), content);
  }
  git('add', '--all');
  git('commit', '--quiet', '--message=one');
  return git('rev-parse', 'HEAD');
}

const packageOf = (version: string) => ({ 'package.json': JSON.stringify({ version }) });
const workflowWith = (revision: string) => ({
  [WORKFLOW]: `steps:\n  - uses: kube-sideload/kube-sideload@${revision}\n`,
});

/** As a release is made: the action, then the workflow that names it. @returns the commit of the action */
function prepare(version: string): string {
  count += 1;
  const action = commit({
    ...packageOf(version),
    'action.yml': version,
    'dist/index.js': `${version} ${count}`,
  });
  commit(workflowWith(`${action} # v${version}`));
  return action;
}

function judge(tag: string): { readonly status: number | null; readonly faults: string } {
  const { status, stderr } = spawnSync(process.execPath, [join(root, 'scripts', 'release-tag.ts'), tag], {
    cwd: repository,
    encoding: 'utf8',
  });
  return { status, faults: stderr.replaceAll(/^.*ExperimentalWarning.*\n|^\(Use `node.*\n/gm, '').trim() };
}

/** What a clone of the server knows of its branch. */
const publish = () => git('update-ref', 'refs/remotes/origin/main', 'HEAD');

describe('a tag may be released', () => {
  beforeEach(() => {
    repository = mkdtempSync(join(base, 'repository-'));
    git('init', '--quiet', '--initial-branch=main');
    prepare('0.2.0');
    publish();
    git('tag', 'v0');
  });

  it('when its commit is on main, newer than the last release, and its workflow runs this very action', () => {
    prepare('0.10.0');
    publish();
    expect(judge('v0.10.0')).toEqual({ status: 0, faults: '' });
  });

  it('as the first one of its major version', () => {
    prepare('1.0.0');
    publish();
    expect(judge('v1.0.0')).toEqual({ status: 0, faults: '' });
  });

  it('but not from a commit that is not on main', () => {
    prepare('0.3.0');
    expect(judge('v0.3.0')).toEqual({ status: 1, faults: 'the commit of the tag is not on origin/main' });
  });

  it.each(['0.2.0', '0.1.9'])('but not as %s, which would move the major tag back', version => {
    prepare(version);
    publish();
    expect(judge(`v${version}`)).toEqual({
      status: 1,
      faults: `v0 names 0.2.0, which is not older than v${version}`,
    });
  });

  it.each(['0.3.0', 'v0.3', 'v0.3.0-rc.1', '', 'v0.3.0\n'])('but not under the name %j', tag => {
    expect(judge(tag).faults).toMatch(/^the tag is ".*", and not like v1\.2\.3$/);
    expect(judge(tag).status).toBe(1);
  });

  it('but not under another version than that of package.json', () => {
    prepare('0.3.0');
    publish();
    expect(judge('v0.4.0')).toEqual({ status: 1, faults: 'the tag is v0.4.0, and package.json says 0.3.0' });
  });

  it('but not with a workflow that runs whatever the major tag names', () => {
    commit({ ...packageOf('0.3.0'), ...workflowWith('v0') });
    publish();
    expect(judge('v0.3.0').faults).toMatch(/names the action as "v0": run `npm run generate -- --pin`/);
  });

  it('but not with a workflow that runs the action of the last release', () => {
    commit({ ...packageOf('0.3.0'), 'dist/index.js': 'newer' });
    publish();
    expect(judge('v0.3.0').faults).toMatch(/action\.yml or dist\/ are not the same there$/);
  });

  it('but not with a workflow that runs a commit of nobody knows where', () => {
    commit({ ...packageOf('0.3.0'), ...workflowWith('0'.repeat(40)) });
    publish();
    expect(judge('v0.3.0').faults).toMatch(/which is no commit before this one$/);
  });

  it('and all that is wrong is said at once', () => {
    commit({ ...packageOf('0.1.0'), ...workflowWith('v0') });
    expect(judge('v0.1.1').faults.split('\n')).toHaveLength(4);
  });
});

import { expect, it } from 'vitest';
import { ciRun } from '../../../src/host/ci.ts';

const GITHUB = {
  GITHUB_ACTIONS: 'true',
  GITHUB_SERVER_URL: 'https://ghes.example',
  GITHUB_REPOSITORY: 'team/app',
  GITHUB_RUN_ID: '42',
  GITHUB_SHA: 'c0ffee',
  GITHUB_REF_NAME: 'main',
};

it.each<[what: string, env: NodeJS.ProcessEnv, run: ReturnType<typeof ciRun>]>([
  [
    'GitHub and GitHub Enterprise Server',
    GITHUB,
    {
      system: 'github',
      commit: 'c0ffee',
      ref: 'main',
      run: '42',
      runUrl: 'https://ghes.example/team/app/actions/runs/42',
    },
  ],
  // Which number is in the address depends on the version of Gitea: no link rather than a wrong one.
  ['Gitea', { ...GITHUB, GITEA_ACTIONS: 'true' }, { system: 'gitea', commit: 'c0ffee', ref: 'main', run: '42' }],
  ['an act of another kind', { GITHUB_ACTIONS: 'true' }, { system: 'github' }],
  [
    'GitLab',
    {
      GITLAB_CI: 'true',
      CI_COMMIT_SHA: 'c0ffee',
      CI_COMMIT_REF_NAME: 'v1',
      CI_PIPELINE_ID: '7',
      CI_JOB_URL: 'https://g/j',
    },
    { system: 'gitlab', commit: 'c0ffee', ref: 'v1', run: '7', runUrl: 'https://g/j' },
  ],
  [
    'Jenkins',
    { JENKINS_URL: 'https://j/', GIT_COMMIT: 'c0ffee', BRANCH_NAME: 'b', BUILD_NUMBER: '9', BUILD_URL: 'https://j/9' },
    { system: 'jenkins', commit: 'c0ffee', ref: 'b', run: '9', runUrl: 'https://j/9' },
  ],
  ['a shell that knows a commit', { GIT_COMMIT: 'c0ffee' }, { system: 'unknown', commit: 'c0ffee' }],
  ['a shell', { CI_COMMIT_SHA: '' }, undefined],
])('%s', (_what, env, run) => {
  expect(ciRun(env)).toEqual(run);
});

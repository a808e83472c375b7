import type { CiRun } from './host.ts';

/** The job around us, as far as its environment says; `undefined` outside of CI. */
export function ciRun(env: NodeJS.ProcessEnv): CiRun | undefined {
  if (isSet(env.GITLAB_CI)) {
    return {
      system: 'gitlab',
      commit: env.CI_COMMIT_SHA || undefined,
      ref: env.CI_COMMIT_REF_NAME || undefined,
      run: env.CI_PIPELINE_ID || undefined,
      runUrl: env.CI_JOB_URL || env.CI_PIPELINE_URL || undefined,
    };
  }
  if (isSet(env.GITHUB_ACTIONS) || isSet(env.GITEA_ACTIONS) || isSet(env.FORGEJO_ACTIONS)) {
    const isGitea = isSet(env.GITEA_ACTIONS) || isSet(env.FORGEJO_ACTIONS);
    const { GITHUB_SERVER_URL: server, GITHUB_REPOSITORY: repository, GITHUB_RUN_ID: run } = env;
    // Old Giteas and Forgejos have the number of the run in the address of its page, new ones its ID: no link is better
    // than one that leads to another run.
    const hasPage = !isGitea && isSet(server) && isSet(repository) && isSet(run);
    return {
      system: isGitea ? 'gitea' : 'github',
      commit: env.GITHUB_SHA || undefined,
      ref: env.GITHUB_REF_NAME || env.GITHUB_REF || undefined,
      run: run || undefined,
      runUrl: hasPage ? `${server}/${repository}/actions/runs/${run}` : undefined,
    };
  }
  if (isSet(env.JENKINS_URL) || isSet(env.BUILD_URL)) {
    return {
      system: 'jenkins',
      commit: env.GIT_COMMIT || undefined,
      ref: env.BRANCH_NAME || env.GIT_BRANCH || undefined,
      run: env.BUILD_NUMBER || undefined,
      runUrl: env.BUILD_URL || undefined,
    };
  }
  const commit = env.CI_COMMIT_SHA || env.GITHUB_SHA || env.GIT_COMMIT;
  return isSet(commit) ? { system: 'unknown', commit } : undefined;
}

function isSet(value: string | undefined): value is string {
  return value !== undefined && value !== '';
}

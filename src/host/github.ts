import { tmpdir } from 'node:os';
import * as core from '@actions/core';
import type { Host } from './host.ts';

/** GitHub Actions, GitHub Enterprise Server, and Gitea or Forgejo Actions, which speak the same protocol or ignore it. */
export function githubHost(env: NodeJS.ProcessEnv = process.env): Host {
  return {
    input: name => env[`INPUT_${name.replaceAll(' ', '_').toUpperCase()}`],
    temporaryDirectory: env.RUNNER_TEMP || tmpdir(),
    mask: secret => {
      for (const line of secret.split(/\r?\n/)) {
        if (line.trim() !== '') {
          core.setSecret(line);
        }
      }
    },
    info: core.info,
    warning: message => core.warning(message),
    error: (message, title) => core.error(message, { title }),
    group: core.group,
    isLive: false,
    progress: core.info,
    output: core.setOutput,
    summary: async markdown => {
      if (env.GITHUB_STEP_SUMMARY) {
        await core.summary.addRaw(markdown, true).write();
      }
    },
    saveState: core.saveState,
    state: core.getState,
    // core.setFailed would add an annotation to those that say what failed.
    fail: message => {
      core.info(message);
      process.exitCode = core.ExitCode.Failure;
    },
  };
}

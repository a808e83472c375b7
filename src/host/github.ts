import { tmpdir } from 'node:os';
import * as core from '@actions/core';
import { ciRun } from './ci.ts';
import type { Host } from './host.ts';
import { secretStore } from './secrets.ts';

/** GitHub Actions, GitHub Enterprise Server, and Gitea or Forgejo Actions, which speak the same protocol or ignore it. */
export function githubHost(env: NodeJS.ProcessEnv = process.env): Host {
  const secrets = secretStore(core.setSecret);
  return {
    input: name => env[`INPUT_${name.replaceAll(' ', '_').toUpperCase()}`],
    temporaryDirectory: env.RUNNER_TEMP || tmpdir(),
    // Whoever may change the checkout could change what runs on the runner: here a file must be named.
    defaultConfig: undefined,
    ci: ciRun(env),
    mask: secrets.add,
    redact: secrets.redact,
    info: core.info,
    result: core.info,
    warning: message => core.warning(message),
    error: (message, title) => core.error(message, { title }),
    group: core.group,
    isLive: false,
    size: { columns: 120, rows: 1 },
    progress: lines => {
      for (const line of lines) {
        core.info(line);
      }
    },
    output: core.setOutput,
    summary: async markdown => {
      if (env.GITHUB_STEP_SUMMARY) {
        await core.summary.addRaw(markdown, true).write();
      }
    },
    report: () => {},
    saveState: core.saveState,
    state: core.getState,
    // core.setFailed would add an annotation to those that say what failed.
    fail: message => {
      core.info(message);
      process.exitCode = core.ExitCode.Failure;
    },
  };
}

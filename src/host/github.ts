import { tmpdir } from 'node:os';
import * as core from '@actions/core';
import { ciRun } from './ci.ts';
import type { Host } from './host.ts';
import { secretStore } from './secrets.ts';

/**
 * GitHub Actions, GitHub Enterprise Server, and Gitea or Forgejo Actions, which fold and mask as GitHub does, and show the
 * command of an annotation as it is, escapes and all: there, and where nobody knows any command, plain lines are written.
 */
export function githubHost(env: NodeJS.ProcessEnv = process.env): Host {
  const isGitea = Boolean(env.GITEA_ACTIONS || env.FORGEJO_ACTIONS);
  const hasCommands = isGitea || Boolean(env.GITHUB_ACTIONS);
  const hasAnnotations = hasCommands && !isGitea;
  const { add, redact } = secretStore(line => {
    if (hasCommands) {
      core.setSecret(line);
    }
  });
  let isInGroupOfRunner = isGitea;
  /** Gitea’s runner opens a group for the step and leaves it open: all of a short log would be folded away. */
  const endGroupOfRunner = () => {
    if (isInGroupOfRunner) {
      core.endGroup();
    }
    isInGroupOfRunner = false;
  };
  const info = (text: string) => {
    endGroupOfRunner();
    core.info(redact(text));
  };
  return {
    input: name => env[`INPUT_${name.replaceAll(' ', '_').toUpperCase()}`],
    temporaryDirectory: env.RUNNER_TEMP || tmpdir(),
    // Whoever may change the checkout could change what runs on the runner: here a file must be named.
    defaultConfig: undefined,
    ci: ciRun(env),
    mask: add,
    redact,
    info,
    result: info,
    warning: message => (hasAnnotations ? core.warning(redact(message)) : info(`warning: ${message}`)),
    error: (message, title) =>
      hasAnnotations ? core.error(redact(message), { title: redact(title) }) : info(`error: ${title}\n${message}`),
    group: async (title, body) => {
      if (hasCommands) {
        endGroupOfRunner();
        return await core.group(redact(title), body);
      }
      info(title);
      return await body();
    },
    isLive: false,
    size: { columns: 120, rows: 1 },
    progress: lines => {
      for (const line of lines) {
        info(line);
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
      info(message);
      process.exitCode = core.ExitCode.Failure;
    },
  };
}

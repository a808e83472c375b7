/**
 * `node scripts/release-tag.ts TAG`: whether the commit that is checked out may be released under this tag. It reads git and
 * needs no package, so that it can be asked before anything from npm has run.
 *
 * - the tag is `v` and the version of package.json
 * - the commit is on `origin/main`
 * - the version is newer than the one that the major tag names, which follows it
 * - the reusable workflow names the action by a commit before this one, with the same `action.yml` and `dist/`: who pins the
 *   workflow by commit runs the action of that commit
 *
 * All that is wrong is said, a line each.
 */
import { spawnSync } from 'node:child_process';

const WORKFLOW = '.github/workflows/sideload.yml';

const [tag = ''] = process.argv.slice(2);
const faults = faultsOf(tag);
if (faults.length > 0) {
  console.error(faults.join('\n'));
  process.exit(1);
}

function faultsOf(name: string): readonly string[] {
  const version = versionOf(name);
  if (version === undefined) {
    return [`the tag is ${JSON.stringify(name)}, and not like v1.2.3`];
  }
  const [major] = version;
  const released = versionAt('HEAD');
  const last = versionAt(`refs/tags/v${major}`);
  return [
    ...(`v${released}` === name ? [] : [`the tag is ${name}, and package.json says ${released}`]),
    ...(isAncestor('HEAD', 'refs/remotes/origin/main') ? [] : ['the commit of the tag is not on origin/main']),
    ...(last === undefined || isNewer(version, versionOf(`v${last}`) ?? version)
      ? []
      : [`v${major} names ${last}, which is not older than ${name}`]),
    ...pinFaults(),
  ];
}

function pinFaults(): readonly string[] {
  const pin = /^[ -]*uses: kube-sideload\/kube-sideload@(\S+)/m.exec(git('show', `HEAD:${WORKFLOW}`).stdout)?.[1] ?? '';
  if (!/^[0-9a-f]{40}$/.test(pin)) {
    return [`${WORKFLOW} names the action as ${JSON.stringify(pin)}: run \`npm run generate -- --pin\` and commit`];
  }
  if (!isAncestor(pin, 'HEAD')) {
    return [`${WORKFLOW} names the action of ${pin}, which is no commit before this one`];
  }
  return git('diff', '--quiet', pin, 'HEAD', '--', 'action.yml', 'dist').status === 0
    ? []
    : [`${WORKFLOW} names the action of ${pin}, and action.yml or dist/ are not the same there`];
}

type Version = readonly [major: number, minor: number, patch: number];

function versionOf(name: string): Version | undefined {
  const [, major, minor, patch] = /^v(\d{1,6})\.(\d{1,6})\.(\d{1,6})$/.exec(name) ?? [];
  return patch === undefined ? undefined : [Number(major), Number(minor), Number(patch)];
}

function isNewer(one: Version, other: Version): boolean {
  const differs = one.findIndex((part, index) => part !== other[index]);
  return differs >= 0 && (one[differs] ?? 0) > (other[differs] ?? 0);
}

/** The version in package.json at a commit; `undefined` where there is none. */
function versionAt(revision: string): string | undefined {
  const { status, stdout } = git('show', `${revision}:package.json`);
  return status === 0 ? (JSON.parse(stdout) as { version: string }).version : undefined;
}

function isAncestor(commit: string, of: string): boolean {
  return git('merge-base', '--is-ancestor', commit, of).status === 0;
}

function git(...args: readonly string[]): { readonly status: number | null; readonly stdout: string } {
  return spawnSync('git', args, { encoding: 'utf8' });
}

import { execFile } from 'node:child_process';
import { access, mkdir, mkdtemp, rename, rm } from 'node:fs/promises';
import { homedir } from 'node:os';
import { delimiter, join } from 'node:path';
import { promisify } from 'node:util';

const run = promisify(execFile);

/** The Node versions that the bundles must run on: those of GitHub's, Gitea's and GitLab's runners. */
export const MAJORS = [20, 22, 24, 26] as const;
type Major = (typeof MAJORS)[number];

const cache = join(
  process.env.KUBE_SIDELOAD_CACHE ?? join(process.env.XDG_CACHE_HOME ?? join(homedir(), '.cache'), 'kube-sideload'),
  'node',
);

/** Path of a Node of this major version: the one that runs the tests, one of the machine, or one from npm, once. */
export async function nodeOf(major: Major): Promise<string> {
  if (process.versions.node.startsWith(`${major}.`)) return process.execPath;
  for (const directory of (process.env.PATH ?? '').split(delimiter)) {
    if (await isNode(join(directory, 'node'), major)) return join(directory, 'node');
  }
  const name = `node-linux-${process.arch}`;
  const program = join(cache, String(major), 'node_modules', name, 'bin', 'node');
  if (!(await isNode(program, major))) await install(`${name}@${major}`, String(major));
  if (!(await isNode(program, major))) throw new Error(`${program} is not Node ${major}`);
  return program;
}

async function isNode(program: string, major: Major): Promise<boolean> {
  try {
    await access(program);
    return (await run(program, ['--version'])).stdout.startsWith(`v${major}.`);
  } catch {
    return false;
  }
}

/** Whoever is done first gives the directory its name; nobody ever sees half of it. */
async function install(spec: string, name: string): Promise<void> {
  await mkdir(cache, { recursive: true });
  const temporary = await mkdtemp(join(cache, `.${name}-`));
  try {
    await run('npm', [
      'install',
      '--prefix',
      temporary,
      '--no-save',
      '--no-audit',
      '--no-fund',
      '--ignore-scripts',
      spec,
    ]);
    await rename(temporary, join(cache, name)).catch((error: NodeJS.ErrnoException) => {
      if (error.code !== 'ENOTEMPTY' && error.code !== 'EEXIST') throw error;
    });
  } finally {
    await rm(temporary, { recursive: true, force: true });
  }
}

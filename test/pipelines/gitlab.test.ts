import { spawn, spawnSync } from 'node:child_process';
import {
  copyFileSync,
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, inject, it } from 'vitest';
import { parseAllDocuments, stringify } from 'yaml';
import { smokePods } from '../cluster/kubernetes.ts';
import { leftOnNode, referencesOn } from '../shipped.ts';
import { example, forLab, root } from './documents.ts';
import { type GitServer, serveGit } from './git-server.ts';

const PAGE = 'docs/guides/gitlab.md';
const COMPONENT = 'kube-sideload/kube-sideload';
const PRIVATE = 'private/kube-sideload';
const MINUTES_MS = 60_000;

const lab = inject('lab');
const base = mkdtempSync(join(tmpdir(), 'kube-sideload-gitlab-'));
const repositories = join(base, 'repositories');
let server: GitServer;
let project: string;

interface Pipeline {
  readonly code: number | null;
  readonly log: string;
}

function git(cwd: string, ...args: readonly string[]): string {
  const identity = ['-c', 'user.name=test', '-c', 'user.email=test@localhost', '-c', 'init.defaultBranch=main'];
  const done = spawnSync('git', [...identity, ...args], { cwd, encoding: 'utf8' });
  if (done.status !== 0) {
    throw new Error(`git ${args.join(' ')}: ${done.stderr}`);
  }
  return done.stdout.trim();
}

/** The component's project on the server, as a release would put it there: this checkout, with `dist/`, under its tag. */
beforeAll(async () => {
  const source = join(base, 'component');
  mkdirSync(source);
  for (const part of ['templates', 'dist', 'package.json', 'action.yml']) {
    cpSync(join(root, part), join(source, part), { recursive: true });
  }
  git(source, 'init', '--quiet');
  git(source, 'add', '--all', '--force');
  git(source, 'commit', '--quiet', '--message=release');
  git(source, 'tag', 'v0');
  git(base, 'clone', '--quiet', '--bare', source, join(repositories, `${COMPONENT}.git`));
  git(base, 'clone', '--quiet', '--bare', source, join(repositories, `${PRIVATE}.git`));
  server = await serveGit({ directory: repositories, guarded: new RegExp(`^/${PRIVATE}`) });
});

afterAll(async () => {
  await server.close();
  rmSync(base, { recursive: true, force: true });
});

beforeEach(() => {
  project = mkdtempSync(join(base, 'project-'));
});

afterEach(async () => {
  expect(smokePods(lab)).toEqual([]);
  expect(await leftOnNode(lab)).toEqual([]);
});

/** A pipeline of an application's project, run on this machine by gitlab-ci-local. */
async function run(pipeline: string, variables: Readonly<Record<string, string>> = {}): Promise<Pipeline> {
  copyFileSync(join(lab.runner.root, 'usr', 'bin', 'busybox'), join(project, 'busybox'));
  const dockerfile = ['FROM scratch', 'COPY busybox /bin/busybox', `LABEL project=${project}`];
  writeFileSync(join(project, 'Dockerfile'), [...dockerfile, 'CMD ["/bin/busybox", "sleep", "1000"]', ''].join('\n'));
  writeFileSync(join(project, '.gitlab-ci.yml'), forLab(pipeline, lab));
  writeFileSync(join(project, '.gitignore'), 'home/\n.gitlab-ci-local/\n');
  if (!existsSync(join(project, '.git'))) {
    git(project, 'init', '--quiet');
    git(project, 'remote', 'add', 'origin', `${server.url}/team/app.git`);
  }
  git(project, 'add', '--all');
  git(project, 'commit', '--quiet', '--allow-empty', '--message=app');
  const home = join(project, 'home', '.gitlab-ci-local');
  mkdirSync(home, { recursive: true });
  const file = (path: string) => ({ type: 'file', values: { '*': readFileSync(path, 'utf8') } });
  writeFileSync(
    join(home, 'variables.yml'),
    stringify({
      global: {
        NODE_SSH_KEY: file(lab.privateKeyFile),
        NODE_KNOWN_HOSTS: file(lab.knownHostsFile),
        NODE_KUBECONFIG: file(lab.kubeconfig ?? ''),
        ...variables,
      },
    }),
  );
  const program = join(root, 'node_modules', 'gitlab-ci-local', 'dist', 'index.js');
  const { HOME: _home, KUBECONFIG: _kubeconfig, ...env } = process.env;
  return await new Promise((done, reject) => {
    const child = spawn(process.execPath, [program, '--home', join(project, 'home')], {
      cwd: project,
      env: { ...env, HOME: join(project, 'home'), PATH: `${lab.bin}:${process.env.PATH}`, GIT_TERMINAL_PROMPT: '0' },
      stdio: ['ignore', 'pipe', 'pipe'],
      timeout: 4 * MINUTES_MS,
    });
    let log = '';
    for (const stream of [child.stdout, child.stderr]) {
      stream.on('data', (chunk: Buffer) => {
        log += chunk.toString();
      });
    }
    child.on('error', reject);
    child.on('close', code => done({ code, log }));
  });
}

/** The files that the job of the component keeps. */
function reports(): readonly string[] {
  const [, jobs] = parseAllDocuments(readFileSync(join(root, 'templates/sideload/template.yml'), 'utf8'));
  return Object.values(
    jobs?.toJS() as Record<string, { readonly artifacts?: { readonly paths: readonly string[] } }>,
  ).flatMap(job => job.artifacts?.paths ?? []);
}

async function expectOnNodes(): Promise<void> {
  for (const node of lab.nodes) {
    expect(await referencesOn(lab, node.name)).toContain('docker.io/library/app:1.2');
  }
}

describe('the component, from `include: component` on a real git server', () => {
  it('clones the project at its own revision and takes the image to Running on every node', async () => {
    const { code, log } = await run(example(PAGE, '.gitlab-ci.yml'));
    // gitlab-ci-local has understood the markers of the section.
    expect(log).toMatch(/sideload_clone took \d+ms/);
    expect(log.match(/✔ Running/g), log).toHaveLength(2);
    expect(code).toBe(0);
    await expectOnNodes();
    expect(reports().filter(file => !existsSync(join(project, file)))).toEqual([]);
  });

  it('is merged with a job of the same name, which sets what else a job has', async () => {
    const pipeline = example(PAGE, '.gitlab-ci.yml').replace('tool: clone', 'tool: clone\n      mode: plan');
    const rules = example(PAGE, 'rules.gitlab-ci.yml');
    const { code, log } = await run(`${pipeline}\n${rules}`);
    expect(log).toContain('nothing stands in the way');
    expect(code).toBe(0);
    git(project, 'switch', '--quiet', '--create', 'feature');
    const other = await run(`${pipeline}\n${rules}`);
    expect(other.log).not.toContain('nothing stands in the way');
    expect(other.code).toBe(0);
  });

  it('shows the token of the job to a server that asks for it, and not in the log', async () => {
    const pipeline = example(PAGE, '.gitlab-ci.yml').replace(
      'tool: clone',
      `tool: clone\n      component-project: ${PRIVATE}\n      mode: plan`,
    );
    const { code, log } = await run(pipeline, { CI_JOB_TOKEN: 'token-of-the-job' });
    expect(server.logins).toContain('gitlab-ci-token:token-of-the-job');
    expect(log).not.toContain('token-of-the-job');
    expect(log).toContain('nothing stands in the way');
    expect(code).toBe(0);
  });

  it('takes an archive of an earlier job, with a preinstalled program, in two shards', async () => {
    const pipeline = example(PAGE, 'archive.gitlab-ci.yml').replace('/opt/kube-sideload', root);
    const { code, log } = await run(pipeline);
    expect(log.match(/✔ Running/g), log).toHaveLength(2);
    expect(log).toContain('kube-sideload: [1/2]');
    expect(log).toContain('kube-sideload: [2/2]');
    expect(code).toBe(0);
  });

  it('needs no component on an older server', async () => {
    const pipeline = example(PAGE, 'plain.gitlab-ci.yml').replace('/opt/kube-sideload', root);
    const archive = example(PAGE, 'archive.gitlab-ci.yml');
    const build = archive.slice(0, archive.indexOf('include:'));
    const { code, log } = await run(`${build}\n${pipeline}`);
    expect(log.match(/✔ Running/g), log).toHaveLength(2);
    expect(code).toBe(0);
  });

  it('does not run what stands in an input', async () => {
    const bait = join(project, 'bait');
    const pipeline = example(PAGE, '.gitlab-ci.yml').replace(
      'images: app:1.2',
      `images: 'app:1.2"; touch ${bait}; \`touch ${bait}\` "'`,
    );
    const { code, log } = await run(pipeline);
    expect(code).not.toBe(0);
    expect(log).toContain('cannot be part');
    expect(existsSync(bait)).toBe(false);
  });

  it.each([
    ['an option that does not exist', 'tool: clone', 'tool: download', /allowed options/],
    ['a port that is none', 'tool: clone', 'tool: clone\n      ssh-port: "22; reboot"', /regex/],
    [
      'a project that is a URL',
      'tool: clone',
      'tool: clone\n      component-project: "https://evil.example/x"',
      /regex/,
    ],
  ])('refuses %s before any job starts', async (_what, right, wrong, message) => {
    const { code, log } = await run(example(PAGE, '.gitlab-ci.yml').replace(right, wrong));
    expect(log).toMatch(message);
    expect(code).not.toBe(0);
    expect(readdirSync(project)).not.toContain('app.tar');
  });

  it('fails the pipeline when the gate says no', async () => {
    const pipeline = example(PAGE, '.gitlab-ci.yml').replace(
      'tool: clone',
      'tool: clone\n      smoke-command: /no/such',
    );
    const { code, log } = await run(pipeline);
    expect(log).toMatch(/\[SMOKE_START\]/);
    expect(code).not.toBe(0);
  });
});

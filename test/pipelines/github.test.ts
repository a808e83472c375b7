import { copyFileSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, inject, it } from 'vitest';
import { smokePods } from '../cluster/kubernetes.ts';
import { crictl, leftOnNode, nodeNamed, referencesOn } from '../shipped.ts';
import { example, forLab, root } from './documents.ts';
import { type Runner, runWorkflow } from './workflow.ts';

const lab = inject('lab');
const workspace = mkdtempSync(join(tmpdir(), 'kube-sideload-workspace-'));
const key = readFileSync(lab.privateKeyFile, 'utf8');
const knownHosts = readFileSync(lab.knownHostsFile, 'utf8');
const kubeconfig = readFileSync(lab.kubeconfig ?? '', 'utf8');
const archive = join(workspace, 'app.tar');

const runner: Runner = {
  lab,
  workspace,
  secrets: { NODE_SSH_KEY: key, KUBECONFIG: kubeconfig },
  vars: { NODE_KNOWN_HOSTS: knownHosts },
  files: { '/srv/images/app.tar': archive, '/srv/images/app.json': join(workspace, 'app.json') },
};

beforeAll(() => {
  copyFileSync(join(lab.runner.root, 'usr', 'bin', 'busybox'), join(workspace, 'busybox'));
  newApp('1');
});

afterAll(() => rmSync(workspace, { recursive: true, force: true }));

afterEach(async () => {
  expect(smokePods(lab)).toEqual([]);
  expect(await leftOnNode(lab)).toEqual([]);
});

/** What the examples build. */
function newApp(content: string): void {
  const lines = ['FROM scratch', 'COPY busybox /bin/busybox', `LABEL content=${content}`];
  writeFileSync(join(workspace, 'Dockerfile'), [...lines, 'CMD ["/bin/busybox", "sleep", "1000"]', ''].join('\n'));
}

/** The name of the node at `HOST:22`. */
function nameAt(address: string): string | undefined {
  return lab.nodes.find(node => address === `${node.address}:22`)?.name;
}

async function expectRunning(
  outcomes: Awaited<ReturnType<typeof runWorkflow>>,
  nodes: readonly string[],
): Promise<void> {
  const mains = outcomes.flatMap(({ mains }) => mains);
  for (const main of mains) {
    expect(main.code, main.log).toBe(0);
    expect(main.leftOnRunner).toEqual([]);
  }
  const verdicts = mains.flatMap(main => main.nodes.map(({ address, images }) => [nameAt(address), images[0]?.smoke]));
  expect(verdicts.sort()).toEqual(nodes.map(node => [node, 'Running']));
  for (const node of nodes) {
    expect(await referencesOn(lab, node)).toContain('docker.io/library/app:1.2');
  }
  for (const { posts } of outcomes) {
    for (const post of posts) {
      expect(post.code).toBe(0);
      expect(post.log.replaceAll(/^::add-mask::.*\n/gm, '')).toBe('');
    }
  }
}

describe('the workflows of the documentation, on real nodes', () => {
  it('the shortest one of the README builds, sideloads, and has nothing to clean up', async () => {
    const outcomes = await runWorkflow(forLab(example('README.md', 'yaml'), lab), runner);
    expect(outcomes[0]?.ran).toEqual(['docker build -t app:1.2 .']);
    await expectRunning(outcomes, ['n1', 'n2']);
    expect(outcomes[0]?.mains[0]?.summary).toContain(`| ${lab.nodes[0]?.address} | linux/amd64 | containerd`);
  });

  it('one job restarts the deployment only when something has changed', async () => {
    newApp('2');
    const text = forLab(example('docs/guides/github.md', '.github/workflows/deploy.yml'), lab);
    const restart = /^ *run: (kubectl .*)$/m.exec(text)?.[1] ?? '';
    const observed = text.replace(restart, 'echo restarted');
    await expectRunning(await runWorkflow(observed, runner), ['n1', 'n2']);
    const [again] = await runWorkflow(observed, runner);
    expect(again?.mains[0]?.outputs.changed).toBe('false');
    expect(again?.ran).toEqual(['docker build -t app:1.2 .']);
    newApp('3');
    const [third] = await runWorkflow(observed, runner);
    expect(third?.ran).toEqual(['docker build -t app:1.2 .', 'echo restarted']);
  });

  it('the reusable workflow takes an artifact of another job', async () => {
    newApp('4');
    const text = forLab(example('docs/guides/github.md', '.github/workflows/build-and-sideload.yml'), lab);
    const outcomes = await runWorkflow(text, runner);
    expect(outcomes.map(({ job }) => job)).toEqual(['build', 'sideload']);
    await expectRunning(outcomes, ['n1', 'n2']);
    expect(outcomes[1]?.mains[0]?.log).toContain('kube-sideload-artifact/app.tar');
    expect(outcomes[1]?.outputs).toMatchObject({ images: 'docker.io/library/app:1.2', changed: 'true' });
  });

  it('the reusable workflow shares the nodes of a fleet among shards', async () => {
    const outcomes = await runWorkflow(forLab(example('docs/guides/github.md', '.github/workflows/fleet.yml'), lab), {
      ...runner,
      secrets: {
        KUBE_SIDELOAD_SSH_PRIVATE_KEY: key,
        KUBE_SIDELOAD_SSH_KNOWN_HOSTS: knownHosts,
        KUBE_SIDELOAD_KUBECONFIG: kubeconfig,
      },
    });
    expect(outcomes.map(({ mains }) => mains[0]?.nodes.map(({ node }) => node))).toEqual([['n1'], ['n2']]);
    expect(outcomes[0]?.mains[0]?.log).not.toContain('NODE_NOT_LISTED');
    await expectRunning(outcomes, ['n1', 'n2']);
  });

  it('a matrix does the same with the action alone', async () => {
    const outcomes = await runWorkflow(
      forLab(example('docs/guides/github.md', '.github/workflows/matrix.yml'), lab),
      runner,
    );
    expect(outcomes.map(({ mains }) => mains[0]?.nodes.map(({ address }) => address))).toEqual(
      lab.nodes.map(({ address }) => [`${address}:22`]),
    );
    await expectRunning(outcomes, ['n1', 'n2']);
  });

  it('a nightly look fails when a node has lost its image, and only then', async () => {
    const drift = forLab(example('docs/guides/nightly-drift-check.md', '.github/workflows/drift.yml'), lab);
    const deploy = forLab(example('docs/guides/github.md', '.github/workflows/deploy.yml'), lab)
      .replace(/^( +)ssh-private-key:/m, '$1report-json: /srv/images/app.json\n$&')
      .replace(/^ *run: (kubectl .*)$/m, line => line.replace(/kubectl .*/, 'true'));
    await expectRunning(await runWorkflow(deploy, runner), ['n1', 'n2']);
    const [fine] = await runWorkflow(drift, runner);
    expect(fine?.mains[0]?.code, fine?.mains[0]?.log).toBe(0);
    expect(fine?.mains[0]?.outputs.drift).toBe('[]');
    await crictl(lab, nodeNamed(lab, 'n2'), ['rmi', 'docker.io/library/app:1.2']);
    const [found] = await runWorkflow(drift, runner);
    expect(found?.mains[0]?.code).toBe(1);
    expect(JSON.parse(found?.mains[0]?.outputs.drift ?? '')).toMatchObject([
      { node: 'n2', reference: 'docker.io/library/app:1.2', drift: 'missing', code: 'DRIFT' },
    ]);
  });

  it('Gitea’s and Forgejo’s runners, without summary and HOME, do the same by URL, and old ones by the command line', async () => {
    const page = 'docs/guides/gitea-forgejo.md';
    const env = { GITEA_ACTIONS: 'true', GITHUB_STEP_SUMMARY: undefined, HOME: undefined };
    newApp('5');
    const text = forLab(example(page, '.gitea/workflows/deploy.yml'), lab);
    const outcomes = await runWorkflow(text, { ...runner, env });
    await expectRunning(outcomes, ['n1', 'n2']);
    expect(outcomes[0]?.mains[0]?.summary).toBe('');
    expect(outcomes[0]?.mains[0]?.log).toMatch(/^node +platform +runtime/m);
    for (const other of [
      example(page, '.forgejo/workflows/old-runner.yml'),
      example('docs/guides/github-enterprise-server.md', '.github/workflows/old-runner.yml'),
    ]) {
      const [ran] = await runWorkflow(forLab(other, lab).replace('/opt/kube-sideload', root), runner);
      expect(ran?.ran).toHaveLength(1);
    }
  });

  it('a failure of the gate is a failure of the job', async () => {
    const broken = forLab(example('README.md', 'yaml'), lab).replace(
      'images: app:1.2',
      'images: app:1.2\n          smoke-command: /no/such/program',
    );
    const [outcome] = await runWorkflow(broken, runner);
    expect(outcome?.mains[0]?.code).toBe(1);
    expect(outcome?.mains[0]?.log).toMatch(/\[SMOKE_START\]/);
  });
});

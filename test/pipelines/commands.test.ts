import { spawnSync } from 'node:child_process';
import { copyFileSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, expect, inject, it } from 'vitest';
import { smokePods } from '../cluster/kubernetes.ts';
import { build, onRunner } from '../engines.ts';
import { leftOnNode, referencesOn } from '../shipped.ts';
import { blocksOf, forLab, PAGES, root } from './documents.ts';

const lab = inject('lab');
const home = mkdtempSync(join(tmpdir(), 'kube-sideload-home-'));
const workspace = join(home, 'work');
const archive = join(home, 'app.tar');

/** A runner as the pages assume it: a key and known hosts of ssh, a kubeconfig, the command, an inventory, the image. */
beforeAll(() => {
  for (const directory of ['.ssh', '.kube', 'bin', 'work']) {
    mkdirSync(join(home, directory), { mode: 0o700 });
  }
  copyFileSync(lab.privateKeyFile, join(home, '.ssh', 'id_ed25519'));
  copyFileSync(lab.knownHostsFile, join(home, '.ssh', 'known_hosts'));
  copyFileSync(lab.kubeconfig ?? '', join(home, '.kube', 'config'));
  symlinkSync(join(root, 'dist'), join(workspace, 'dist'));
  symlinkSync(join(root, 'dist', 'cli', 'index.js'), join(home, 'bin', 'kube-sideload'));
  writeFileSync(join(home, 'inventory.yaml'), `nodes: [${lab.nodes.map(({ address }) => address).join(', ')}]\n`);
  build(lab, 'docker', 'app:1.2', 'documented');
  onRunner(lab, 'docker', ['save', '-o', archive, 'app:1.2']);
  onRunner(lab, 'podman', ['load', '-i', archive]);
});

afterAll(() => rmSync(home, { recursive: true, force: true }));

afterEach(async () => {
  expect(smokePods(lab)).toEqual([]);
  expect(await leftOnNode(lab)).toEqual([]);
});

const tested = PAGES.flatMap(blocksOf).filter(({ isTested }) => isTested);

it.each(tested.map(block => [block.page, block.text.trim().split('\n').at(-1) ?? '', block] as const))(
  '%s: `%s`',
  async (_page, _command, { text }) => {
    const { KUBECONFIG: _kubeconfig, ...env } = process.env;
    const done = spawnSync('bash', ['-e', '-c', forLab(text, lab).replaceAll('/srv/images/app.tar', archive)], {
      cwd: workspace,
      encoding: 'utf8',
      env: {
        ...env,
        HOME: home,
        KUBE_SIDELOAD_INVENTORY: join(home, 'inventory.yaml'),
        PATH: `${join(home, 'bin')}:${lab.bin}:${process.env.PATH}`,
      },
    });
    expect(done.status, done.stderr).toBe(0);
    if (text.includes(' push ')) {
      expect(done.stderr.match(/✔ Running/g)).toHaveLength(lab.nodes.length);
      for (const { name } of lab.nodes) {
        expect(await referencesOn(lab, name)).toContain('docker.io/library/app:1.2');
      }
    } else {
      expect(done.stdout).toMatch(/^changed=(true|false)$/m);
    }
  },
);

it('finds the commands that say that they are tested', () => {
  expect(tested.length).toBeGreaterThanOrEqual(6);
});

import { execFileSync, spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { NodeFacts } from '../../../src/node/facts.ts';
import { containerd } from '../../../src/runtime/containerd.ts';
import { CRIO_PINS } from '../../../src/runtime/crio-pins.ts';
import { pinFault } from '../../../src/runtime/pin.ts';

describe('whether a node can pin', () => {
  it.each<[NodeFacts['runtime']['name'], string, NodeFacts['privilege'], RegExp | undefined]>([
    ['containerd', 'v1.6.24', 'root', /1\.6\.24 has no pinning, which came with 1\.6\.25/],
    ['containerd', '1.6.20~ds1', 'root', /1\.6\.20~ds1/],
    ['containerd', '1.6.25', 'root', undefined],
    ['containerd', 'v1.7.9', 'sudo', /1\.7\.10/],
    ['containerd', 'v1.7.24~ds1', 'sudo', undefined],
    ['containerd', '2.1.9+unknown', 'root', undefined],
    ['containerd', 'unknown', 'root', undefined],
    ['cri-o', '1.6.1', 'root', undefined],
    ['cri-o', '1.36.2', 'user', /pin none/],
    ['docker', '28.5.2', 'root', /cri-dockerd/],
  ])('%s %s as %s', (name, version, privilege, answer) => {
    const fault = pinFault({ runtime: { name, version }, privilege });
    expect(fault ?? '').toMatch(answer ?? /^$/);
  });
});

describe('the pins of CRI-O', () => {
  let directory = '';
  beforeEach(() => {
    directory = mkdtempSync(join(tmpdir(), 'kube-sideload-pins-'));
    mkdirSync(join(directory, 'crio.conf.d'));
  });
  afterEach(() => rmSync(directory, { recursive: true, force: true }));

  const file = () => join(directory, 'crio.conf.d', '99-kube-sideload.conf');
  const lines = () =>
    readFileSync(file(), 'utf8')
      .split('\n')
      .filter(line => line.startsWith('  '));

  /** @returns how often CRI-O would have been told. */
  function run(words: string, runId = 'run1'): number {
    const script = `as_root() { "$@"; }\nRUN=${runId}\n${CRIO_PINS}\nreload() { echo told >>${directory}/told; }\n${words}`;
    execFileSync('/bin/sh', ['-c', script.replaceAll('/etc/crio', directory)]);
    const told = join(directory, 'told');
    const count = existsSync(told) ? readFileSync(told, 'utf8').split('\n').length - 1 : 0;
    rmSync(told, { force: true });
    return count;
  }

  it('are names with the run that has set them, and go one by one', () => {
    expect(run('pin docker.io/library/app:1 docker.io/library/db:1')).toBe(1);
    expect(run('pin docker.io/library/app:1 docker.io/library/ap:1', 'run2')).toBe(1);
    expect(lines()).toEqual([
      '  "docker.io/library/app:1", # run1',
      '  "docker.io/library/db:1", # run1',
      '  "docker.io/library/ap:1", # run2',
    ]);
    run('unpin docker.io/library/ap:1');
    expect(lines()).toHaveLength(2);
    run('pin docker.io/library/ap:1', 'run2');
    run('unpin_of run2');
    expect(lines()).toEqual(['  "docker.io/library/app:1", # run1', '  "docker.io/library/db:1", # run1']);
  });

  it('leave CRI-O alone when nothing changes, and no file when there are none', () => {
    expect(run('unpin docker.io/library/app:1; unpin_of run1')).toBe(0);
    expect(existsSync(file())).toBe(false);
    run('pin docker.io/library/app:1');
    expect(run('pin docker.io/library/app:1; unpin docker.io/library/db:1', 'run2')).toBe(0);
    expect(run('unpin docker.io/library/app:1')).toBe(1);
    expect(existsSync(file())).toBe(false);
  });

  it('repeat the list of the last other file, which would not count any more', () => {
    writeFileSync(join(directory, 'crio.conf'), 'pinned_images = ["first"]\n');
    const later = `[crio.image]\n# pinned_images = ["none"]\npinned_images = [\n  "a:*", # by hand\n  'b:1'\n]\npause_image = "p"\n`;
    writeFileSync(join(directory, 'crio.conf.d', '10-a.conf'), later);
    run('pin docker.io/library/app:1');
    expect(lines()).toEqual(['  "a:*",', "  'b:1',", '  "docker.io/library/app:1", # run1']);
    writeFileSync(join(directory, 'crio.conf.d', '20-b.conf'), 'pinned_images = []\n');
    expect(run('pin docker.io/library/app:1')).toBe(1);
    expect(lines()).toEqual(['  "docker.io/library/app:1", # run1']);
  });
});

describe('letting go of pins of containerd', () => {
  function letGo(complaint: string) {
    const script = `as_root() { "$@"; }
sleep() { :; }
ctr_client() { echo '${complaint}' >&2; return 1; }
${containerd.pins()}
unpin docker.io/library/app:1 && unpin_of run1`;
    return spawnSync('/bin/sh', ['-c', script], {
      env: { PATH: process.env.PATH, CTR: 'ctr_client', SOCKET: '/run/cri.sock' },
      encoding: 'utf8',
    });
  }

  it('is done where the user may not ask for them: he has pinned nothing', () => {
    expect(letGo('sudo: a password is required')).toMatchObject({ status: 0, stderr: '' });
    expect(letGo('doas: Operation not permitted')).toMatchObject({ status: 0, stderr: '' });
  });

  it('fails when containerd does not say what is pinned', () => {
    expect(letGo('ctr: cannot access socket')).toMatchObject({ status: 1 });
  });
});

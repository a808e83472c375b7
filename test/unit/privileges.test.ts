import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it, onTestFinished } from 'vitest';
import { LAYOUTS, type Layout, rightsFor, sudoersCommand, sudoersFile } from '../../scripts/privileges.ts';
import { releaseScript, takeScript } from '../../src/node/lock.ts';
import type { Script } from '../../src/node/script.ts';
import { askedRights } from '../../src/privileges.ts';
import { containerd } from '../../src/runtime/containerd.ts';
import { CRIO_PINS, formatOf, PINS_HEAD } from '../../src/runtime/crio-pins.ts';
import { ALLOWANCES, factsOf, tricksOn } from '../tricks.ts';

/** As sudo compares: the program by its path, the arguments as one text. */
function sudoWith(rules: readonly string[]): (command: string) => boolean {
  const patterns = rules.map(text => {
    const [, ofProgram = '', ofArgs = ''] = /^\^(\S+)\$ (?:""|\^(.*)\$)$/.exec(text) ?? expect.unreachable(text);
    return [new RegExp(`^(?:${ofProgram})$`), new RegExp(`^(?:${ofArgs})$`)] as const;
  });
  return command => {
    const [, program = '', args = ''] = /^(\S+) ?([\s\S]*)$/.exec(command) ?? [];
    const path = program.startsWith('/') ? program : `/usr/bin/${program}`;
    return patterns.some(([ofProgram, ofArgs]) => ofProgram.test(path) && ofArgs.test(args));
  };
}

function isAllowed(layout: Layout, command: string): boolean {
  return sudoWith(rightsFor(layout).flatMap(right => right.commands.map(one => sudoersCommand(one, layout))))(command);
}

const REFERENCE = 'docker.io/library/app:1';
const PIN_FILE = formatOf([...PINS_HEAD, `  "${REFERENCE}", # run1`, ']']);

/** Runs scripts on this machine, with a directory in place of the node's own, and tells what they would do as root. */
function commandsBy(place: string) {
  const parent = mkdtempSync(join(tmpdir(), 'kube-sideload-rights-'));
  onTestFinished(() => rmSync(parent, { recursive: true, force: true }));
  const directory = join(parent, 'place');
  mkdirSync(directory);
  const log = join(parent, 'log');
  const commands = (...scripts: readonly Script[]): string[] => {
    writeFileSync(log, '');
    for (const { body, variables = {} } of scripts) {
      const here = body.replaceAll(place, directory);
      const script = `as_root() { printf '%s\\n' "$*" >>${log}; "$@"; }\nsection() { :; }\npkill() { :; }\n${here}`;
      execFileSync('/bin/sh', ['-c', script], { env: { ...process.env, ...variables }, stdio: 'pipe' });
    }
    const text = readFileSync(log, 'utf8').replaceAll(directory, place);
    return text.split('\n').filter(line => line !== '');
  };
  return { commands, directory };
}

function layoutNamed(name: string): Layout {
  return LAYOUTS.find(layout => layout.name === name) ?? expect.unreachable(name);
}

it('allows what the pins of CRI-O are made of', () => {
  const { commands, directory } = commandsBy('/etc/crio');
  mkdirSync(join(directory, 'crio.conf.d'));
  const others = `[crio.image]\npinned_images = ["a.example/*", 'b:1']\n`;
  writeFileSync(join(directory, 'crio.conf.d', '10-other.conf'), others);
  const words = [`pin ${REFERENCE} docker.io/library/db:1`, `unpin ${REFERENCE}`, 'unpin_of run1'];
  const run = commands(...words.map(one => ({ body: `${CRIO_PINS}\n${one}`, variables: { RUN: 'run1' } })));
  const programs = run.map(command => command.replace(/ .*/, ''));
  expect(new Set(programs)).toEqual(new Set(['cat', 'ls', 'mkdir', 'find', 'mv', 'pkill', 'rm']));
  expect(run.filter(command => !isAllowed(layoutNamed('cri-o'), command))).toEqual([]);
});

it('allows what the pins of containerd are made of', () => {
  const { commands } = commandsBy('/nowhere');
  const pins = (labels: string, words: string) => ({
    body: `ctr_answers() { case "$*" in *==run0) echo ${REFERENCE} ;; *\\ ls\\ *) echo '${labels}' ;; esac; }\n${words}`,
    variables: { RUN: 'run1', CTR: 'ctr_answers', SOCKET: '/run/containerd/containerd.sock' },
  });
  const functions = `${containerd.pins()}\n${containerd.names(factsOf(layoutNamed('containerd')))}`;
  const labels = 'io.cri-containerd.pinned=pinned,kube-sideload.pinned-by=run0';
  const run = commands(
    pins('', `${functions}\npin ${REFERENCE}`),
    pins(labels, `${functions}\nunpin ${REFERENCE}; unpin_of run0; give_name ${REFERENCE} docker.io/library/app:2`),
    pins('io.cri-containerd.pinned=pinned', `${functions}\ngive_name ${REFERENCE} docker.io/library/app:2`),
  ).map(command => command.replace('ctr_answers', 'ctr'));
  expect(run.filter(command => command.includes(' label '))).toHaveLength(5);
  expect(run.filter(command => !isAllowed(layoutNamed('containerd'), command))).toEqual([]);
});

describe.each(LAYOUTS.map(layout => [layout.name, layout] as const))('sudoers.%s', (_name, layout) => {
  it('allows all that a run asks sudo for', () => {
    const asked = askedRights(factsOf(layout), { keep: true, pin: true }).map(({ command }) => command);
    expect(asked.length).toBeGreaterThan(20);
    expect(asked.filter(command => !isAllowed(layout, command))).toEqual([]);
  });

  it('has marks before what only `keep` or `pin` make use of, which no other run asks for', () => {
    const extrasOf = (extras: Parameters<typeof askedRights>[1]) => {
      const rights = new Set(askedRights(factsOf(layout), extras).map(({ right }) => right));
      return [...rights].flatMap(({ isFor }) => isFor ?? []);
    };
    const kept = extrasOf({ keep: true, pin: false });
    const pinned = extrasOf({ keep: false, pin: true });
    expect(extrasOf({ keep: false, pin: false })).toEqual([]);
    expect(new Set(kept)).toEqual(new Set(['keep']));
    expect(pinned).toEqual({ containerd: ['pin'], 'cri-o': ['pin', 'pin'], docker: [] }[layout.distribution.runtime]);
    const marked = sudoersFile(layout)
      .split('\n\n')
      .filter(part => /^#kube-sideload ALL/m.test(part));
    expect(marked).toHaveLength(kept.length + pinned.length);
  });

  it('allows what locks are made of, and what is left of other ones', () => {
    const held = `other1:1:1:${REFERENCE}`;
    const [lock = ''] = /[0-9a-f]{64}/.exec(takeScript('run1', [REFERENCE]).variables?.LOCKED ?? '') ?? [];
    const { commands, directory } = commandsBy('/run/kube-sideload');
    const left = `ln -s '${held}' ${directory}/${lock}; ln -s '${held}' ${directory}/${lock}.other1.1`;
    execFileSync('/bin/sh', ['-c', left]);
    const run = commands(takeScript('run1', [REFERENCE]), takeScript('run1', [REFERENCE]), releaseScript('run1'));
    rmSync(directory, { recursive: true });
    run.push(...commands(takeScript('run1', [REFERENCE]), releaseScript('run1')));
    expect(new Set(run.map(command => command.replace(/ .*/, '')))).toEqual(new Set(['ln', 'rm', 'mv', 'mkdir']));
    expect(run.filter(command => !isAllowed(layout, command))).toEqual([]);
  });

  it.each([
    'true now',
    'cat /etc/shadow',
    'cat /var/lib/kubelet/config.yaml /etc/shadow',
    'sh -c id',
    'env TMPDIR=/tmp sh',
    'rm -rf /var/tmp/kube-sideload.0.0 /etc',
    'rm -rf /var/tmp/kube-sideload.0.0/../../../etc',
    'tee /etc/passwd',
    'mv -f /etc/shadow /var/lib/kube-sideload/images',
    'pkill -TERM -f .',
    'pkill -HUP -x sshd',
    'pkill -KILL -x crio',
    'mkdir -p -m 777 /run/kube-sideload',
    `ln -sT /etc/shadow /run/kube-sideload/${'0'.repeat(64)}`,
    `ln -sT 0:0:0:app:1 other /run/kube-sideload/${'0'.repeat(64)}`,
    'ln -sT 0:0:0:app:1 /etc/cron.d/pins',
    'mv -f /run/kube-sideload/pins.0.0 /etc/passwd',
    'mv -f /etc/shadow /run/kube-sideload/pins',
    'rm -f /run/kube-sideload/pins',
    'rm -f /run/kube-sideload/pins /etc/passwd',
    'rm -f /run/kube-sideload/pins.0.0/../../../etc/passwd',
    'tee /etc/crio/.kube-sideload',
    'cat /etc/crio/crio.conf.d/../../shadow',
    'cat /etc/crio/../shadow',
    'mv -f /etc/crio/.kube-sideload /etc/passwd',
    'mv -f /tmp/mine.conf /etc/crio/crio.conf.d/99-kube-sideload.conf',
    'find / -maxdepth 0 -exec sh -c id',
    `find / -maxdepth 0 -fprintf /etc/passwd ${PIN_FILE}`,
    `find / -maxdepth 0 -fprintf /etc/crio/.kube-sideload ${PIN_FILE} -delete`,
    String.raw`find / -maxdepth 0 -fprintf /etc/crio/.kube-sideload ${PIN_FILE}hooks_dir = ["/tmp"]\n`,
    `find / -maxdepth 0 -fprintf /etc/crio/.kube-sideload ${PIN_FILE.replace('image', 'runtime')}`,
    'ctr --address /run/containerd/containerd.sock --namespace k8s.io images label app:1 containerd.io/gc.root=1',
    'ctr --address /run/containerd/containerd.sock --namespace k8s.io images label app:1 kube-sideload.pinned-by=1 a=b',
    'kill 1',
    'ctr --address /run/containerd/containerd.sock --namespace k8s.io run --privileged app:1 root',
    'ctr --address /run/containerd/containerd.sock --namespace k8s.io images rm app:1 --sync other:1',
    'crictl --runtime-endpoint unix:///run/crio/crio.sock runp /tmp/pod.json',
    'podman run --privileged app:1',
    'skopeo copy docker-archive:/etc/shadow containers-storage:app:1',
    'docker run --privileged app:1',
    'docker image rm app:1 --force',
  ])('does not allow `%s`', command => {
    expect(isAllowed(layout, command)).toBe(false);
  });
});

describe.each(ALLOWANCES)('sudoers.$name', ({ rules, commands }) => {
  it('allows what is asked, and no trick that anybody has thought of', () => {
    expect(commands.length).toBeGreaterThan(2);
    const isAllowedThere = sudoWith(rules);
    expect(commands.filter(command => !isAllowedThere(command))).toEqual([]);
    expect(commands.flatMap(tricksOn).filter(isAllowedThere)).toEqual([]);
  });
});

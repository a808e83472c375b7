import { execFileSync } from 'node:child_process';
import { chmodSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, it, onTestFinished } from 'vitest';
import { PROCESSES, ROOTS } from '../../../src/runtime/processes.ts';

const NAME = 'kube-sideload.invalid/t4y1q2abcdef';
const CONTAINER = 'a'.repeat(64);
const me = process.getuid?.() ?? expect.unreachable();

interface Process {
  readonly name?: string;
  /** Real, effective. */
  readonly uids?: readonly [number, number];
  readonly pids?: string;
  readonly cgroup?: string;
  readonly capabilities?: string;
  readonly map?: string;
  readonly userNamespace?: string;
  /** Its root directory. */
  readonly root?: string;
  readonly isSetUserId?: boolean;
  /** As whom its session began; undefined for one of the machine's own. */
  readonly login?: number;
  readonly arguments?: readonly string[];
}

/** What the functions say in a shell whose /proc has these processes, by ID, besides the first one. */
function say(words: string, processes: Readonly<Record<number, Process>>, first: Process = {}): readonly string[] {
  return lines(`${PROCESSES}\n${words}`, processes, first);
}

function lines(
  script: string,
  processes: Readonly<Record<number, Process>>,
  first: Process = {},
  args: readonly string[] = [],
): readonly string[] {
  const proc = mkdtempSync(join(tmpdir(), 'kube-sideload-proc-'));
  onTestFinished(() => rmSync(proc, { recursive: true, force: true }));
  for (const [id, process] of Object.entries({ ...processes, 1: { arguments: ['init'], ...first } })) {
    const {
      name = 'ctr',
      uids = [0, 0],
      pids = id,
      cgroup = '/user.slice',
      arguments: words = ['ctr', NAME],
    } = process;
    mkdirSync(join(proc, id));
    const uid = [...uids, uids[1], uids[1]].join('\t');
    const namespaces = pids === '' ? '' : `NStgid:\t${pids}\nNSpid:\t${pids}\n`;
    const status = `Name:\t${name}\nState:\tS (sleeping)\nUid:\t${uid}\nGid:\t${uid}\nGroups:\t0 1000 \n${namespaces}VmPeak:\t1 kB\nCapEff:\t${process.capabilities ?? '1ff'}\n`;
    writeFileSync(join(proc, id, 'status'), status);
    writeFileSync(join(proc, id, 'cgroup'), `4:memory:${cgroup}\n1:cpu:${cgroup}\n0::/\n`);
    writeFileSync(join(proc, id, 'loginuid'), `${process.login ?? 4_294_967_295}`);
    writeFileSync(join(proc, id, 'comm'), `${name}\n`);
    writeFileSync(join(proc, id, 'uid_map'), `${process.map ?? '0 0 4294967295'}\n`);
    mkdirSync(join(proc, id, 'ns'));
    symlinkSync(process.userNamespace ?? 'user:[1]', join(proc, id, 'ns', 'user'));
    symlinkSync('pid:[1]', join(proc, id, 'ns', 'pid'));
    symlinkSync(process.root ?? '/', join(proc, id, 'root'));
    writeFileSync(join(proc, id, 'exe'), '');
    chmodSync(join(proc, id, 'exe'), process.isSetUserId ? 0o4755 : 0o755);
    writeFileSync(join(proc, id, 'cmdline'), `${words.join('\0')}\0`);
  }
  symlinkSync('1', join(proc, 'self'));
  const text = execFileSync('/bin/sh', ['-c', script.replaceAll('/proc', proc), 'sh', ...args], { encoding: 'utf8' });
  return text
    .split('\n')
    .filter(line => line !== '')
    .toSorted();
}

it('takes for our imports what root or the user has started on the node itself, and nobody else', () => {
  const found = say(`ours ${NAME}`, {
    10: {},
    11: { name: 'sh', uids: [me, me], arguments: ['/bin/sh', '-c', `sudo -n ctr images import ${NAME}:0`] },
    12: { uids: [65_534, 65_534] },
    13: { uids: [65_534, 0] },
    14: { uids: [0, 65_534] },
    15: { pids: '15\t2' },
    16: { pids: '' },
    17: { cgroup: '/kubepods.slice/kubepods-besteffort.slice' },
    18: { cgroup: `/system.slice/docker-${CONTAINER}.scope` },
    19: { name: 'vim', arguments: ['vim', NAME] },
    20: { arguments: ['ctr', 'kube-sideload.invalid/another'] },
    22: { name: 'sudo', login: 65_534 },
    23: { name: 'sudo', login: me },
    21: { name: 'tar', arguments: ['tar', '-xf', '-', '-C', `/var/tmp/${NAME}`] },
  });
  expect(found).toEqual(['10', '11', '21', '23']);
});

it('finds them on a node that is a container itself', () => {
  const cgroup = `/docker/${CONTAINER}`;
  const found = say(
    `ours ${NAME}`,
    { 10: { cgroup: `${cgroup}/system` }, 11: { cgroup: `${cgroup}/kubepods/pod1/${'b'.repeat(64)}` }, 12: {} },
    { cgroup },
  );
  expect(found).toEqual(['10']);
});

it.each<[who: string, process: Process, user: 'root' | 'everybody']>([
  ['of another user', { uids: [65_534, 65_534] }, 'everybody'],
  ['that has become root', { uids: [65_534, 0] }, 'everybody'],
  ['of another PID namespace', { pids: '10\t1' }, 'everybody'],
  ['whose PID namespace nobody can tell', { pids: '' }, 'everybody'],
  ['in a pod', { cgroup: '/kubepods/besteffort/pod1' }, 'everybody'],
  ['in a container', { cgroup: `/system.slice/crio-${CONTAINER}.scope` }, 'everybody'],
  ['without a capability', { capabilities: '0ff' }, 'everybody'],
  ['with another mapping of users', { map: '0 0 1' }, 'everybody'],
  ['of another user namespace', { userNamespace: 'user:[2]' }, 'root'],
  ['with another root directory', { root: '/usr' }, 'root'],
  ['of a program with the set-user-ID bit', { isSetUserId: true }, 'root'],
])('believes no kubelet %s', (_, process, seenBy) => {
  const script = seenBy === 'root' ? ROOTS : ROOTS.replaceAll('$(id -u)', '1000');
  expect(lines(script, { 10: { name: 'kubelet', ...process }, 11: { name: 'kubelet' } }, {}, ['kubelet'])).toEqual([
    '-',
    '11',
  ]);
});

it('believes no kubelet, seen by a user, that another user has started', () => {
  const asUser = ROOTS.replaceAll('$(id -u)', '1000');
  const processes = {
    10: { name: 'kubelet', login: 1001 },
    11: { name: 'kubelet', login: 0 },
    12: { name: 'kubelet' },
  };
  expect(lines(asUser, processes, {}, ['kubelet'])).toEqual(['-', '11', '12']);
  expect(lines(ROOTS, processes, {}, ['kubelet'])).toEqual(['10', '11', '12']);
});

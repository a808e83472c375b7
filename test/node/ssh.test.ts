import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, inject, it } from 'vitest';
import { archive } from '../engines.ts';
import { enter, start, stop } from '../lab/index.ts';
import { type Inputs, leftOnNode, nodeNamed, type Outcome, push, reach } from '../shipped.ts';
import { must, type PEOPLE, settle, unsettle, withFile } from './people.ts';

const lab = inject('lab');
const [n1, n2, n3] = [nodeNamed(lab, 'n1'), nodeNamed(lab, 'n2'), nodeNamed(lab, 'n3')];
const directory = mkdtempSync(join(tmpdir(), 'kube-sideload-ssh-'));
let images = 0;

beforeAll(() => settle(n1));
afterAll(async () => {
  await unsettle(n1);
  rmSync(directory, { recursive: true, force: true });
});
afterEach(async () => {
  expect(await leftOnNode(lab)).toEqual([]);
});

/** An image that no node has, of a few megabytes that look like nothing. */
async function newImage(): Promise<Inputs> {
  images += 1;
  const { file } = await archive(directory, {
    reference: `docker.io/library/ssh:${images}`,
    layers: [{ fillBytes: 3_000_000, files: { number: `${images} ${process.pid} ${Date.now()}` } }],
  });
  return { archive: file };
}

async function sideload(inputs: Inputs, env?: Readonly<Record<string, string>>): Promise<Outcome> {
  const outcome = await push(
    { ...reach(lab, [n1.address]), 'connect-timeout': '10s', ...(await newImage()), ...inputs },
    { lab, ...(env && { env }) },
  );
  expect(outcome.log).not.toContain('swordfish');
  expect(outcome.log).not.toContain('INTERNAL');
  expect(outcome.leftOnRunner).toEqual([]);
  return outcome;
}

/** The image has arrived under its digest: no byte of the stream was lost, and none was added to it. */
function expectSent(outcome: Outcome, nodes = 1): void {
  expect(outcome.log).toContain('imported and verified');
  expect(outcome.nodes.map(node => node.images[0]?.outcome)).toEqual(Array(nodes).fill('sent'));
  expect(outcome.code).toBe(0);
}

describe('login shells, rc files and a PATH as people have them', () => {
  it.each(['fisher', 'csheller', 'noisy', 'noisyfish'] satisfies (keyof typeof PEOPLE)[])('%s', async user => {
    expectSent(await sideload({ 'ssh-user': user }));
  });
});

describe('sudo with a password', () => {
  const prompted = { 'ssh-user': 'prompted', 'sudo-password': 'swordfish' };

  it('gets the password, and the importer every byte of the image', async () => {
    const outcome = await sideload(prompted);
    expectSent(outcome);
    expect(outcome.log).toContain('as root by sudo with a password');
  });

  it('asks although it remembers an earlier login of the user', async () => {
    const memory = 'Defaults:prompted timestamp_type=global, timestamp_timeout=60';
    await withFile(n1, '/etc/sudoers.d/memory', memory, async () => {
      await must(n1, 'echo swordfish | su prompted -c "sudo -S -v && sudo -n true"');
      expectSent(await sideload(prompted));
      await must(n1, 'su prompted -c "sudo -K"');
    });
  });

  it('passes through a terminal of its own (use_pty) and a log of what it reads', async () => {
    const settings = 'Defaults:prompted use_pty\nDefaults:prompted !log_input';
    await withFile(n1, '/etc/sudoers.d/pty', settings, async () => expectSent(await sideload(prompted)));
  });

  it('is not asked at all where a user needs no password', async () => {
    const outcome = await sideload({ 'ssh-user': 'deploy', 'sudo-password': 'swordfish' });
    expectSent(outcome);
    expect(outcome.log).toContain('as sudo');
  });

  it('is refused when it is wrong, after a single attempt', async () => {
    await must(n1, ': >/var/log/lab/sudo.log');
    const outcome = await withFile(n1, '/etc/sudoers.d/log', 'Defaults logfile=/var/log/lab/sudo.log', () =>
      sideload({ ...prompted, 'sudo-password': 'marlinfish' }),
    );
    expect(outcome.log).toContain('sudo does not take the password of prompted');
    expect(outcome.log).toContain('[SUDO_REFUSED]');
    expect(outcome.code).toBe(1);
    expect(await must(n1, 'cat /var/log/lab/sudo.log')).toMatch(/1 incorrect password attempt/);
  });

  it('stops before anything runs when sudo asks for one command and not for another', async () => {
    const outcome = await sideload({ 'ssh-user': 'partial', 'sudo-password': 'swordfish' });
    expect(outcome.log).toContain('sudo did not ask for its password this time; nothing was run');
    expect(outcome.log).toContain('[SUDO_REFUSED]');
    expect(outcome.code).toBe(1);
  });

  it('names the user whom sudoers does not know', async () => {
    const outcome = await sideload({ 'ssh-user': 'keeper', 'sudo-password': 'swordfish', sudo: 'sudo' });
    expect(outcome.log).toMatch(/keeper is not in the sudoers file/);
    expect(outcome.log).toContain('[SUDO_REFUSED]');
  });
});

it.each([
  ['without a password', { 'ssh-user': 'deploy' }],
  ['with a password', { 'ssh-user': 'prompted', 'sudo-password': 'swordfish' }],
])('requiretty is named, %s', async (_how, inputs) => {
  const outcome = await withFile(n1, '/etc/sudoers.d/tty', 'Defaults requiretty', () => sideload(inputs));
  expect(outcome.log).toContain('must have a tty');
  expect(outcome.log).toContain('!requiretty');
  expect(outcome.log).toContain('[SUDO_REFUSED]');
  expect(outcome.code).toBe(1);
});

describe('doas', () => {
  it('is taken when it is said', async () => {
    const outcome = await sideload({ 'ssh-user': 'keeper', sudo: 'doas' });
    expectSent(outcome);
    expect(outcome.log).toContain('as doas');
  });

  it('is found on a node without sudo', async () => {
    await must(n1, 'mv /usr/bin/sudo /usr/bin/sudo.away');
    try {
      expectSent(await sideload({ 'ssh-user': 'keeper' }));
    } finally {
      await must(n1, 'mv /usr/bin/sudo.away /usr/bin/sudo');
    }
  });

  it('that refuses is told', async () => {
    const outcome = await sideload({ 'ssh-user': 'nosudo', sudo: 'doas' });
    expect(outcome.log).toContain('`doas -n` refused');
    expect(outcome.log).toContain('[SUDO_REFUSED]');
  });
});

it('a user who may talk to the runtime needs no root', async () => {
  const socket = '/run/containerd/containerd.sock';
  await must(n1, `chmod 666 ${socket}`);
  try {
    const outcome = await sideload({ 'ssh-user': 'nosudo', sudo: 'none' });
    expectSent(outcome);
    expect(outcome.log).toContain('as none');
  } finally {
    await must(n1, `chmod 660 ${socket}`);
  }
});

it('a node that allows one session at a time is enough (MaxSessions 1)', async () => {
  await withSshd(n1, 'MaxSessions 1', async () => expectSent(await sideload({})));
});

describe('jump hosts', () => {
  it('are gone through, and shared by the nodes behind them', async () => {
    const before = await sshdLog();
    const outcome = await sideload({ ...reach(lab, [n1.address, n3.address]), 'ssh-jump': `deploy@${n2.address}` });
    expectSent(outcome, 2);
    const log = (await sshdLog()).slice(before.length);
    expect(log.match(/Accepted publickey for deploy/g)).toHaveLength(1);
    expect(log).not.toContain('Accepted publickey for root');
  });

  it('can be many', async () => {
    expectSent(await sideload({ 'ssh-jump': `deploy@${n2.address}, nosudo@${n3.address}:22` }));
  });

  it('come from the inventory, and `none` there means the node itself', async () => {
    const inventory = join(directory, 'inventory.yaml');
    writeFileSync(
      inventory,
      `nodes:
  - { host: ${n1.address}, user: fisher, sudo: sudo }
  - { host: ${n2.address}, jump: none }
  - { host: ${n3.address}, jump: ["deploy@${n2.address}"] }
settings:
  ssh-jump: nosudo@${n2.address}
`,
    );
    const before = await sshdLog();
    expectSent(await sideload({ nodes: '', inventory }), 3);
    const log = (await sshdLog()).slice(before.length);
    expect(log.match(/Accepted publickey for \w+/g)?.sort()).toEqual(
      ['deploy', 'nosudo', 'root'].map(user => `Accepted publickey for ${user}`),
    );
  });

  it('need a host key of their own', async () => {
    const known = readFileSync(lab.knownHostsFile, 'utf8')
      .split('\n')
      .filter(line => !line.startsWith(`${n2.address} `));
    const outcome = await sideload({ 'ssh-jump': `deploy@${n2.address}`, 'ssh-known-hosts': known.join('\n') });
    expect(outcome.log).toContain(`the jump host ${n2.address} shows an unknown host key`);
    expect(outcome.log).toContain('[SSH_HOST_KEY_UNKNOWN]');
    expect(outcome.code).toBe(1);
  });

  it('that forbid forwarding are told from nodes that are not there', async () => {
    const jump = { 'ssh-jump': `deploy@${n2.address}` };
    const forbidden = await withSshd(n2, 'AllowTcpForwarding no', () => sideload(jump));
    expect(forbidden.log).toContain(`${n1.address}:22 cannot be reached from the jump host before it`);
    expect(forbidden.log).toContain('AllowTcpForwarding');
    const absent = await sideload({
      ...jump,
      nodes: `${n1.address}:2222`,
      'ssh-known-hosts-file': join(directory, 'ports'),
      ...ports(),
    });
    expect(absent.log).toMatch(/:2222 cannot be reached from the jump host before it: .*refused/i);
    expect(absent.log).not.toContain('AllowTcpForwarding');
  });
});

/** The lab's known hosts, on another port as well. */
function ports(): Inputs {
  const known = readFileSync(lab.knownHostsFile, 'utf8');
  writeFileSync(join(directory, 'ports'), `${known}${known.replaceAll(/^(\S+) /gm, '[$1]:2222 ')}`);
  return {};
}

async function sshdLog(): Promise<string> {
  return (await enter(n2, ['cat', '/var/log/lab/sshd.log'])).stdout;
}

async function withSshd<T>(node: typeof n1, setting: string, body: () => Promise<T>): Promise<T> {
  const restart = async () => {
    await stop(node, 'sshd');
    await start(node, 'sshd');
  };
  return await withFile(node, '/etc/ssh/sshd_config.d/test.conf', setting, async () => {
    await restart();
    return await body();
  }).finally(restart);
}

import { execFileSync } from 'node:child_process';
import { chmodSync, copyFileSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, inject, it, vi } from 'vitest';
import { archive } from '../engines.ts';
import { enter, setRate, start, stop } from '../lab/index.ts';
import { type Inputs, leftOnNode, nodeNamed, type Options, type Outcome, push, reach } from '../shipped.ts';
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

async function sideloadBy(inputs: Inputs, options: Options = {}): Promise<Outcome> {
  const outcome = await push(
    { ...reach(lab, [n1.address]), 'connect-timeout': '10s', ...(await newImage()), ...inputs },
    { lab, ...options },
  );
  expect(outcome.log).not.toContain('swordfish');
  expect(outcome.log).not.toContain('INTERNAL');
  expect(outcome.leftOnRunner).toEqual([]);
  return outcome;
}

const sideload = sideloadBy;

/** The image has arrived under its digest: no byte of the stream was lost, and none was added to it. */
function expectSent(outcome: Outcome, nodes = 1): void {
  expect(outcome.log).toContain('imported and verified');
  expect(outcome.nodes.map(node => node.images[0]?.outcome)).toEqual(Array(nodes).fill('sent'));
  expect(outcome.code).toBe(0);
}

describe.each(['node-ssh', 'openssh'] as const)('over %s', transport => {
  const sideload = (inputs: Inputs) => sideloadBy({ 'ssh-transport': transport, ...inputs });
  const prompted = { 'ssh-user': 'prompted', 'sudo-password': 'swordfish' };

  it.each(['fisher', 'csheller', 'noisy', 'noisyfish'] satisfies (keyof typeof PEOPLE)[])(
    'a login shell, rc files and a PATH as people have them: %s',
    async user => expectSent(await sideload({ 'ssh-user': user })),
  );

  it('sudo gets its password, and the importer every byte of the image', async () => {
    const outcome = await sideload(prompted);
    expectSent(outcome);
    expect(outcome.log).toContain('as root by sudo with a password');
  });

  it('the password is on no command line, neither of the node nor of the runner', async () => {
    let looking: Promise<string> | undefined;
    const look = async () => {
      const onNode = await must(n1, "cat /proc/[0-9]*/cmdline | tr '\\0' '\\n'");
      const onRunner = execFileSync('ps', ['-ww', '-eo', 'args'], { encoding: 'utf8' });
      return `${onNode}\n${onRunner
        .split('\n')
        .filter(line => line.includes(n1.address) || /cli\/index/.test(line))
        .join('\n')}`;
    };
    const atWork = () =>
      vi.waitFor(
        async () => {
          const seen = await look();
          expect(seen).toMatch(/sudo\n-k\n-S[\s\S]*ctr/);
          return seen;
        },
        { timeout: 60_000, interval: 50 },
      );
    await setRate(n1, '8mbit');
    try {
      const onLine = (line: string) => {
        if (line === 'Send what is missing') looking ??= atWork();
      };
      expectSent(await sideloadBy({ 'ssh-transport': transport, ...prompted }, { onLine }));
    } finally {
      await setRate(n1, undefined);
    }
    expect(await looking).not.toContain('swordfish');
  });

  it('a user who logs in to fish may become root by a password, too', async () => {
    await withFile(n1, '/etc/sudoers.d/fisher', 'fisher ALL=(ALL) ALL', async () =>
      expectSent(await sideload({ ...prompted, 'ssh-user': 'fisher' })),
    );
    await must(n1, "echo 'fisher ALL=(ALL) NOPASSWD: ALL' >/etc/sudoers.d/fisher");
  });

  it('a user without a password becomes root by doas', async () => {
    const outcome = await sideload({ 'ssh-user': 'keeper', sudo: 'doas' });
    expectSent(outcome);
    expect(outcome.log).toContain('as doas');
  });

  it('a node that allows one session at a time is enough (MaxSessions 1)', async () => {
    await withSshd(n1, 'MaxSessions 1', async () => expectSent(await sideload(prompted)));
  });

  it('a chain of jump hosts is gone through', async () => {
    const jump = `deploy@${n2.address}, nosudo@${n3.address}:22`;
    expectSent(await sideload({ ...prompted, 'ssh-jump': jump }));
  });

  it('a jump host needs a host key of its own', async () => {
    const known = readFileSync(lab.knownHostsFile, 'utf8')
      .split('\n')
      .filter(line => !line.startsWith(`${n2.address} `));
    const outcome = await sideload({ 'ssh-jump': `deploy@${n2.address}`, 'ssh-known-hosts': known.join('\n') });
    expect(outcome.log).toContain(n2.address);
    expect(outcome.log).toContain('[SSH_HOST_KEY_UNKNOWN]');
    expect(outcome.code).toBe(1);
  });

  it('an ssh-agent of the runner is asked when no key is given', async () => {
    const socket = join(directory, `agent-${transport}`);
    const printed = execFileSync('ssh-agent', ['-s', '-a', socket], { encoding: 'utf8' });
    const env = { SSH_AUTH_SOCK: socket };
    try {
      const { 'ssh-private-key-file': _key, ...inputs } = reach(lab, [n1.address]);
      const login = async () =>
        await push({ 'ssh-transport': transport, ...inputs, ...(await newImage()) }, { lab, env });
      const refused = await login();
      expect(refused.log).toContain('[SSH_AUTH_FAILED]');
      execFileSync('ssh-add', ['-q', lab.privateKeyFile], { env: { ...process.env, ...env } });
      expectSent(await login());
    } finally {
      process.kill(Number(/SSH_AGENT_PID=(\d+)/.exec(printed)?.[1]));
    }
  });
});

describe('sudo with a password', () => {
  const prompted = { 'ssh-user': 'prompted', 'sudo-password': 'swordfish' };

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
    expect(outcome.log).toContain('Next step: Add `permit nopass USER as root`');
    expect(outcome.log).not.toContain('sudo-password');
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

describe('jump hosts', () => {
  it('are gone through, and shared by the nodes behind them', async () => {
    const before = await sshdLog();
    const outcome = await sideload({ ...reach(lab, [n1.address, n3.address]), 'ssh-jump': `deploy@${n2.address}` });
    expectSent(outcome, 2);
    const log = (await sshdLog()).slice(before.length);
    expect(log.match(/Accepted publickey for deploy/g)).toHaveLength(1);
    expect(log).not.toContain('Accepted publickey for root');
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

describe('certificates', () => {
  const authority = join(directory, 'authority');
  beforeAll(() => keygen('-q', '-t', 'ed25519', '-N', '', '-f', authority));

  it('of hosts are taken by openssh, and named as the reason by node-ssh', async () => {
    writeFileSync(join(directory, 'host.pub'), await must(n1, 'cat /etc/ssh/ssh_host_ed25519_key.pub'));
    keygen('-q', '-s', authority, '-I', 'n1', '-h', '-n', n1.address, join(directory, 'host.pub'));
    const certificate = readFileSync(join(directory, 'host-cert.pub'), 'utf8');
    const known = { 'ssh-known-hosts': `@cert-authority 10.* ${readFileSync(`${authority}.pub`, 'utf8')}` };
    await withFile(n1, '/etc/ssh/host-cert.pub', certificate, () =>
      withSshd(n1, 'HostCertificate /etc/ssh/host-cert.pub', async () => {
        expectSent(await sideload({ ...known, 'ssh-transport': 'openssh' }));
        const outcome = await sideload(known);
        expect(outcome.log).toContain('trusts a certificate authority for it');
        expect(outcome.log).toContain('`ssh-transport: openssh`');
        expect(outcome.log).toContain('[SSH_HOST_KEY_UNKNOWN]');
      }),
    );
  });

  it('of users lie beside the key, for openssh', async () => {
    const key = join(directory, 'certified');
    keygen('-q', '-t', 'ed25519', '-N', '', '-f', key);
    keygen('-q', '-s', authority, '-I', 'ci', '-n', 'root', `${key}.pub`);
    const ca = readFileSync(`${authority}.pub`, 'utf8').trim();
    const inputs = { 'ssh-private-key-file': key };
    await withFile(n1, '/etc/ssh/authority.pub', ca, () =>
      withSshd(n1, 'TrustedUserCAKeys /etc/ssh/authority.pub', async () => {
        expectSent(await sideload({ ...inputs, 'ssh-transport': 'openssh' }));
        expect((await sideload(inputs)).log).toContain('[SSH_AUTH_FAILED]');
      }),
    );
  });
});

it('openssh takes names, users, keys, known hosts and jump hosts from ~/.ssh/config', async () => {
  const home = join(directory, 'home');
  mkdirSync(home, { mode: 0o700 });
  copyFileSync(lab.privateKeyFile, join(home, 'lab-key'));
  chmodSync(join(home, 'lab-key'), 0o600);
  copyFileSync(lab.knownHostsFile, join(home, 'known_hosts'));
  const config = `Host first
  HostName ${n1.address}
  User deploy
  ProxyJump gateway
Host gateway
  HostName ${n2.address}
  User nosudo
Host *
  IdentityFile ~/.ssh/lab-key
  StrictHostKeyChecking no
`;
  writeFileSync(join(home, 'config'), config, { mode: 0o600 });
  // ssh has its home from /etc/passwd, whatever HOME says: here it is another one, for this process alone.
  const node = join(directory, 'node');
  const enterHome = `mount -t tmpfs tmpfs ~root && cp -a "$0" ~root/.ssh && exec "$@"`;
  const script = `#!/bin/sh\nexec unshare --mount sh -c '${enterHome}' ${home} ${process.execPath} "$@"\n`;
  writeFileSync(node, script, { mode: 0o755 });
  const before = await sshdLog();
  const inputs: Inputs = { nodes: 'first', 'ssh-transport': 'openssh', smoke: 'none' };
  const outcome = await push({ ...inputs, ...(await newImage()) }, { lab, node });
  expectSent(outcome);
  expect(outcome.log).toContain('as sudo');
  expect((await sshdLog()).slice(before.length)).toContain('Accepted publickey for nosudo');
  // What the configuration says about host keys does not count.
  writeFileSync(join(home, 'known_hosts'), '');
  expect((await push({ ...inputs, ...(await newImage()) }, { lab, node })).log).toContain('[SSH_HOST_KEY_UNKNOWN]');
});

it('openssh leaves no process behind on the runner', async () => {
  await sideload({ 'ssh-transport': 'openssh' });
  const processes = execFileSync('ps', ['-eo', 'args'], { encoding: 'utf8' });
  expect(processes.split('\n').filter(line => line.includes(`-- ${n1.address}`))).toEqual([]);
});

/** The lab's known hosts, on another port as well. */
function ports(): Inputs {
  const known = readFileSync(lab.knownHostsFile, 'utf8');
  writeFileSync(join(directory, 'ports'), `${known}${known.replaceAll(/^(\S+) /gm, '[$1]:2222 ')}`);
  return {};
}

function keygen(...args: readonly string[]): void {
  execFileSync('ssh-keygen', args, { stdio: 'pipe' });
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

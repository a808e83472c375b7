import { chmod, chown, mkdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { must } from './command.ts';
import { accounts } from './rootfs.ts';
import type { TreeFile } from './state.ts';

/** The key that opens every machine of a lab. */
export interface LabKey {
  readonly privateKeyFile: string;
  readonly publicKey: string;
}

export async function makeLabKey(directory: string, lab: string): Promise<LabKey> {
  const privateKeyFile = join(directory, 'id_ed25519');
  return { privateKeyFile, publicKey: await makeKey(privateKeyFile, `kube-sideload-lab ${lab}`) };
}

/** What a machine's root needs for sshd: its own host key, and the lab's key for every account. */
export interface SshIdentity {
  readonly files: Readonly<Record<string, TreeFile>>;
  /** `ssh-ed25519 AAAA…` */
  readonly hostKey: string;
}

export async function makeIdentity(directory: string, machine: string, key: LabKey): Promise<SshIdentity> {
  const file = join(directory, `host-${machine}`);
  const hostKey = (await makeKey(file, machine)).split(' ').slice(0, 2).join(' ');
  const files: Record<string, TreeFile> = {
    '/etc/ssh/ssh_host_ed25519_key': { text: await readFile(file, 'utf8'), mode: 0o600 },
    '/etc/ssh/ssh_host_ed25519_key.pub': { text: `${hostKey} ${machine}\n`, mode: 0o644 },
    '/etc/ssh/sshd_config.d/lab.conf': {
      text: [
        'HostKey /etc/ssh/ssh_host_ed25519_key',
        'PermitRootLogin prohibit-password',
        'UseDNS no',
        'MaxStartups 100',
        '',
      ].join('\n'),
      mode: 0o644,
    },
    '/root/.ssh/authorized_keys': { text: `${key.publicKey}\n`, mode: 0o600 },
  };
  return { files, hostKey };
}

/** Lets the lab's key into the accounts besides root: their files must be their own, or sshd ignores them. */
export async function authorize(upper: string, key: LabKey): Promise<void> {
  for (const [account, { uid }] of Object.entries(accounts)) {
    const directory = join(upper, 'home', account, '.ssh');
    await mkdir(directory, { recursive: true });
    await writeFile(join(directory, 'authorized_keys'), `${key.publicKey}\n`, { mode: 0o600 });
    await chmod(directory, 0o700);
    for (const path of [join(directory, 'authorized_keys'), directory, join(directory, '..')])
      await chown(path, uid, uid);
  }
}

async function makeKey(file: string, comment: string): Promise<string> {
  await must(['ssh-keygen', '-q', '-t', 'ed25519', '-N', '', '-C', comment, '-f', file]);
  return (await readFile(`${file}.pub`, 'utf8')).trim();
}

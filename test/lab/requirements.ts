import { access, constants, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { must, run } from './command.ts';
import { locked, lockFile } from './lock.ts';
import { type Log, step } from './progress.ts';

/** The programs that the lab calls on the host, and the Debian packages that bring them. */
const tools: Readonly<Record<string, string>> = {
  flock: 'util-linux',
  nsenter: 'util-linux',
  unshare: 'util-linux',
  setpriv: 'util-linux',
  pivot_root: 'util-linux',
  ip: 'iproute2',
  tc: 'iproute2',
  openssl: 'openssl',
  ssh: 'openssh-client',
  'ssh-keygen': 'openssh-client',
};

/** What the lab can't do without, checked first so that the reason is the first thing said. */
export function assertHost(): void {
  if (process.platform !== 'linux') throw new Error('the lab raises nodes out of Linux namespaces: it needs Linux');
  if (process.getuid?.() !== 0) throw new Error('the lab makes namespaces, mounts and links: run it as root');
}

/**
 * Raises the kernel's bound on inotify instances, which all of a user's processes share: a node takes about seven (a
 * kubelet alone five), so that 128, the default, are gone with 16 nodes, and the next kubelet never gets Ready. The one
 * setting of the host that a lab changes, and leaves; where it may not, a small lab works all the same.
 */
export async function ensureInotify(log: Log): Promise<void> {
  const file = '/proc/sys/fs/inotify/max_user_instances';
  const enough = 1024;
  const bound = Number(await readFile(file, 'utf8'));
  if (bound >= enough) return;
  await writeFile(file, String(enough)).then(
    () => log(`raise fs.inotify.max_user_instances from ${bound} to ${enough}`),
    () => log(`fs.inotify.max_user_instances is ${bound}, and can't be raised: many nodes will not get Ready`),
  );
}

/** Installs the host programs that are missing. */
export async function ensureTools(log: Log, wanted: Readonly<Record<string, string>> = tools): Promise<void> {
  const missing = new Set<string>();
  for (const [tool, packageName] of Object.entries(wanted)) if (!(await which(tool))) missing.add(packageName);
  await install(log, [...missing]);
}

/** Installs a C compiler, and the headers of C libraries, where they are missing. @param wanted by pkg-config's name */
export async function ensureHeaders(log: Log, wanted: Readonly<Record<string, string>>): Promise<void> {
  await ensureTools(log, { cc: 'gcc', 'pkg-config': 'pkg-config' });
  const missing: string[] = [];
  for (const [library, packageName] of Object.entries(wanted))
    if ((await run(['pkg-config', '--exists', library])).code !== 0) missing.push(packageName);
  await install(log, missing);
}

async function install(log: Log, names: readonly string[]): Promise<void> {
  if (names.length === 0) return;
  if (!(await which('apt-get'))) throw new Error(`please install: ${names.join(', ')} (this machine has no apt-get)`);
  await locked(lockFile('apt'), 10 * 60_000, () =>
    step(log, `install ${names.join(', ')}`, async note => {
      const options = {
        timeoutMs: 10 * 60_000,
        env: { ...process.env, DEBIAN_FRONTEND: 'noninteractive' },
        onLine: note,
      };
      await must(['apt-get', 'update', '--quiet'], options);
      await must(['apt-get', 'install', '--yes', '--quiet', '--no-install-recommends', ...names], options);
    }),
  );
}

/** The path of a program, looked up as a shell does, with the system directories that a user's PATH may lack. */
export async function which(tool: string): Promise<string | undefined> {
  const directories = [...(process.env.PATH ?? '').split(':'), '/usr/local/sbin', '/usr/sbin', '/sbin'];
  for (const directory of directories) {
    if (!directory) continue;
    const path = join(directory, tool);
    try {
      await access(path, constants.X_OK);
      return path;
    } catch {}
  }
  return undefined;
}

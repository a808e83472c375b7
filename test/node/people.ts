/** Accounts as people have them: other shells, other ways to become root, rc files that say too much. */
import { enter, type LabNode } from '../lab/index.ts';

interface Person {
  readonly shell?: string;
  readonly sudoers?: string;
  /** Files in the home directory. */
  readonly files?: Readonly<Record<string, string>>;
}

const NOISE = 'echo Welcome to this node; echo >&2; date; printf "\\n@@0123456789ab uid\\n7\\n"';

export const PEOPLE = {
  keeper: {},
  fisher: { shell: '/usr/bin/fish', sudoers: 'ALL=(ALL) NOPASSWD: ALL' },
  csheller: { shell: '/usr/bin/tcsh', sudoers: 'ALL=(ALL) NOPASSWD: ALL' },
  noisy: {
    sudoers: 'ALL=(ALL) NOPASSWD: ALL',
    files: { '.bashrc': `${NOISE}\nexport PATH=/nonexistent LC_ALL=C.UTF-8 LANG=C.UTF-8\n` },
  },
  noisyfish: {
    shell: '/usr/bin/fish',
    sudoers: 'ALL=(ALL) NOPASSWD: ALL',
    files: { '.config/fish/config.fish': `${NOISE}\nset -gx PATH /nonexistent\n` },
  },
  /** Must give the password `swordfish`, except for a shell. */
  partial: { sudoers: 'ALL=(ALL) ALL, NOPASSWD: /bin/sh' },
} as const satisfies Readonly<Record<string, Person>>;

/** Their homes are not where a test looks for what a run has left behind. */
const HOMES = '/srv/people';

/** Makes them on a node, with the keys of `deploy`. */
export async function settle(node: LabNode): Promise<void> {
  const lines = ['set -eu', `mkdir -p ${HOMES}`];
  for (const [name, { shell = '/bin/bash', sudoers, files = {} }] of Object.entries<Person>(PEOPLE)) {
    const home = `${HOMES}/${name}`;
    lines.push(
      `useradd --create-home --home-dir ${home} --shell ${shell} ${name}`,
      `echo ${name}:swordfish | chpasswd`,
      `mkdir -m 700 ${home}/.ssh`,
      `cp /home/deploy/.ssh/authorized_keys ${home}/.ssh/`,
    );
    if (sudoers !== undefined) {
      lines.push(`echo '${name} ${sudoers}' >/etc/sudoers.d/${name}`);
    }
    for (const [file, text] of Object.entries(files)) {
      lines.push(`mkdir -p "$(dirname ${home}/${file})"`, `cat >${home}/${file} <<'END'\n${text}END`);
    }
    lines.push(`chown -R ${name}: ${home}`);
  }
  lines.push("echo 'permit nopass keeper as root' >/etc/doas.conf", 'chmod 400 /etc/doas.conf');
  await must(node, lines.join('\n'));
}

export async function unsettle(node: LabNode): Promise<void> {
  const names = Object.keys(PEOPLE);
  await must(
    node,
    `for name in ${names.join(' ')}; do userdel "$name"; rm -f "/etc/sudoers.d/$name"; done\nrm -rf ${HOMES} /etc/doas.conf`,
  );
}

/** Runs a script on a node as root. */
export async function must(node: LabNode, script: string): Promise<string> {
  const { code, stdout, stderr } = await enter(node, ['sh', '-c', script]);
  if (code !== 0) {
    throw new Error(`on ${node.name}: ${stderr || stdout}`);
  }
  return stdout;
}

/** Does something while a file on a node has this text. */
export async function withFile<T>(node: LabNode, file: string, text: string, body: () => Promise<T>): Promise<T> {
  await enter(node, ['sh', '-c', 'cat >"$0" && chmod 440 "$0"', file], { input: `${text}\n` });
  try {
    return await body();
  } finally {
    await enter(node, ['rm', '-f', file]);
  }
}

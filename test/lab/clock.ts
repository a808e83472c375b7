import { enterMust } from './machine.ts';
import type { LabNode } from './state.ts';

/**
 * Puts the clock of a node off by years, or right again (0). Nodes share the kernel's wall clock, which no namespace
 * has of its own (time_namespaces(7)), so it is libc's that is off: for sshd's sessions, sudo, sh, date, find, tar and
 * all else in C that starts from now on. Programs in Go ask the kernel and keep the machine's time: runtimes, their
 * clients, the kubelet. For nodes of Debian sid, which have libfaketime.
 */
export async function setClock(node: LabNode, years: number): Promise<void> {
  const script = `rm -f /etc/ld.so.preload
[ "$1" != 0 ] || exit 0
echo "$1y" >/etc/faketimerc
ls /usr/lib/*/faketime/libfaketime.so.1 >/run/lab/preload
mv /run/lab/preload /etc/ld.so.preload`;
  await enterMust(node, ['sh', '-euc', script, 'sh', years > 0 ? `+${years}` : `${years}`]);
}

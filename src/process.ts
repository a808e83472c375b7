import { createHash } from 'node:crypto';
import { readFileSync, readlinkSync } from 'node:fs';
import { hostname } from 'node:os';

/** How {@link thisProcess} looks: machine, process ID, start of the process. */
export const PROCESS = String.raw`[0-9a-f]{16}-\d+-\d+`;

/** This process, by a name that no other has or gets. */
export function thisProcess(): string {
  return `${machineId()}-${process.pid}-${startOf(process.pid)}`;
}

/** Whether a process has ended; `undefined` for one of another machine, which cannot be asked for. */
export function hasEnded(name: string): boolean | undefined {
  const [machine, pid, started] = name.split('-');
  return machine === machineId() ? startOf(Number(pid)) !== started : undefined;
}

/** Where process IDs mean something: one boot of one machine, and in it one PID namespace. */
function machineId(): string {
  const namespace = orEmpty(() => readlinkSync('/proc/self/ns/pid'));
  const parts = [hostname(), orEmpty(() => readFileSync('/proc/sys/kernel/random/boot_id', 'utf8')), namespace];
  return createHash('sha256').update(parts.join('\0')).digest('hex').slice(0, 16);
}

/** When a process started, in clock ticks (proc(5), field 22), or `0` without procfs; undefined when there is none. */
function startOf(pid: number): string | undefined {
  const text = orEmpty(() => readFileSync(`/proc/${pid}/stat`, 'utf8'));
  if (text !== '') return text.slice(text.lastIndexOf(')') + 2).split(' ')[19];
  try {
    process.kill(pid, 0);
    return '0';
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM' ? '0' : undefined;
  }
}

function orEmpty(read: () => string): string {
  try {
    return read();
  } catch {
    return '';
  }
}

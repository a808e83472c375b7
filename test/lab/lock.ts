import { spawn } from 'node:child_process';
import { mkdir } from 'node:fs/promises';
import { dirname, join } from 'node:path';

/**
 * The lock of something that this machine has once, whoever asks and whatever their cache is: a lab of a name, the
 * choice of a subnet, apt.
 */
export function lockFile(name: string): string {
  return join('/run/lock/kube-sideload-lab', `${name}.lock`);
}

/**
 * Runs `work` while no other process holds the lock `file`.
 *
 * The lock is flock(2)'s, held by a `flock … cat` that lives as long as our end of its stdin: the kernel gives it back
 * when we die, however we die, so there are no stale locks to judge.
 * @param onWait called when somebody else has the lock.
 * @throws when the lock can't be had within `timeoutMs`.
 */
export async function locked<T>(
  file: string,
  timeoutMs: number,
  work: () => Promise<T>,
  onWait?: () => void,
): Promise<T> {
  await mkdir(dirname(file), { recursive: true });
  const seconds = String(Math.ceil(timeoutMs / 1000));
  const holder = spawn('flock', ['--exclusive', '--timeout', seconds, file, 'sh', '-c', 'echo held; exec cat'], {
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  const ended = new Promise<void>(resolve => holder.once('close', () => resolve()));
  const waiting = setTimeout(() => onWait?.(), 1_000);
  try {
    await new Promise<void>((resolve, reject) => {
      holder.once('error', reject);
      holder.stdout.once('data', () => resolve());
      holder.once('exit', () => reject(new Error(`${file}: another process has held this lock for ${seconds} s`)));
    });
    clearTimeout(waiting);
    return await work();
  } finally {
    clearTimeout(waiting);
    holder.stdin.end();
    await ended;
  }
}

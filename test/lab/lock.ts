import { spawn } from 'node:child_process';
import { mkdir } from 'node:fs/promises';
import { dirname } from 'node:path';

/**
 * Runs `work` while no other process holds the lock `file`.
 *
 * The lock is flock(2)'s, held by a `flock … cat` that lives as long as our end of its stdin: the kernel gives it back
 * when we die, however we die, so there are no stale locks to judge.
 * @throws when the lock can't be had within `timeoutMs`.
 */
export async function locked<T>(file: string, timeoutMs: number, work: () => Promise<T>): Promise<T> {
  await mkdir(dirname(file), { recursive: true });
  const seconds = String(Math.ceil(timeoutMs / 1000));
  const holder = spawn('flock', ['--exclusive', '--timeout', seconds, file, 'sh', '-c', 'echo held; exec cat'], {
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  const ended = new Promise<void>(resolve => holder.once('close', () => resolve()));
  try {
    await new Promise<void>((resolve, reject) => {
      holder.once('error', reject);
      holder.stdout.once('data', () => resolve());
      holder.once('exit', () => reject(new Error(`${file}: another process has held this lock for ${seconds} s`)));
    });
    return await work();
  } finally {
    holder.stdin.end();
    await ended;
  }
}

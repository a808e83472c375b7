import { readFileSync, realpathSync, type Stats, statSync } from 'node:fs';
import { dirname, resolve } from 'node:path';
import { messageOf } from './errors.ts';

/** A path without symbolic links, and why somebody else could change what lies there; nobody could when there is no reason. */
export interface JudgedPath {
  readonly path: string;
  readonly exposure: string | undefined;
}

const STICKY = 0o1000;
const GROUP_WRITES = 0o020;
const OTHERS_WRITE = 0o002;

/**
 * Judges who can write at a path, as sshd judges `authorized_keys` (OpenSSH `misc.c`, `safe_path`): the directory and all above
 * it must belong to this user or to root, and nobody else may write to any of them. So for root, too, a directory of another user
 * is none. Above the directory a sticky one counts as safe (`/tmp`): there nobody moves what is not his own. A group whose only
 * member is the owner counts as the owner (Debian's OpenSSH: `secure_permissions`), as homes are made so with umask 002.
 *
 * What is not there yet is judged by what it would be made in. Whoever asks uses the path that is returned: a link on the way
 * may be led elsewhere afterwards.
 * @param mayBeSticky for a directory in which one with a name that nobody knows will be made
 */
export function judgePath(path: string, { mayBeSticky = false } = {}): JudgedPath {
  const me = process.getuid?.();
  const missing: string[] = [];
  let there = resolve(path);
  let real: string | undefined;
  for (;;) {
    real = realOf(there);
    if (real !== undefined || there === dirname(there)) break;
    missing.unshift(there.slice(dirname(there).length).replace(/^\//, ''));
    there = dirname(there);
  }
  real ??= there;
  const judged = resolve(real, ...missing);
  if (me === undefined) return { path: judged, exposure: undefined }; // no POSIX, and no such modes
  for (let directory = real; ; directory = dirname(directory)) {
    const exposure = exposureOf(directory, me, mayBeSticky || directory !== real || missing.length > 0);
    if (exposure !== undefined || directory === dirname(directory)) return { path: judged, exposure };
  }
}

function realOf(path: string): string | undefined {
  try {
    return realpathSync(path);
  } catch {
    return undefined;
  }
}

function exposureOf(directory: string, me: number, isAbove: boolean): string | undefined {
  let info: Stats;
  try {
    info = statSync(directory);
  } catch (error) {
    return messageOf(error);
  }
  const { uid, gid, mode } = info;
  if (uid !== 0 && uid !== me) return `${directory} belongs to another user (${uid})`;
  if (isAbove && (mode & STICKY) !== 0) return undefined;
  if ((mode & OTHERS_WRITE) !== 0) return `${directory} can be written to by everybody`;
  const isShared = (mode & GROUP_WRITES) !== 0 && !isAlone(gid, uid);
  return isShared ? `${directory} can be written to by the group ${gid}` : undefined;
}

/** Whether a group has nobody in it but one user, by the machine's own files; a group that is not there may have anybody. */
function isAlone(gid: number, uid: number): boolean {
  const users = linesOf('/etc/passwd').map(([name, , id, group]) => ({ name, uid: Number(id), gid: Number(group) }));
  const group = linesOf('/etc/group').find(([, , id]) => id === String(gid));
  if (group === undefined) return false;
  const members = group[3]?.split(',').filter(name => name !== '') ?? [];
  const uids = [
    ...users.filter(user => user.gid === gid).map(user => user.uid),
    ...members.map(name => users.find(user => user.name === name)?.uid),
  ];
  return uids.length > 0 && uids.every(one => one === uid);
}

function linesOf(file: string): readonly (readonly string[])[] {
  try {
    return readFileSync(file, 'utf8')
      .split('\n')
      .filter(line => line !== '')
      .map(line => line.split(':'));
  } catch {
    return [];
  }
}

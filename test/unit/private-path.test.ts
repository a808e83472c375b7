import { chmod, chown, mkdir, mkdtemp, rm, symlink } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { judgePath } from '../../src/private-path.ts';

const SOMEBODY = 54_321;
/** Only root can give files away. */
const isRoot = process.getuid?.() === 0;
let root: string;

beforeEach(async () => {
  root = await mkdtemp(join(tmpdir(), 'kube-sideload-path-'));
});
afterEach(() => rm(root, { recursive: true, force: true }));

async function made(name: string, mode = 0o700, owner?: number): Promise<string> {
  const path = join(root, name);
  await mkdir(path, { recursive: true });
  await chmod(path, mode);
  if (owner !== undefined) await chown(path, owner, owner);
  return path;
}

describe('a place where nobody else can write', () => {
  it('is a directory of this user in the sticky one of the machine', async () => {
    expect(judgePath(await made('a'))).toEqual({ path: join(root, 'a'), exposure: undefined });
  });

  it('may not be there yet', async () => {
    await made('a');
    expect(judgePath(join(root, 'a', 'b', 'c'))).toEqual({ path: join(root, 'a', 'b', 'c'), exposure: undefined });
  });

  it('is named without the links on the way, which may be led elsewhere later', async () => {
    await made('a');
    await symlink(join(root, 'a'), join(root, 'link'));
    expect(judgePath(join(root, 'link', 'b')).path).toBe(join(root, 'a', 'b'));
  });
});

describe('a place where others can write', () => {
  it.each([
    ['everybody writes to it', 0o777, 'by everybody'],
    ['it is sticky, and everybody puts there what he likes', 0o1777, 'by everybody'],
    ['a group of nobody writes to it', 0o770, 'by the group'],
  ])('%s', async (_what, mode, said) => {
    const path = await made('a', mode);
    if (isRoot) await chown(path, 0, SOMEBODY);
    expect(judgePath(path).exposure).toContain(`${path} can be written to ${said}`);
  });

  it('a directory above it is', async () => {
    const above = await made('a', 0o777);
    await made('a/b');
    expect(judgePath(join(root, 'a', 'b', 'c')).exposure).toBe(`${above} can be written to by everybody`);
    await chmod(above, 0o1777);
    expect(judgePath(join(root, 'a', 'b', 'c')).exposure).toBeUndefined();
  });

  it('a link leads there', async () => {
    const open = await made('open', 0o777);
    await symlink(open, join(root, 'link'));
    expect(judgePath(join(root, 'link', 'layers')).exposure).toContain(`${open} can be written to`);
  });

  it.runIf(isRoot)('it or a directory above it belongs to another user, also for root', async () => {
    const theirs = await made('theirs', 0o700, SOMEBODY);
    expect(judgePath(theirs).exposure).toBe(`${theirs} belongs to another user (${SOMEBODY})`);
    await made('theirs/ours');
    expect(judgePath(join(theirs, 'ours')).exposure).toBe(`${theirs} belongs to another user (${SOMEBODY})`);
    await chmod(theirs, 0o1755);
    expect(judgePath(join(theirs, 'ours')).exposure).toContain('belongs to another user');
  });
});

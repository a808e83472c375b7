/** What somebody wrote to stop the job, and a runner that others use too: nothing but a named error, in seconds, and nothing of theirs used. */
import { execFile } from 'node:child_process';
import { chmod, chown, copyFile, mkdir, mkdtemp, readdir, readFile, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { ErrorCode } from '../../src/errors.ts';
import { EXIT } from '../../src/host/host.ts';
import { type Inputs, push, runCli } from '../shipped.ts';
import { KEYS } from '../ssh/server.ts';
import { dockerArchive, ociArchive, sampleImage, sampleLayer, sha256, writeTar } from '../unit/image/archives.ts';
import { closedPort, expectRefusal } from './refusal.ts';

/** Far more than any of these takes; the first versions of them took minutes, or for ever. */
const TIMEOUT_MS = 60_000;
const NOBODY = 65_534;

const directory = await mkdtemp(join(tmpdir(), 'kube-sideload-hostile-'));
const at = (name: string) => join(directory, name);
const port = await closedPort();
const image = sampleImage([await sampleLayer('etc/one')]);

const GOOD: Inputs = {
  archive: at('good.tar'),
  nodes: `127.0.0.1:${port}`,
  'ssh-private-key': KEYS.user.privateKey,
  'ssh-known-hosts': `[127.0.0.1]:${port} ${KEYS.ed25519.publicKey}`,
  smoke: 'none',
};

beforeAll(async () => {
  await chmod(directory, 0o755);
  await writeTar(at('good.tar'), dockerArchive([[['app:1'], image]], 'docker'));
  await chmod(at('good.tar'), 0o644);
});
afterAll(() => rm(directory, { recursive: true, force: true }));

/** Indexes that name the next one many times each: to follow all of them is more work than there is time. */
async function nestedIndexes(): Promise<string> {
  const entries = [...ociArchive([{ image }])];
  let below: object = JSON.parse(String(entries.pop()?.content)).manifests[0];
  for (let level = 0; level < 4; level += 1) {
    const bytes = Buffer.from(JSON.stringify({ manifests: Array.from({ length: 300 }, () => below) }));
    entries.push({ name: `blobs/sha256/${sha256(bytes)}`, content: bytes });
    below = { digest: `sha256:${sha256(bytes)}`, size: bytes.length };
  }
  const index = Buffer.from(JSON.stringify({ manifests: Array.from({ length: 3 }, () => below) }));
  return await writeTar(at('nested.tar'), [...entries, { name: 'index.json', content: index }]);
}

async function file(name: string, content: string): Promise<string> {
  await writeFile(at(name), content);
  return at(name);
}

const REFUSED: readonly (readonly [what: string, inputs: () => Promise<Inputs>, code: ErrorCode, message: RegExp])[] = [
  [
    'an inventory of one kilobyte that nests keys in keys',
    async () => ({ nodes: '', inventory: await file('keys.yaml', '? '.repeat(500)) }),
    'INVENTORY_INVALID',
    /keys\.yaml:1: it nests deeper than 64/,
  ],
  [
    'an inventory of three kilobytes that only opens brackets',
    async () => ({ nodes: '', inventory: await file('brackets.yaml', '{'.repeat(3000)) }),
    'INVENTORY_INVALID',
    /brackets\.yaml:1: it nests deeper than 64/,
  ],
  [
    'an archive without an index, whose index.json is a link to a file of the machine',
    async () => {
      await mkdir(at('layout'));
      await file('secret', 'hunter2: not for anybody');
      await symlink(at('secret'), join(at('layout'), 'index.json'));
      return { archive: at('layout') };
    },
    'ARCHIVE_INVALID',
    /index\.json in the archive \S+ is not JSON/,
  ],
  [
    'an archive with a link that leads nowhere',
    async () => ({
      archive: await writeTar(at('link.tar'), [
        { name: 'manifest.json', content: Buffer.from('[{"Config":"c","Layers":["l"]}]') },
        { name: 'c', content: image.config },
        { name: 'l', type: 'symlink', linkname: '' },
      ]),
    }),
    'ARCHIVE_INCOMPLETE',
    /lacks the layer l/,
  ],
];

describe('hostile input', () => {
  it.each(REFUSED)('%s ends in a named error', async (_what, inputs, code, message) => {
    const outcome = await push({ ...GOOD, ...(await inputs()) }, { timeoutMs: TIMEOUT_MS });
    expectRefusal(outcome, code, message, code === 'INVENTORY_INVALID' ? EXIT.usage : EXIT.failed);
    expect(outcome.log).not.toContain('hunter2');
  });

  it.each<[what: string, inputs: () => Promise<Inputs>]>([
    ['an archive of indexes that name each other', async () => ({ archive: await nestedIndexes(), images: 'app:1' })],
    [
      'a pattern of stars in known_hosts',
      async () => ({ 'ssh-known-hosts': `${'*'.repeat(30)}x ${KEYS.ed25519.publicKey}` }),
    ],
  ])('%s is read in no time, and the job goes on to the node', async (_what, inputs) => {
    const outcome = await push({ ...GOOD, ...(await inputs()) }, { timeoutMs: TIMEOUT_MS });
    expectRefusal(outcome, 'SSH_UNREACHABLE', /127\.0\.0\.1/);
  });
});

describe('a runner that others use too', () => {
  /** A program of another user than the one who runs the tests, which can read nothing of the repository. */
  const program = { node: at('node'), cli: at('index.js') };
  beforeAll(async () => {
    await copyFile(process.execPath, program.node);
    await copyFile(resolve(import.meta.dirname, '../../dist/cli/index.js'), program.cli);
    await writeFile(at('package.json'), '{"type":"commonjs"}');
    await Promise.all([chmod(program.node, 0o755), chmod(program.cli, 0o644), chmod(at('package.json'), 0o644)]);
  });

  const execute = promisify(execFile);

  /** Makes a bundle as root or as somebody, with a home of its own, and tells what it said. */
  async function bundle(
    uid: number,
    env: Readonly<Record<string, string>>,
    ...flags: readonly string[]
  ): Promise<{ readonly code: number; readonly said: string }> {
    const home = await made(`home-${uid}`, 0o700, uid);
    const args = [program.cli, 'bundle', `--archive=${at('good.tar')}`, `--bundle=${join(home, 'out.tar')}`, ...flags];
    const options = {
      uid,
      gid: uid,
      env: { HOME: home, PATH: '/usr/bin:/bin', ...env },
      timeout: TIMEOUT_MS,
      cwd: home,
    };
    return await execute(program.node, args, options).then(
      ({ stdout, stderr }) => ({ code: 0, said: stdout + stderr }),
      error => ({ code: error.code ?? -1, said: error.stdout + error.stderr }),
    );
  }

  async function made(name: string, mode: number, uid: number): Promise<string> {
    await mkdir(at(name), { recursive: true });
    await chown(at(name), uid, uid);
    await chmod(at(name), mode);
    return at(name);
  }

  it.each([
    ['root', 0, NOBODY],
    ['a user', NOBODY, 0],
  ])('as %s: a cache below a directory where others can write is not used', async (_who, uid, other) => {
    const open = await made(`open-${uid}`, 0o777, uid);
    const theirs = await made(`open-${uid}/kube-sideload/layers`, 0o700, uid);
    await chown(join(open, 'kube-sideload'), uid, uid);
    const { code, said } = await bundle(uid, { XDG_CACHE_HOME: open });
    expect(said).toContain(`layers are cached for this run only: ${open} can be written to by everybody`);
    expect(code).toBe(0);
    expect(await readdir(theirs)).toEqual([]);

    const named = await bundle(uid, {}, `--cache-dir=${theirs}`);
    expect(named.said).toContain(
      `\`cache-dir\`: others could put layers into it: ${open} can be written to by everybody`,
    );
    expect(named.code).toBe(EXIT.usage);

    await chmod(open, 0o755);
    await chown(open, other, other);
    const above = await bundle(uid, { XDG_CACHE_HOME: open });
    // What root owns is nobody else's.
    if (other === 0) expect(await readdir(theirs)).not.toEqual([]);
    else expect(above.said).toContain(`${open} belongs to another user (${other})`);
  });

  it.each([
    ['root', 0],
    ['a user', NOBODY],
  ])('as %s: a layer that others left in the cache is not used, whatever its name promises', async (_who, uid) => {
    const base = await made(`mine-${uid}`, 0o700, uid);
    expect((await bundle(uid, { XDG_CACHE_HOME: base })).code).toBe(0);
    const cache = join(base, 'kube-sideload', 'layers');
    const [name = ''] = (await readdir(cache)).filter(entry => entry.endsWith('.zstd-1'));
    const good = await readFile(join(cache, name));
    await writeFile(join(cache, name), 'another layer');
    await chown(join(cache, name), uid + 7, uid + 7);
    const { code, said } = await bundle(uid, { XDG_CACHE_HOME: base });
    expect(said).not.toContain('CACHE_CORRUPT');
    expect(code).toBe(0);
    // Made anew, in its place.
    expect(await readFile(join(cache, name))).toEqual(good);
  });

  it('files of a run lie elsewhere when others can write to the directory for them, and the log says so', async () => {
    const temporary = await made('temporary', 0o777, 0);
    const { code, said } = await bundle(0, { TMPDIR: temporary });
    expect(said).toMatch(
      new RegExp(`the files of this run lie in /\\S*tmp: ${temporary} can be written to by everybody`),
    );
    expect(code).toBe(0);
    expect(await readdir(temporary)).toEqual([]);
  });

  it('the sticky directory of the machine is a place for them', async () => {
    const temporary = await made('sticky', 0o1777, 0);
    const outcome = await runCli(['bundle', `--archive=${at('good.tar')}`, `--bundle=${at('out.tar')}`], {
      env: { TMPDIR: temporary },
    });
    expect(outcome.log).not.toContain('the files of this run lie in');
    expect(outcome.code).toBe(0);
  });
});

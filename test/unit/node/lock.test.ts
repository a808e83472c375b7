import { spawn } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync, readlinkSync, rmSync, symlinkSync, unlinkSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { type LockAnswer, readAnswers, releaseScript, scriptAlone, takeScript } from '../../../src/node/lock.ts';
import { runScript, type Script } from '../../../src/node/script.ts';
import type { SshConnection } from '../../../src/ssh/connect.ts';

const APP = 'docker.io/library/app:1';
const DB = 'docker.io/library/db:1';

let directory = '';
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'kube-sideload-locks-'));
});
afterEach(() => rmSync(directory, { recursive: true, force: true }));

/** This machine in place of a node, and the directory of the test in place of the node's own. */
async function run(script: Script) {
  const connection: SshConnection = {
    target: { label: 'here', host: 'here', port: 22, user: 'me' },
    becomesRootBy: 'none',
    run: async ([program = '', ...args], { stdin } = {}) => {
      const child = spawn(program, args);
      child.stdin.end(stdin);
      const ended = new Promise<number | null>(resolve => child.once('close', resolve));
      const [stdout, stderr] = await Promise.all([text(child.stdout), text(child.stderr)]);
      return { code: (await ended) ?? 1, stdout, stderr };
    },
    close: async () => {},
  };
  const body = script.body.replaceAll('/run/kube-sideload', directory);
  return await runScript(connection, { ...script, body }, AbortSignal.timeout(30_000), 'testing');
}

async function take(runId: string, ...references: string[]): Promise<LockAnswer> {
  return readAnswers(await run(takeScript(runId, references)), references);
}

/** Makes the one lock that there is one of another run, or of another time. */
function rewrite(change: (words: string[]) => string[]): void {
  const [name = ''] = readdirSync(directory);
  const file = join(directory, name);
  const words = readlinkSync(file).split(':');
  unlinkSync(file);
  symlinkSync(change(words).join(':'), file);
}

const isOver = ([holder = '', since = '', , reference = '']: string[]) => [holder, since, '1', reference];

describe('a lock on a node', () => {
  it('is one run’s until it gives it up, and says whose it is and since when', async () => {
    const before = Math.floor(Date.now() / 1000);
    expect((await take('run1', APP, DB)).taken).toEqual(
      new Map([
        [APP, undefined],
        [DB, undefined],
      ]),
    );
    const { taken, refusals } = await take('run2', DB);
    expect(taken.size).toBe(0);
    expect(refusals).toMatchObject([{ reference: DB, run: 'run1' }]);
    expect((refusals[0]?.since.getTime() ?? 0) / 1000).toBeGreaterThanOrEqual(before);
    await run(releaseScript('run2'));
    expect((await take('run2', DB)).refusals).toHaveLength(1);
    await run(releaseScript('run1'));
    expect(readdirSync(directory)).toEqual([]);
    expect((await take('run2', DB)).refusals).toEqual([]);
  });

  it('is given for each reference by itself', async () => {
    await take('run1', DB);
    const { taken, refusals } = await take('run2', APP, DB);
    expect([...taken.keys()]).toEqual([APP]);
    expect(refusals.map(({ reference }) => reference)).toEqual([DB]);
  });

  it('stays its holder’s when it is asked for again, and begins no later', async () => {
    await take('run1', APP);
    rewrite(([holder = '', , expires = '', reference = '']) => [holder, '1700000000', expires, reference]);
    expect((await take('run1', APP)).taken).toEqual(new Map([[APP, undefined]]));
    expect((await take('run2', APP)).refusals).toMatchObject([{ since: new Date('2023-11-14T22:13:20Z') }]);
  });

  it.each([
    ['has run out', isOver],
    [
      'is of a boot before this one',
      ([holder = '', since = '', , reference = '']: string[]) => [holder, since, '99999999999', reference],
    ],
    ['is none of ours', () => ['what is', 'this']],
  ])('goes to one of many that ask at once when it %s', async (_what, change) => {
    await take('run1', APP);
    rewrite(change);
    const runs = Array.from({ length: 12 }, (_, index) => `other${index}`);
    const answers = await Promise.all(runs.map(one => take(one, APP)));
    const winners = runs.filter((_, index) => answers[index]?.taken.size === 1);
    expect(winners).toHaveLength(1);
    expect(readdirSync(directory)).toHaveLength(1);
    expect(readlinkSync(join(directory, readdirSync(directory)[0] ?? '')).split(':')[0]).toBe(winners[0]);
  });

  it('tells whose it was when it has run out', async () => {
    await take('run1', APP);
    rewrite(isOver);
    expect((await take('run2', APP)).taken).toEqual(new Map([[APP, 'run1']]));
  });

  it('is not to be had where the user may not make one', async () => {
    rmSync(directory, { recursive: true });
    symlinkSync('/nonexistent/for/sure', directory);
    const { taken, refusals, denial } = await take('run1', APP);
    expect([taken.size, refusals.length]).toEqual([0, 0]);
    expect(denial).toMatch(/No such file/);
  });
});

it('lets one script at a time change what the node has once, and passes on that it failed', async () => {
  const file = join(directory, '.count');
  const body = `count=$(cat ${file} 2>/dev/null); sleep 0.05; echo $((count + 1)) >${file}`;
  await Promise.all(Array.from({ length: 4 }, (_, index) => run(scriptAlone('counts', `run${index}`, { body }))));
  expect(readFileSync(file, 'utf8')).toBe('4\n');
  await expect(run(scriptAlone('counts', 'run1', { body: 'false' }))).rejects.toThrow(/exit code 1/);
  expect(readdirSync(directory)).toEqual(['.count']);
});

/** What real nodes, programs on them and pods can say, in everything that a job shows. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, describe, expect, inject, it } from 'vitest';
import { smokePods } from '../cluster/kubernetes.ts';
import { build } from '../engines.ts';
import { enter, type LabNode, start, stop } from '../lab/index.ts';
import { must } from '../node/people.ts';
import { type ActionOutcome, type Inputs, leftOnNode, type Outcome, push, reach, runAction } from '../shipped.ts';
import { ALL_HOSTILE_TEXTS, harmIn, harmInMarkdown } from './texts.ts';

const lab = inject('lab');
/** No file and no shell has a NUL in its text. */
const WORDS = ALL_HOSTILE_TEXTS.replaceAll('\0', '');
/** Where a node has them, in a home: not where anything is looked for that a run has left. */
const FILE = '/srv/words';

const directory = await mkdtemp(join(tmpdir(), 'kube-sideload-words-'));
afterAll(() => rm(directory, { recursive: true, force: true }));

function expectText(outcome: Outcome | ActionOutcome, said: RegExp): void {
  expect(outcome.code, outcome.log).toBe(1);
  expect(outcome.log).toMatch(said);
  expect(harmIn(outcome.log)).toEqual([]);
  expect(harmIn(JSON.stringify(outcome.outputs))).toEqual([]);
  if ('summary' in outcome) expect(harmInMarkdown(outcome.summary)).toEqual([]);
}

/** The same job as a step of GitHub's and as one of GitLab's. */
async function everywhere(inputs: Inputs): Promise<readonly (Outcome | ActionOutcome)[]> {
  const action = await runAction(inputs, { lab });
  const reports = { 'report-junit': join(directory, 'report.xml'), 'report-json': join(directory, 'report.json') };
  return [action, await push({ ...inputs, ...reports }, { lab, env: { GITLAB_CI: 'true' } })];
}

/** A program in front of the one that a node has, which says what it likes when the words of its call have one of these. */
async function replace(node: LabNode, program: string, when: string): Promise<void> {
  const script = `#!/bin/sh
case " $* " in ${when}) cat ${FILE} >&2; cat ${FILE}; exit 1 ;; esac
exec /usr/bin/${program} "$@"`;
  await must(node, `cat >/usr/local/bin/${program} <<'END'\n${script}\nEND\nchmod 755 /usr/local/bin/${program}`);
}

/** A node that greets every login and says all that a shell can say. */
async function makeHostile(node: LabNode): Promise<void> {
  await enter(node, ['sh', '-c', `cat >${FILE}`], { input: WORDS });
  await must(
    node,
    `echo 'Banner ${FILE}' >/etc/ssh/sshd_config.d/words.conf
[ ! -e /root/.bashrc ] || cp -p /root/.bashrc /root/.bashrc.was
{ echo 'cat ${FILE}; cat ${FILE} >&2'; } >/root/.bashrc`,
  );
  await stop(node, 'sshd');
  await start(node, 'sshd');
}

async function reform(node: LabNode): Promise<void> {
  await must(
    node,
    `rm -f ${FILE} /etc/ssh/sshd_config.d/words.conf /root/.bashrc /usr/local/bin/ctr /usr/local/bin/skopeo /usr/local/bin/docker /usr/local/bin/uname /usr/local/bin/df
[ ! -e /root/.bashrc.was ] || mv /root/.bashrc.was /root/.bashrc`,
  );
  await stop(node, 'sshd');
  await start(node, 'sshd');
}

afterEach(async () => {
  expect(smokePods(lab)).toEqual([]);
  expect(await leftOnNode(lab)).toEqual([]);
});

it('a pod that prints commands, links and escapes before it ends is quoted, and gives none', async () => {
  const words = Buffer.from(WORDS).toString('base64');
  const script = `echo ${words} | /bin/busybox base64 -d | /bin/busybox tee /dev/termination-log; exit 3`;
  build(lab, 'docker', 'talker:1', 'talker', ['/bin/sh', '-c', script]);
  for (const outcome of await everywhere({ ...reach(lab), images: 'docker.io/library/talker:1' })) {
    expectText(outcome, /\[SMOKE_CRASHED\]/);
    expect(outcome.log).toMatch(/log: .*variable more|log: .*KUBE_SIDELOAD_SUCCEEDED=true/);
  }
});

describe('a node whose banner, rc file and programs mean harm', () => {
  it.each([
    [
      'as an image is put there',
      { ctr: '*" import "*', skopeo: '*" copy "*', docker: '*" load "*' },
      /\[IMPORT_FAILED\]/,
    ],
    ['as it is asked what it is', { uname: '*', df: '*' }, /\[[A-Z_]+\]/],
  ] as const)('gives no command: %s', async (_when, programs, said) => {
    build(lab, 'docker', 'quiet:1', `quiet ${Object.keys(programs).join()}`);
    for (const node of lab.nodes) {
      await makeHostile(node);
      for (const [program, when] of Object.entries(programs)) await replace(node, program, when);
    }
    try {
      for (const more of [{}, { 'ssh-transport': 'openssh' }] as const) {
        for (const outcome of await everywhere({
          ...reach(lab),
          ...more,
          images: 'docker.io/library/quiet:1',
          smoke: 'none',
        })) {
          expectText(outcome, said);
        }
      }
    } finally {
      for (const node of lab.nodes) await reform(node);
    }
  });
});

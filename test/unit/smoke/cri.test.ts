import { describe, expect, it } from 'vitest';
import { type CriOptions, judgeCri, removeByCri, runByCri } from '../../../src/smoke/cri.ts';
import type { SmokeResult } from '../../../src/smoke/smoke.ts';
import type { SmokeExpect } from '../../../src/smoke/verdict.ts';
import { type Answer, type AskedScript, answering, FACTS } from '../node/answering.ts';

const IMAGE_ID = `sha256:${'1'.repeat(64)}`;
const OTHER = `sha256:${'2'.repeat(64)}`;

function verdict(outcome: string, said = '', status: object = {}, expected: SmokeExpect = 'started') {
  const own = { imageRef: IMAGE_ID, ...status };
  const sections = { outcome, said, status: JSON.stringify({ status: own }), attempts: '8' };
  return judgeCri(new Map(Object.entries(sections)), IMAGE_ID, expected);
}

/** What crictl 1.36 prints, recorded on containerd, CRI-O and cri-dockerd; shortened. */
const FATAL = 'time="2026-11-24T08:04:41Z" level=fatal msg="';

describe('what a runtime says', () => {
  it.each<[what: string, outcome: string, said: string, code: string]>([
    [
      'a sandbox',
      'sandbox',
      `${FATAL}run pod sandbox: container create failed: write to \`/proc/self/oom_score_adj\`"`,
      'SMOKE_SANDBOX',
    ],
    [
      'its image',
      'sandbox',
      `${FATAL}run pod sandbox: failed to get sandbox image \\"registry.k8s.io/pause:3.10\\""`,
      'SMOKE_SANDBOX_IMAGE',
    ],
    [
      'its network',
      'sandbox',
      `${FATAL}plugin type=\\"bridge\\" failed (add): failed to find plugin: cni"`,
      'SMOKE_NETWORK',
    ],
    [
      'an image',
      'create',
      `${FATAL}creating container: failed to resolve image \\"docker.io/library/app:1\\": not found"`,
      'SMOKE_IMAGE_NEVER_PULL',
    ],
    ['a program', 'start', `${FATAL}exec: \\"/nope\\": stat /nope: no such file or directory"`, 'SMOKE_START'],
    ['a program of crun', 'create', `${FATAL}executable file \`/nope\` not found: No such file"`, 'SMOKE_START'],
    ['a machine', 'start', `${FATAL}exec /app: exec format error"`, 'SMOKE_EXEC_FORMAT'],
    ['nothing that is known', 'surprise', 'what?', 'SMOKE_TIMEOUT'],
    ['nothing', '', '', 'SMOKE_TIMEOUT'],
    ['that it was in the way', 'taken', '', 'SMOKE_TIMEOUT'],
    ['that it still runs', 'timeout', '', 'SMOKE_TIMEOUT'],
  ])('about %s', (_what, outcome, said, code) => {
    const failed = verdict(outcome, said);
    expect(failed).toMatchObject({ state: 'failed', code });
    expect(failed.message).not.toMatch(/level=fatal|\\"/);
  });

  it('passes what runs and what has ended well, and says whose word that is', () => {
    for (const passed of [verdict('running'), verdict('exited', '', { exitCode: 0 })]) {
      expect(passed.state).toBe('passed');
      expect(passed.message).toContain('no kubelet was asked');
    }
  });

  it.each([
    [{ exitCode: 3, reason: 'Error' }, 'SMOKE_CRASHED'],
    [{ exitCode: 137, reason: 'OOMKilled' }, 'SMOKE_OOM'],
    [{ exitCode: 128, reason: 'StartError', message: 'no such file' }, 'SMOKE_START'],
    [{ reason: 'Error' }, 'SMOKE_CRASHED'],
  ])('fails what has ended badly: %j', (status, code) => {
    expect(verdict('exited', '', status)).toMatchObject({ code });
  });

  it.each(['timeout', 'taken', 'surprise', ''])('finds no end in an exit code of what still runs: %j', outcome => {
    // crictl shows one of every container.
    expect(verdict(outcome, '', { exitCode: 0 })).toMatchObject({ code: 'SMOKE_TIMEOUT' });
  });

  it('says what the runtime was asked, and how far it got', () => {
    expect(verdict('create', 'no such image').message).toBe('CreateContainer: no such image');
    expect(verdict('start', 'no such image')).toMatchObject({
      code: 'SMOKE_START',
      message: 'StartContainer: no such image',
    });
    expect(verdict('timeout').message).toBe('last seen: Running');
    expect(verdict('taken', 'gone').message).toMatch(/taken away 8 times .* crictl said at last: gone$/);
    expect(verdict('taken')).toHaveProperty('hint', expect.stringContaining('`smoke: pod`'));
  });

  it('fails what runs on where an end is wanted', () => {
    expect(verdict('running', '', {}, 'completed')).toMatchObject({
      code: 'SMOKE_TIMEOUT',
      message: 'last seen: Running',
    });
  });

  it('fails an end where none is wanted, and another image', () => {
    expect(verdict('exited', '', { exitCode: 0 }, 'running')).toMatchObject({ code: 'SMOKE_ENDED' });
    expect(verdict('running', '', { imageRef: OTHER })).toMatchObject({ code: 'SMOKE_OTHER_IMAGE' });
    expect(verdict('running', '', { imageRef: OTHER.slice('sha256:'.length) })).toMatchObject({
      code: 'SMOKE_OTHER_IMAGE',
    });
    expect(verdict('running', '', { imageRef: `docker.io/library/app@${OTHER}` }).state).toBe('passed');
  });
});

const RUN_ID = 't4y1q2abcdef';
const never = new AbortController().signal;

/** Has a node that answers as the test wants start two images. */
async function started(answer: (script: AskedScript) => Answer, own: Partial<CriOptions> = {}, facts = FACTS) {
  const connection = answering(answer);
  const results: SmokeResult[] = [];
  const targets = ['app', 'db'].map(name => ({
    node: 'w1',
    nodeName: 'w1',
    reference: `docker.io/library/${name}:1`,
    spelling: `${name}:1`,
    imageId: IMAGE_ID,
    user: '',
  }));
  const options: CriOptions = {
    runId: RUN_ID,
    timeoutMs: 60_000,
    command: [],
    expect: 'started',
    signal: never,
    onResult: result => results.push(result),
    provenOn: async () => undefined,
    ...own,
  };
  const error = await runByCri(connection, facts, targets, options).catch(thrown => thrown);
  const isRemoval = ({ text }: AskedScript) => text.includes('take_away "$LABEL"');
  return {
    error,
    codes: results.map(result => result.error?.code),
    results,
    starts: connection.asked.filter(script => !isRemoval(script)),
    removals: connection.asked.filter(isRemoval),
  };
}

const RUNS = { outcome: 'running', status: JSON.stringify({ status: { imageRef: IMAGE_ID } }) };
const CRASHES = {
  outcome: 'exited',
  status: JSON.stringify({ status: { imageRef: IMAGE_ID, exitCode: 3, reason: 'Error' } }),
  log: 'no configuration',
};

describe('starting images by the runtime', () => {
  it('gives each image a verdict of its own, one after the other', async () => {
    const { codes, results, error, starts, removals } = await started(({ text }) =>
      text.includes('"app:1"') ? CRASHES : RUNS,
    );
    expect(error).toBeUndefined();
    expect(codes).toEqual(['SMOKE_CRASHED', undefined]);
    expect(results.map(({ message }) => message)).toEqual([
      expect.stringContaining('exit code 3'),
      expect.stringMatching(/^Running, /),
    ]);
    expect(results[0]?.error?.message).toContain('log: no configuration');
    expect(starts.map(script => script.variable('NAME'))).toEqual([
      `kube-sideload-${RUN_ID}-0`,
      `kube-sideload-${RUN_ID}-1`,
    ]);
    expect(removals).toEqual([]);
  });

  it('tells the node what to start, how long, and what counts', async () => {
    const own = { command: ['/bin/true'], expect: 'completed', timeoutMs: 5001 } as const;
    const { starts } = await started(() => RUNS, own);
    const [first = expect.unreachable()] = starts;
    expect(JSON.parse(first.variable('CONTAINER_CONFIG'))).toMatchObject({
      image: { image: 'app:1' },
      command: ['/bin/true'],
    });
    expect(JSON.parse(first.variable('POD_CONFIG'))).toMatchObject({
      labels: { 'kube-sideload/run': RUN_ID },
      log_directory: `/var/log/kube-sideload-${RUN_ID}-0`,
    });
    expect([first.variable('EXPECT'), first.variable('LIMIT')]).toEqual(['completed', '501']);
    expect([first.variable('CRICTL'), first.variable('SOCKET')]).toEqual(['/usr/bin/crictl', FACTS.criSocket]);
    const plain = (await started(() => RUNS)).starts[0]?.variable('CONTAINER_CONFIG');
    expect(JSON.parse(plain ?? '')).not.toHaveProperty('command');
  });

  it('shows the log of a container that has ended, and of no other', async () => {
    const { results } = await started(() => ({ ...CRASHES, outcome: 'timeout' }));
    expect(results[0]?.error?.message).not.toContain('no configuration');
  });

  it('names what the node has in place of an image that it lacks, and of no other', async () => {
    const missing = { outcome: 'create', said: 'no such image' };
    const names = { names: 'localhost/app:1\nsha256:1\nkube-sideload.invalid/app:1\n<none>' };
    const answer = ({ text }: AskedScript) => (text.includes('section names') ? names : missing);
    const { results } = await started(answer);
    expect(results[0]?.error).toMatchObject({
      code: 'SMOKE_IMAGE_NEVER_PULL',
      message: expect.stringContaining('the node has localhost/app:1, the pod asks for app:1'),
    });
    const mute = await started(({ text }) => (text.includes('section names') ? undefined : missing));
    expect(mute.codes).toEqual(['SMOKE_IMAGE_NEVER_PULL', 'SMOKE_IMAGE_NEVER_PULL']);
    const crashed = await started(({ text }) => (text.includes('section names') ? names : CRASHES));
    expect(crashed.starts).toHaveLength(2);
  });

  it('ends with an error when a sandbox stays, and takes away all that the run has started', async () => {
    const { error, codes, removals } = await started(() => ({ ...RUNS, left: 'abc123' }));
    expect(error).toMatchObject({
      code: 'REMOTE_COMMAND_FAILED',
      message: 'crictl cannot remove the sandbox abc123',
      hint: expect.stringContaining('crictl rmp abc123'),
    });
    expect(codes).toEqual([]);
    expect(removals.map(script => script.variable('LABEL'))).toEqual([`kube-sideload/run=${RUN_ID}`]);
  });

  it('ends with the cancellation, and takes away all that the run has started even so', async () => {
    const { error, removals } = await started(() => RUNS, { signal: AbortSignal.abort('cancelled') });
    expect(error).toBe('cancelled');
    expect(removals).toHaveLength(1);
  });

  it('is refused by a node without crictl', async () => {
    const without = { ...FACTS, tools: { ctr: ['ctr'] } };
    const { error, starts } = await started(() => RUNS, {}, without);
    expect(error).toMatchObject({ code: 'CRICTL_NOT_FOUND' });
    expect(starts).toEqual([]);
    const connection = answering(() => ({ left: 'abc123' }));
    await removeByCri(connection, without, RUN_ID, never);
    expect(connection.asked).toEqual([]);
  });

  it('is undone later with an error when a sandbox stays', async () => {
    await removeByCri(
      answering(() => ({})),
      FACTS,
      RUN_ID,
      never,
    );
    await expect(
      removeByCri(
        answering(() => ({ left: 'abc123' })),
        FACTS,
        RUN_ID,
        never,
      ),
    ).rejects.toMatchObject({
      code: 'REMOTE_COMMAND_FAILED',
    });
  });
});

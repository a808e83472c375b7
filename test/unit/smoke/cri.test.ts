import { describe, expect, it } from 'vitest';
import { judgeCri } from '../../../src/smoke/cri.ts';
import type { SmokeExpect } from '../../../src/smoke/verdict.ts';

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

  it('fails an end where none is wanted, and another image', () => {
    expect(verdict('exited', '', { exitCode: 0 }, 'running')).toMatchObject({ code: 'SMOKE_ENDED' });
    expect(verdict('running', '', { imageRef: OTHER })).toMatchObject({ code: 'SMOKE_OTHER_IMAGE' });
    expect(verdict('running', '', { imageRef: OTHER.slice('sha256:'.length) })).toMatchObject({
      code: 'SMOKE_OTHER_IMAGE',
    });
    expect(verdict('running', '', { imageRef: `docker.io/library/app@${OTHER}` }).state).toBe('passed');
  });
});

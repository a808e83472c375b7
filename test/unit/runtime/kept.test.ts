import { describe, expect, it } from 'vitest';
import { normalise, parseReference } from '../../../src/image/reference.ts';
import { keptNames, parseKept } from '../../../src/runtime/kept.ts';
import { abandonedReferences } from '../../../src/runtime/staging.ts';

const RUN = 't4y1q2abcdef';
const DIGEST = `sha256:${'a'.repeat(64)}`;

describe('a kept name', () => {
  it.each([
    'app',
    'registry.example/team/app:1.2',
    'registry.example:5000/team/app:V1_x-y',
    'localhost/app:1',
    'localhost:5000/app:1',
    'Registry.example/app:1',
    'Registry.Example:5000/app:1',
    '[::1]:5000/app:1',
    `registry.example:5000/app@${DIGEST}`,
    'before/absent:before',
  ])('is a valid reference, and tells the run and the reference: %s', text => {
    const reference = normalise(text);
    const kept = keptNames(RUN, reference) ?? expect.unreachable();
    for (const name of [kept.before, kept.absent]) {
      expect(parseReference(name).registry).toBe('kube-sideload.invalid');
      expect(parseKept(name)).toEqual({ runId: RUN, kept });
    }
  });

  it('is not made when it would be too long for a name', () => {
    expect(keptNames(RUN, `registry.example/${'a'.repeat(220)}:1`)).toBeUndefined();
  });

  it.each([
    `kube-sideload.invalid/${RUN}:0`,
    `kube-sideload.invalid/${RUN}/before:1`,
    `kube-sideload.invalid/${RUN}/after/docker.io/library/app:1`,
    `registry.example/${RUN}/before/docker.io/library/app:1`,
    `kube-sideload.invalid/${RUN}/before/0xzz/app:1`,
    `kube-sideload.invalid/${RUN}/before/docker.io/${'a'.repeat(220)}:1`,
  ])('is not %s', name => {
    expect(parseKept(name)).toBeUndefined();
  });

  it('of this run is not abandoned, as a stage reference is; that of a run long over is', () => {
    const names = ['t4y1q2abcdef', '000001abcdef'].flatMap(run => [
      `kube-sideload.invalid/${run}:0`,
      keptNames(run, 'docker.io/library/app:1')?.before ?? '',
    ]);
    const nowMs = Number.parseInt('t4y1q2', 36) * 1000;
    expect(abandonedReferences(names, RUN, nowMs)).toEqual([names[0], names[2], names[3]]);
  });
});

import { expect, it } from 'vitest';
import type { NodeImage } from '../../../src/node/node.ts';
import { pinImages, unpinImages, unpinOf } from '../../../src/node/pin.ts';
import { type Answer, type AskedScript, answeringNode } from './answering.ts';

const RUN = { id: 't4y1q2abcdef', scratch: '/nowhere', signal: new AbortController().signal };

function node(pins: (script: AskedScript) => Answer, facts: Parameters<typeof answeringNode>[1] = {}) {
  const scripts: AskedScript[] = [];
  const one = answeringNode(script => {
    scripts.push(script);
    return pins(script);
  }, facts);
  const images = ['app:1', 'pause:1'].map(
    reference => ({ reference, isSandbox: reference === 'pause:1' }) as NodeImage,
  );
  return { node: Object.assign(one, { images }), scripts };
}

const isAsking = ({ text }: AskedScript) => text.includes('section "pinned $number"');

it.each([
  ['yes', undefined],
  // Without crictl nobody can say.
  ['unasked', undefined],
  ['', 'PIN_FAILED'],
])('an image counts as pinned when the CRI says %j: %s', async (said, code) => {
  const { node: one, scripts } = node(script => (isAsking(script) ? { 'pinned 0': said } : {}));
  const error = await pinImages(one, RUN).catch(thrown => thrown);
  expect(error?.code).toBe(code);
  expect(one.images[0]?.error?.code).toBe(code);
  expect(one.hasPinned).toBe(true);
  expect(scripts.map(script => script.variable('REFERENCES'))).toEqual(['app:1', 'app:1']);
});

it('a runtime that refuses is an error of the pin', async () => {
  const { node: one } = node(() => undefined);
  await expect(pinImages(one, RUN)).rejects.toMatchObject({ code: 'PIN_FAILED' });
  expect(one.hasPinned).toBe(true);
});

it('a node that has no pins is asked for none', async () => {
  const { node: one, scripts } = node(() => undefined, { runtime: { name: 'docker', version: '28.5.2' } });
  await pinImages(one, RUN);
  await unpinImages(one, ['app:1'], RUN.id, RUN.signal);
  await unpinOf(one, RUN.id, RUN.id, RUN.signal);
  expect([one.hasPinned, scripts]).toEqual([false, []]);
});

import { describe, expect, it } from 'vitest';
import { checkNode, type Expectation, lookLast } from '../../src/check.ts';
import type { SideloadError } from '../../src/errors.ts';
import type { NodeFacts } from '../../src/node/facts.ts';
import { type NodeImage, nodeReport } from '../../src/node/node.ts';
import { type AskedScript, answeringNode, holds } from './node/answering.ts';

const APP = 'docker.io/library/app:1';
const DB = 'docker.io/library/db:1';
const PAUSE = 'registry.k8s.io/pause:3.10';
const AMD64 = { os: 'linux', architecture: 'amd64' } as const;
const ARM64 = { os: 'linux', architecture: 'arm64' } as const;
const RUN = { id: 't4y1q2abcdef', scratch: '/nowhere', signal: new AbortController().signal };

function id(character: string): string {
  return `sha256:${character.repeat(64)}`;
}

function expectation(reference: string, character: string, changes: Partial<Expectation> = {}): Expectation {
  return { reference, variants: [{ platform: AMD64, imageId: id(character) }], isSandbox: false, ...changes };
}

type Held = Parameters<typeof holds>[1];

/** Compares a node that holds these images, and has this record, with what should be there. */
async function checked(
  expectations: readonly Expectation[],
  held: Held,
  { record = '', facts = {} }: { readonly record?: string; readonly facts?: Partial<NodeFacts> } = {},
) {
  const answer = (script: AskedScript) => (script.text.includes('section record') ? { record } : holds(script, held));
  const node = answeringNode(answer, facts);
  const error = await checkNode(node, expectations, 'DRIFT', RUN).then(
    () => undefined,
    (thrown: SideloadError) => thrown,
  );
  return { node, error, drift: node.seen.map(({ drift }) => drift) };
}

describe('a node', () => {
  it('has what it should when image ID and layers are there', async () => {
    const { node, error } = await checked([expectation(APP, 'a')], { [APP]: { imageId: id('a') } });
    expect(error).toBeUndefined();
    expect(nodeReport(node).images).toMatchObject([
      { reference: APP, imageId: id('a'), outcome: 'present', isHeld: true, drift: undefined, error: undefined },
    ]);
  });

  it.each<[what: string, held: Held, drift: string, says: RegExp]>([
    ['nothing', {}, 'missing', /app:1: the runtime does not have it; it should be sha256:a+$/],
    [
      'another image',
      { [APP]: { imageId: id('b') } },
      'other-image',
      /crictl reports image ID sha256:b+, CI built sha256:a+$/,
    ],
    [
      'an image without its layers',
      { [APP]: { imageId: id('a'), unpacked: false } },
      'not-unpacked',
      /not unpacked; it should be sha256:a+$/,
    ],
  ])('differs by %s', async (_what, held, drift, says) => {
    const { node, error } = await checked([expectation(APP, 'a')], held);
    expect(error).toMatchObject({ code: 'DRIFT', message: expect.stringMatching(says) });
    expect(nodeReport(node).images).toMatchObject([
      {
        imageId: id('a'),
        outcome: 'none',
        isHeld: false,
        drift,
        error: { code: 'DRIFT', message: expect.stringMatching(says) },
      },
    ]);
  });

  it('differs when what is there is for other machines', async () => {
    const other = { platform: ARM64, imageId: id('a') };
    const { node, error } = await checked([expectation(APP, 'a', { variants: [other] })], {
      [APP]: { imageId: id('a') },
    });
    expect(error?.message).toBe(`${APP}: it is there for linux/arm64, and the node is linux/amd64`);
    expect(nodeReport(node).images).toMatchObject([{ drift: 'no-platform', imageId: id('a') }]);
  });

  it('is compared with the variant for its own machine', async () => {
    const variants = [
      { platform: ARM64, imageId: id('b') },
      { platform: AMD64, imageId: id('a') },
    ];
    expect((await checked([expectation(APP, 'a', { variants })], { [APP]: { imageId: id('a') } })).drift).toEqual([
      undefined,
    ]);
    expect((await checked([expectation(APP, 'a', { variants })], { [APP]: { imageId: id('b') } })).drift).toEqual([
      'other-image',
    ]);
  });

  it('is told with all that differs, and no more', async () => {
    const { error, drift } = await checked([expectation(APP, 'a'), expectation(DB, 'b'), expectation('x:1', 'c')], {
      [DB]: { imageId: id('b') },
    });
    expect(drift).toEqual(['missing', undefined, 'missing']);
    expect(error?.message.split('\n')).toEqual([expect.stringMatching(/^\S+app:1: /), expect.stringMatching(/^x:1: /)]);
  });

  it.each<[what: string, facts: Partial<NodeFacts>, drift: readonly (string | undefined)[]]>([
    ['the image of its own sandboxes', { sandbox: { reference: PAUSE, isHeld: false } }, ['missing']],
    ['no sandbox image of others', { sandbox: { reference: 'registry.k8s.io/pause:3.9', isHeld: true } }, []],
    ['none where nobody knows it', { sandbox: undefined }, []],
  ])('needs %s', async (_what, facts, drift) => {
    const { error, drift: found } = await checked([expectation(PAUSE, 'a', { isSandbox: true })], {}, { facts });
    expect(found).toEqual(drift);
    expect(error?.code).toBe(drift.length > 0 ? 'DRIFT' : undefined);
  });
});

describe('a pin', () => {
  const line = (reference: string, character: string, pinned = ' pinned') =>
    `${reference} ${id(character)} 1700000000 t4y1q2abcdef${pinned}`;
  it.each<[what: string, record: string, pinned: boolean, drift: string | undefined]>([
    ['is missed where the record has it', line(APP, 'a'), false, 'not-pinned'],
    ['is not missed where it is', line(APP, 'a'), true, undefined],
    ['is not missed where there was none', line(APP, 'a', ''), false, undefined],
    ['of another image is not missed', line(APP, 'b'), false, undefined],
    ['of another name is not missed', line(DB, 'a'), false, undefined],
  ])('%s', async (_what, record, pinned, drift) => {
    const held = { [APP]: { imageId: id('a'), pinned } };
    expect((await checked([expectation(APP, 'a')], held, { record })).drift).toEqual([drift]);
  });

  it('is not looked for where the user may not read the record', async () => {
    const facts = {
      privilege: 'user',
      runtime: { name: 'cri-o', version: '1.36.2' },
      tools: { podman: ['podman'] },
    } as const;
    const { node } = await checked([expectation(APP, 'a')], {}, { facts });
    expect(node.connection).toMatchObject({ asked: [expect.anything()] });
  });
});

/** Looks last at a node of a push to which two images were sent, and which holds these now. */
async function lookedAt(held: Held, { hasPinned = false } = {}) {
  const node = answeringNode(script => holds(script, held));
  node.hasPinned = hasPinned;
  node.images = [
    { reference: APP, image: { imageId: id('a'), platform: AMD64 }, spelling: APP, isSandbox: false, outcome: 'sent' },
    {
      reference: PAUSE,
      image: { imageId: id('b'), platform: AMD64 },
      spelling: PAUSE,
      isSandbox: true,
      outcome: 'present',
    },
  ].map(image => ({ ...image, estimate: { bytes: 0, isExact: true }, bytesSent: 0 }) as unknown as NodeImage);
  const error = await lookLast(node, RUN).then(
    () => undefined,
    (thrown: SideloadError) => thrown,
  );
  return { node, error, images: nodeReport(node).images };
}

describe('the last look of a push', () => {
  const pause = { imageId: id('b') };

  it('asks once for everything, and finds it', async () => {
    const { node, error, images } = await lookedAt({ [APP]: { imageId: id('a') }, [PAUSE]: pause });
    expect(error).toBeUndefined();
    expect(images.map(({ outcome, isHeld, drift }) => [outcome, isHeld, drift])).toEqual([
      ['sent', true, undefined],
      ['present', true, undefined],
    ]);
    expect(node.connection).toMatchObject({ asked: [expect.anything()] });
  });

  it.each<[what: string, held: Held, outcome: string, says: RegExp]>([
    ['was moved', { [APP]: { imageId: id('c') } }, 'changed', /app:1: crictl reports .*:c+, CI built sha256:a+$/],
    ['was removed', {}, 'changed', /app:1: the runtime does not have it; it should be sha256:a+$/],
    ['has lost its layers', { [APP]: { imageId: id('a'), unpacked: false } }, 'changed', /it should be sha256:a+$/],
    [
      'is pinned no more',
      { [APP]: { imageId: id('a'), pinned: false } },
      'sent',
      /it was pinned, and is not any more$/,
    ],
  ])('says of an image that %s what it is and what it should be', async (_what, held, outcome, says) => {
    const { error, images } = await lookedAt({ ...held, [PAUSE]: pause }, { hasPinned: true });
    expect(error).toMatchObject({ code: 'CHANGED_SINCE', message: expect.stringMatching(says) });
    expect(images).toMatchObject([
      { outcome, isHeld: false, error: { code: 'CHANGED_SINCE', message: expect.stringMatching(says) } },
      { outcome: 'present', isHeld: true, error: undefined },
    ]);
  });

  it('counts no more when a later one gets no answer', async () => {
    const { node } = await lookedAt({ [APP]: { imageId: id('a') }, [PAUSE]: pause });
    node.connection = undefined;
    await expect(lookLast(node, RUN)).rejects.toThrow();
    expect(nodeReport(node).images.map(({ isHeld }) => isHeld)).toEqual([false, false]);
  });

  it('is no word about what was put back after it', async () => {
    const { node } = await lookedAt({ [APP]: { imageId: id('a') }, [PAUSE]: pause });
    for (const image of node.images) image.outcome = 'restored';
    expect(nodeReport(node).images.map(({ isHeld }) => isHeld)).toEqual([false, false]);
  });
});

describe('a name that pods write short, on a node with CRI-O', () => {
  const crio = { runtime: { name: 'cri-o', version: '1.36.2' } } as const;
  const config = 'system /etc/containers/registries.conf\nread\nunqualified-search-registries = ["registry.example"]';
  const short = expectation(APP, 'a', { spellings: ['app:1'] });

  async function asked(word: string, held: readonly string[]) {
    const node = answeringNode(script => {
      if (script.text.includes('tell system')) return { 'file 0': config, 'name 0': word };
      const references = script.variable('REFERENCES').split('\n');
      const sections = references.map((reference, number): Record<string, string> => {
        const asked = script.variable('SPELLINGS').split('\n')[number] ?? '';
        const answer = { status: { id: 'a'.repeat(64) } };
        return held.includes(reference)
          ? {
              [`config ${number}`]: JSON.stringify(AMD64),
              [`cri ${number}`]: held.includes(asked) ? JSON.stringify(answer) : '',
            }
          : {};
      });
      return Object.assign({}, ...sections);
    }, crio);
    const error = await checkNode(node, [short], 'DRIFT', RUN).then(
      () => undefined,
      (thrown: SideloadError) => thrown,
    );
    return { error, drift: node.seen.map(({ spelling, reference, drift }) => [reference, spelling, drift]) };
  }

  it('is missing when what it means there is, although the full name is there', async () => {
    const { error, drift } = await asked('absent', [APP]);
    expect(error?.message).toContain('registry.example/app:1: the runtime does not have it');
    expect(drift).toEqual([
      [APP, APP, undefined],
      ['registry.example/app:1', 'app:1', 'missing'],
    ]);
  });

  it('is missing when CRI-O does not find it by the short name, whatever lies under the reference', async () => {
    const { drift } = await asked('absent', [APP, 'registry.example/app:1']);
    expect(drift.map(([, , one]) => one)).toEqual([undefined, 'missing']);
    expect((await asked('held', [APP, 'registry.example/app:1', 'app:1'])).error).toBeUndefined();
  });

  it('is missing when CRI-O makes nothing of it', async () => {
    const { error, drift } = await asked('refused rpc error: desc = short name mode is enforcing', [APP]);
    expect(error?.message).toMatch(/no pod can start it by the name app:1: short name mode is enforcing/);
    expect(drift).toEqual([[APP, APP, 'missing']]);
  });
});

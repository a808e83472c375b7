import { describe, expect, it } from 'vitest';
import { SideloadError } from '../../../src/errors.ts';
import type { NodeFacts } from '../../../src/node/facts.ts';
import type { NodeImage } from '../../../src/node/node.ts';
import { promoteImages, restoreImages, settleLeft } from '../../../src/node/promote.ts';
import { keptNames } from '../../../src/runtime/kept.ts';
import type { Settings } from '../../../src/settings.ts';
import type { SshTransport } from '../../../src/ssh/transport.ts';
import { type AskedScript, type answering, answeringNode, holds } from './answering.ts';

const RUN = { id: 't4y1q2abcdef', scratch: '/nowhere', signal: new AbortController().signal };
const APP = 'docker.io/library/app:1';
const STAGE = `kube-sideload.invalid/${RUN.id}:0`;
const KEPT = keptNames(RUN.id, APP) ?? expect.unreachable();

function id(character: string): string {
  return `sha256:${character.repeat(64)}`;
}

type Kind = 'keep' | 'tag' | 'remove' | 'inspect' | 'restore' | 'lock' | 'forget';

function kindOf({ text }: AskedScript): Kind {
  if (text.includes('section "restored $number"')) return 'restore';
  if (text.includes('section "lock $number"')) return 'lock';
  if (text.includes('section "manifest $number"')) return 'inspect';
  if (text.includes('end_imports "$reference"')) return 'remove';
  if (text.includes('! has_name "$reference" ||')) return 'forget';
  return text.includes('while [ $# -gt 3 ]') ? 'keep' : 'tag';
}

interface Behaviour {
  /** What the reference names, once each time that it is asked for; the last one again and again. */
  readonly names: readonly (string | undefined)[];
  readonly restored?: string;
  readonly locked?: string;
  readonly facts?: Partial<NodeFacts>;
  readonly image?: Partial<NodeImage>;
}

/** A node with one image of `a`, staged unless told. */
function node({ names, restored = 'before', locked = 'taken', facts = {}, image = {} }: Behaviour) {
  const kinds: Kind[] = [];
  const one = answeringNode(script => {
    const kind = kindOf(script);
    kinds.push(kind);
    if (kind === 'restore') return { 'restored 0': restored };
    if (kind === 'lock') return { 'lock 0': locked };
    if (kind !== 'inspect') return {};
    const now = names[Math.min(kinds.filter(each => each === 'inspect').length, names.length) - 1];
    return holds(script, {
      ...(now !== undefined && { [APP]: { imageId: id(now) } }),
      [KEPT.before]: { imageId: id('b') },
    });
  }, facts);
  const platform = { os: 'linux', architecture: 'amd64' };
  one.images = [
    {
      reference: APP,
      spelling: APP,
      image: { imageId: id('a'), platform },
      stage: STAGE,
      hasMoved: false,
      outcome: 'none',
      error: undefined,
      ...image,
    } as NodeImage,
  ];
  return { node: one, kinds };
}

const never = async () => expect.unreachable('nothing is to be sent');

describe('a reference that moves', () => {
  it('is kept before, and asked for after', async () => {
    const { node: one, kinds } = node({ names: ['a'] });
    await promoteImages(one, { atomic: true }, RUN, never);
    expect(kinds).toEqual(['keep', 'tag', 'inspect']);
    const [keep, tag] = (one.connection as ReturnType<typeof answering>).asked;
    expect(keep?.variable('REFERENCES').split('\n')).toEqual([STAGE, APP, KEPT.before, KEPT.absent]);
    expect(tag?.variable('REFERENCES').split('\n')).toEqual([STAGE, APP]);
    expect(one.kept).toMatchObject([KEPT]);
    expect(one.images[0]).toMatchObject({ hasMoved: true, outcome: 'sent', error: undefined });
  });

  it.each([
    ['another image', 'b', /in the end: crictl reports image ID sha256:b+, CI built sha256:a+$/],
    ['nothing', undefined, /in the end: the runtime does not have it$/],
  ])('and names %s afterwards is an error, although every command ended well', async (_what, name, message) => {
    const { node: one } = node({ names: [name] });
    await expect(promoteImages(one, { atomic: true }, RUN, never)).rejects.toMatchObject({
      code: 'VERIFY_FAILED',
      message: expect.stringMatching(message),
    });
    expect(one.images[0]).toMatchObject({ hasMoved: true, outcome: 'none', error: { code: 'VERIFY_FAILED' } });
  });

  it('is not kept with `atomic: false`', async () => {
    const { node: one, kinds } = node({ names: ['a'] });
    await promoteImages(one, { atomic: false }, RUN, never);
    expect(kinds).toEqual(['tag', 'inspect']);
    expect(one.kept).toEqual([]);
  });
});

describe('an image that the node had', () => {
  const image = { stage: undefined, outcome: 'present' } as const;

  it('does not move, and is asked for all the same', async () => {
    const { node: one, kinds } = node({ names: ['a'], image });
    await promoteImages(one, { atomic: true }, RUN, never);
    expect(kinds).toEqual(['inspect']);
    expect(one.images[0]?.outcome).toBe('present');
  });

  it('is sent when another job has moved its name since, and fails when it is away even then', async () => {
    const stageAgain = async (away: readonly NodeImage[]) => {
      expect(away.map(({ reference }) => reference)).toEqual([APP]);
      one.images = one.images.map(each => ({ ...each, stage: STAGE }));
    };
    const { node: one, kinds } = node({ names: ['b', 'a'], image });
    await promoteImages(one, { atomic: true }, RUN, stageAgain);
    expect(kinds).toEqual(['inspect', 'keep', 'tag', 'inspect']);
    expect(one.images[0]?.outcome).toBe('sent');
    const again = node({ names: ['b'], image });
    await expect(promoteImages(again.node, { atomic: true }, RUN, async () => {})).rejects.toMatchObject({
      code: 'VERIFY_FAILED',
    });
  });
});

describe('a reference that is put back', () => {
  const settings = {} as Settings;
  const ssh = {} as SshTransport;
  const moved = { hasMoved: true, outcome: 'sent' } as const;

  async function restored(behaviour: Behaviour, changes: object = {}) {
    const { node: one, kinds } = node({ image: moved, ...behaviour });
    Object.assign(one, { kept: [KEPT], lock: { references: [APP], askedAtMs: 0 }, ...changes });
    const said: string[] = [];
    await restoreImages(one, settings, ssh, RUN.id, line => said.push(line));
    return { node: one, kinds, said, image: one.images[0] };
  }

  it('counts as such when it names again what was kept, and only then', async () => {
    const { node: one, image, kinds, said } = await restored({ names: ['b'] });
    expect(image).toMatchObject({ outcome: 'restored', error: undefined });
    expect(one.error).toBeUndefined();
    expect(said).toEqual([`w1: ${APP} is again ${id('b')}`]);
    expect(kinds).toEqual(['lock', 'inspect', 'restore', 'inspect', 'forget']);
    const { asked } = one.connection as ReturnType<typeof answering>;
    expect(asked[2]?.variable('REFERENCES').split('\n')).toEqual([APP, KEPT.before, KEPT.absent]);
  });

  it.each<[what: string, behaviour: Behaviour, message: RegExp]>([
    ['it still names the new image', { names: ['a'] }, /what it named before is kept as kube-sideload\.invalid/],
    ['the node could not move it', { names: ['b'], restored: '' }, /is kept as kube-sideload\.invalid/],
    ['it was not there before, and cannot go', { names: ['a'], restored: 'absent' }, /it cannot be removed$/],
    ['another run has locked it since', { names: ['b'], locked: 'held other1 1700000000' }, /run other1 has locked it/],
  ])('is an error of its own when %s, and what was kept stays', async (_what, behaviour, message) => {
    const { node: one, image, kinds } = await restored(behaviour);
    expect(image).toMatchObject({
      outcome: 'sent',
      error: { code: 'RESTORE_FAILED', message: expect.stringMatching(message) },
    });
    expect(one.error?.code).toBe('RESTORE_FAILED');
    expect(kinds).not.toContain('forget');
  });

  it('that cannot be put back leaves what the job failed of first, and is told besides', async () => {
    const crashed = new SideloadError('SMOKE_CRASHED', 'exit code 1');
    const pulled = new SideloadError('PULL_FORCED', 'ErrImagePull');
    const { node: one } = await restored({ names: ['a'], image: { ...moved, error: pulled } }, { error: crashed });
    expect([one.error, ...one.otherErrors].map(error => error?.code)).toEqual([
      'SMOKE_CRASHED',
      'PULL_FORCED',
      'RESTORE_FAILED',
    ]);
  });

  it('is gone again when it was not there before', async () => {
    const { image, said } = await restored({ names: [undefined], restored: 'absent' });
    expect(image?.outcome).toBe('restored');
    expect(said).toEqual([`w1: ${APP} is gone again, as before`]);
  });

  it('is not, when somebody else has given it to another image since, and that is an error', async () => {
    const { node: one, image, kinds, said } = await restored({ names: ['c'] });
    const message = `${APP} is not put back: it names ${id('c')}, which somebody else has put there meanwhile`;
    expect(image).toMatchObject({ outcome: 'changed', error: { code: 'CHANGED_SINCE', message } });
    expect(one.error?.code).toBe('CHANGED_SINCE');
    expect(said).toEqual([`w1: ${message}`]);
    expect(kinds).toEqual(['lock', 'inspect', 'forget']);
  });

  it('is an error when its name was too long to be kept', async () => {
    const { image } = await restored({ names: ['a'] }, { kept: [], lock: undefined });
    expect(image?.error?.message).toMatch(/its name is too long to be kept$/);
  });

  it('is left as it is by a user who can move no name', async () => {
    const facts = { privilege: 'user', runtime: { name: 'cri-o', version: '1.36.2' } } as const;
    const { image, kinds } = await restored({ names: ['a'], facts });
    expect([image?.outcome, kinds]).toEqual(['sent', []]);
  });
});

describe('what a run that was killed has kept', () => {
  const staged = [KEPT.before, keptNames('0000otherrun', APP)?.before ?? '', STAGE];

  async function settled(isSettled: boolean, behaviour: Behaviour) {
    const { node: one, kinds } = node({ ...behaviour, facts: { staged } });
    const said: string[] = [];
    const error = await settleLeft(one, RUN.id, isSettled, RUN.signal, line => said.push(line)).catch(thrown => thrown);
    return { kinds, said, error };
  }

  it('is put back, and let go', async () => {
    const { kinds, error } = await settled(false, { names: ['b'] });
    expect(kinds).toEqual(['lock', 'restore', 'inspect', 'forget']);
    expect(error).toBeUndefined();
  });

  it('is let go alone when the run had ended', async () => {
    expect((await settled(true, { names: ['a'] })).kinds).toEqual(['lock', 'forget']);
  });

  it('is left to the run that has locked it since', async () => {
    const { kinds, said } = await settled(false, { names: ['a'], locked: 'held other1 1700000000' });
    expect(kinds).toEqual(['lock']);
    expect(said).toEqual([`w1: ${APP} is not put back: run other1 has locked it since`]);
  });

  it('stays where it cannot be put back', async () => {
    const { kinds, error } = await settled(false, { names: ['a'] });
    expect(error?.code).toBe('RESTORE_FAILED');
    expect(kinds).not.toContain('forget');
  });
});

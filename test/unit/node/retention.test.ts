import { describe, expect, it } from 'vitest';
import type { Node, NodeImage } from '../../../src/node/node.ts';
import { forgetNoted, noteImages, retainImages } from '../../../src/node/retention.ts';
import { type Answer, type AskedScript, answeringNode, holds } from './answering.ts';

const RUN = { id: 't4y1q2abcdef', scratch: '/nowhere', signal: new AbortController().signal };
const APP = 'docker.io/library/app';

function id(character: string): string {
  return `sha256:${character.repeat(64)}`;
}

const line = (tag: string, pinned = '') => `${APP}:${tag} ${id(tag)} 1700000000 t4y1q2abcdef${pinned}`;

function kindOf({ text }: AskedScript): 'record' | 'containers' | 'change' | 'inspect' | 'names' | 'unpin' | 'forget' {
  if (text.includes('section record')) return 'record';
  if (text.includes('section podman')) return 'containers';
  if (text.includes('\nADDED=')) return 'change';
  if (text.includes('unpin $REFERENCES')) return 'unpin';
  if (text.includes('section "name $number"')) return 'names';
  return text.includes('section "manifest $number"') ? 'inspect' : 'forget';
}

interface Behaviour {
  readonly record?: readonly string[];
  /** Whether what is to go does. */
  readonly forgets?: boolean | 'one';
  /** What containers were made from, as Docker tells. */
  readonly used?: string;
  readonly containers?: Answer;
  /** Names of which the runtime cannot say what they name. */
  readonly unreadable?: readonly string[];
}

/** A node that holds three releases, and more names for them by somebody else. */
function node({
  record = ['1', '2', '3'].map(tag => line(tag)),
  forgets = true,
  used = '',
  containers,
  unreadable = [],
}: Behaviour = {}) {
  const kinds: string[] = [];
  const held: Record<string, { readonly imageId: string }> = {
    ...Object.fromEntries(['1', '2', '3'].map(tag => [`${APP}:${tag}`, { imageId: id(tag) }])),
    'docker.io/library/theirs:1': { imageId: id('1') },
  };
  const changes: AskedScript[] = [];
  const one = answeringNode((script): Answer => {
    const kind = kindOf(script);
    kinds.push(kind);
    switch (kind) {
      case 'record':
        return { record: record.join('\n') };
      case 'containers':
        return containers ?? { docker: used };
      case 'inspect':
        return holds(script, held);
      case 'names': {
        const asked = script.variable('REFERENCES').split('\n');
        const there = [...Object.keys(held), ...unreadable];
        return Object.fromEntries(
          asked.flatMap((name, number) => (there.includes(name) ? [[`name ${number}`, '']] : [])),
        );
      }
      case 'change':
        changes.push(script);
        return {};
      case 'unpin':
        return {};
      case 'forget':
        if (forgets === 'one') {
          delete held[`${APP}:1`];
          return undefined;
        }
        for (const name of forgets ? script.variable('REFERENCES').split('\n') : []) delete held[name];
        return {};
    }
  });
  return { node: one, kinds, changes };
}

const OPTIONS = { keep: 1, repositories: undefined, isDryRun: false };
const fates = ({ retention }: Node) => retention?.map(({ fate }) => fate);

describe('old releases', () => {
  it('go, and then lose their lines', async () => {
    const { node: one, kinds, changes } = node();
    await retainImages(one, OPTIONS, RUN);
    expect(fates(one)).toEqual(['removed', 'removed', 'kept']);
    expect(kinds).toEqual(['record', 'containers', 'inspect', 'forget', 'names', 'change']);
    expect(changes[0]?.variable('DROPPED').split('\n')).toEqual([line('1'), line('2')]);
  });

  it('that are gone lose their lines, and one of which nobody can say what it names does not', async () => {
    const record = [line('0'), line('3')];
    const gone = node({ record });
    await retainImages(gone.node, OPTIONS, RUN);
    expect(fates(gone.node)).toEqual(['gone', 'kept']);
    expect(gone.changes[0]?.variable('DROPPED')).toBe(line('0'));
    const unread = node({ record, unreadable: [`${APP}:0`] });
    await expect(retainImages(unread.node, OPTIONS, RUN)).rejects.toMatchObject({
      code: 'REMOTE_COMMAND_FAILED',
      message: `named, and nobody can say what: ${APP}:0`,
    });
    expect(unread.changes).toEqual([]);
  });

  it('are not touched by a dry run', async () => {
    const { node: one, kinds } = node();
    await retainImages(one, { ...OPTIONS, isDryRun: true }, RUN);
    expect(fates(one)).toEqual(['removable', 'removable', 'kept']);
    expect(kinds).toEqual(['record', 'containers', 'inspect']);
  });

  it('that are there all the same are an error, and keep their lines', async () => {
    const { node: one, kinds } = node({ forgets: false });
    await expect(retainImages(one, OPTIONS, RUN)).rejects.toMatchObject({
      code: 'REMOTE_COMMAND_FAILED',
      message: `removed, and there all the same: ${APP}:1, ${APP}:2`,
    });
    expect(fates(one)).toEqual(['removable', 'removable', 'kept']);
    expect(kinds).not.toContain('change');
  });

  it('of which one has gone when the runtime refused are told apart', async () => {
    const { node: one, kinds } = node({ forgets: 'one' });
    await expect(retainImages(one, OPTIONS, RUN)).rejects.toMatchObject({ code: 'REMOTE_COMMAND_FAILED' });
    expect(fates(one)).toEqual(['removed', 'removable', 'kept']);
    expect(kinds).not.toContain('change');
  });

  it('stay when a container was made from them, by any name', async () => {
    const { node: one } = node({ used: `docker.io/library/theirs:1\n${APP}:2` });
    await retainImages(one, OPTIONS, RUN);
    expect(fates(one)).toEqual(['in-use', 'in-use', 'kept']);
  });

  it('stay when nobody can say what containers were made from', async () => {
    const silent = node({ containers: { cri: 'no JSON' } });
    await expect(retainImages(silent.node, OPTIONS, RUN)).rejects.toMatchObject({ code: 'REMOTE_COMMAND_FAILED' });
    expect(silent.kinds).toEqual(['record', 'containers']);
  });

  it('of other repositories are not asked for', async () => {
    const { node: one, kinds } = node();
    await retainImages(one, { ...OPTIONS, repositories: new Set(['docker.io/library/db']) }, RUN);
    expect(fates(one)).toEqual([]);
    expect(kinds).toEqual(['record']);
  });

  it('lose their pins first, if they have any', async () => {
    const { node: one, kinds } = node({ record: [line('1', ' pinned'), line('2'), line('3')] });
    await retainImages(one, OPTIONS, RUN);
    expect(kinds.indexOf('unpin')).toBe(kinds.indexOf('forget') - 1);
  });
});

describe('the record of a node', () => {
  const image = (tag: string, outcome: NodeImage['outcome'], isSandbox = false) =>
    ({ reference: `${APP}:${tag}`, image: { imageId: id(tag) }, outcome, isSandbox }) as NodeImage;

  /** What is written into the record of a node by a run that ended with these images. */
  async function noted(images: readonly NodeImage[], record: readonly string[] = []) {
    const { node: one, changes } = node({ record });
    Object.assign(one, { images });
    expect(await noteImages(one, RUN)).toBeUndefined();
    return changes.flatMap(script =>
      script
        .variable('ADDED')
        .split('\n')
        .map(text => text.split(' ')[0]),
    );
  }

  it('has what was sent, and no sandbox image and nothing that failed', async () => {
    const images = [image('1', 'sent'), image('2', 'none'), image('3', 'sent', true)];
    expect(await noted(images)).toEqual([`${APP}:1`]);
  });

  it('has what was there only when it had put it there, under this name and with this content', async () => {
    expect(await noted([image('1', 'present')])).toEqual([]);
    expect(await noted([image('1', 'present')], [line('1')])).toEqual([`${APP}:1`]);
    expect(await noted([image('1', 'present')], [line('2'), line('1').replace(id('1'), id('2'))])).toEqual([]);
  });

  it('says again what it said, once what was put there has been put back, and of nothing else', async () => {
    const old = [`${APP}:1 ${id('9')} 1600000000 t0y1q2abcdef pinned`, `${APP}:3 ${id('8')} 1600000000 t0y1q2abcdef`];
    const { node: one, changes } = node({ record: old });
    Object.assign(one, { images: ['1', '2', '3'].map(tag => image(tag, 'sent')) });
    await noteImages(one, RUN);
    await forgetNoted(one, reference => !reference.endsWith(':3'), RUN.signal);
    const [noting, undoing] = changes;
    expect(undoing?.variable('ADDED').split('\n')).toEqual([old[0]]);
    expect(undoing?.variable('DROPPED').split('\n')).toEqual(noting?.variable('ADDED').split('\n').slice(0, 2));
    await forgetNoted(one, () => true, RUN.signal);
    expect(changes).toHaveLength(2);
  });

  it('is not written by a user who may not', async () => {
    const one = answeringNode(() => undefined, { privilege: 'user' });
    expect(await noteImages(one, RUN)).toBe('the user may not write it');
    expect(
      await noteImages(
        answeringNode(() => undefined),
        RUN,
      ),
    ).toContain('no, says the node');
  });
});

import { describe, expect, it } from 'vitest';
import { askShortNames, meaningOf, namesOn, parseShortNames, type ShortNames } from '../../../src/node/short-names.ts';
import { type Answer, answeringNode } from './answering.ts';

const CRIO = { runtime: { name: 'cri-o', version: '1.36.2' } } as const;
const FULL = 'docker.io/library/app:1';
const SEARCH = 'unqualified-search-registries = ["registry.example", "docker.io"]';

function parsed(sections: Readonly<Record<string, string>>, names: readonly string[] = ['app:1']): ShortNames {
  return parseShortNames(new Map(Object.entries(sections)), names, CRIO);
}

const image = (id: string) => ({ variants: [{ imageId: id }] });
const written = (reference: string, spellings: readonly string[], id = 'a') => ({
  image: image(id),
  reference,
  spellings,
});

describe('what a short name is on a node with CRI-O', () => {
  const files = { 'file 0': `system /etc/containers/registries.conf\nread\n${SEARCH}`, 'file 1': 'crio /etc/x\nread' };

  it('is the first of several for one that takes the first', () => {
    expect(meaningOf('app:1', parsed({ ...files, 'name 0': 'absent' }))).toEqual({
      reference: 'registry.example/app:1',
    });
    expect(meaningOf('app:1', parsed({ ...files, 'name 0': 'held' }))).toEqual({ reference: 'registry.example/app:1' });
  });

  it('is nothing where CRI-O says so, in its own words, whatever its files say', () => {
    const said =
      'refused time="x" level=fatal msg="no such image: rpc error: code = Unknown desc = short name mode is enforcing, but image name app:1 returns ambiguous list"';
    expect(meaningOf('app:1', parsed({ ...files, 'name 0': said }))).toEqual({
      refused: 'short name mode is enforcing, but image name app:1 returns ambiguous list',
    });
  });

  it('is nothing where CRI-O takes it for a name by rules that nobody has seen', () => {
    expect(meaningOf('app:1', parsed({ 'name 0': 'absent' }))).toEqual({
      refused: expect.stringMatching(/no unqualified-search-registries; CRI-O itself takes it for a name/),
    });
  });

  it('is by its files for a user who may not ask CRI-O: enforcing unless they say something else', () => {
    expect(meaningOf('app:1', parsed(files))).toMatchObject({ refused: expect.stringContaining('enforcing') });
    const disabled = { ...files, 'file 1': 'crio /etc/x\nread\n[crio.image]\nshort_name_mode = "disabled"' };
    expect(meaningOf('app:1', parsed(disabled))).toEqual({ reference: 'registry.example/app:1' });
  });

  it('is in doubt while a file that decides too is not for the user, and not for one that is absent', () => {
    const unread = {
      ...files,
      'file 2': 'answered /var/cache/x\nunread',
      'file 3': 'own /root/x\nabsent',
      'name 0': 'absent',
    };
    expect(meaningOf('app:1', parsed(unread))).toEqual({
      reference: 'registry.example/app:1',
      doubt: '/var/cache/x may not be read',
    });
    expect(meaningOf('quay.io/app:1', parsed(unread))).toEqual({ reference: 'quay.io/app:1' });
  });

  it('takes nothing else that a node says for a file', () => {
    const { rules, unread } = parsed({ 'file 0': `other /x\nread\n${SEARCH}`, file: `system /x\nread\n${SEARCH}` });
    expect(rules.searchRegistries).toEqual([]);
    expect(unread).toEqual([]);
  });
});

describe('the names that an image gets on a node', () => {
  it('are the full one, with what the user writes for it, where every runtime agrees', () => {
    expect(namesOn([written(FULL, ['app:1', FULL])], undefined)).toEqual({
      names: [{ image: image('a'), reference: FULL, spelling: 'app:1' }],
      faults: [],
    });
  });

  const shortNames: ShortNames = {
    rules: { searchRegistries: ['registry.example'], aliases: new Map([['app', 'docker.io/app']]) },
    unread: [],
    answers: new Map([
      ['app:1', { refusal: undefined }],
      ['db:1', { refusal: undefined }],
      ['bad:1', { refusal: 'ambiguous' }],
    ]),
  };
  const DB = 'docker.io/library/db:1';

  it('are one where a short name means the full one, and a second where it does not', () => {
    const { names } = namesOn([written(FULL, ['app:1']), written(DB, ['db:1'], 'b')], shortNames);
    expect(names.map(({ reference, spelling }) => [reference, spelling])).toEqual([
      [FULL, 'app:1'],
      [DB, DB],
      ['registry.example/db:1', 'db:1'],
    ]);
  });

  it('are never those of another image of the run', () => {
    const other = written('registry.example/db:1', ['registry.example/db:1'], 'b');
    const { names, faults } = namesOn([written(DB, ['db:1'], 'a'), other], shortNames);
    expect(names.map(({ reference }) => reference)).toEqual([DB, 'registry.example/db:1']);
    expect(faults).toMatchObject(
      [{ spelling: 'db:1', kind: 'refused', why: /another image of this run/ }].map(one => ({
        ...one,
        why: expect.stringMatching(one.why),
      })),
    );
    expect(namesOn([written(DB, ['db:1'], 'b'), other], shortNames).faults).toEqual([]);
  });

  it('are the full one alone where a short one leads nowhere, and where it is not certain the fault says who proves it', () => {
    const { names, faults } = namesOn([written('docker.io/library/bad:1', ['bad:1'])], shortNames);
    expect(names.map(({ reference }) => reference)).toEqual(['docker.io/library/bad:1']);
    expect(faults).toEqual([
      { spelling: 'bad:1', reference: 'docker.io/library/bad:1', why: 'ambiguous', kind: 'refused' },
    ]);
    const doubtful = { ...shortNames, unread: ['/x may not be read'] };
    expect(namesOn([written(FULL, ['app:1'])], doubtful).faults).toMatchObject([{ kind: 'doubtful' }]);
    expect(namesOn([written(FULL, ['app:1'])], { ...doubtful, answers: new Map() }).faults).toMatchObject([
      { kind: 'unproven' },
    ]);
  });
});

describe('asking', () => {
  const ask = async (runtime: 'cri-o' | 'containerd', names: readonly string[]) => {
    let asked = '';
    const answer = ({ variable }: { variable(name: string): string }): Answer => {
      asked = variable('REFERENCES');
      return {};
    };
    await askShortNames(
      answeringNode(answer, { runtime: { name: runtime, version: '1' } }),
      names,
      new AbortController().signal,
    );
    return asked;
  };

  it('is for short names alone, each once, and for CRI-O alone', async () => {
    expect(await ask('cri-o', ['app:1', FULL, 'app:1', 'team/app'])).toBe('app:1\nteam/app');
    expect(await ask('cri-o', [FULL, 'localhost/app'])).toBe('');
    expect(await ask('containerd', ['app:1'])).toBe('');
  });
});

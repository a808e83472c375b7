import { describe, expect, it } from 'vitest';
import { FILE_MAX_BYTES, type FileKind, readRules } from '../../../src/image/registries-conf.ts';

type Texts = Partial<Record<FileKind, string | readonly (string | undefined)[] | undefined>>;

function rulesOf(texts: Texts, version = '1.36.2') {
  const files = Object.entries(texts).flatMap(([kind, given]) =>
    (Array.isArray(given) ? given : [given]).map((text: string | undefined, number) => ({
      kind: kind as FileKind,
      path: `/${kind}/${number}`,
      text,
    })),
  );
  const { rules, unread } = readRules(files, version);
  return { ...rules, aliases: Object.fromEntries(rules.aliases ?? []), unread };
}

const search = (...registries: readonly string[]) => `unqualified-search-registries = ${JSON.stringify(registries)}\n`;
const mode = (name: string) => `[crio.image]\nshort_name_mode = "${name}"\n`;

describe('the search registries', () => {
  it.each<[what: string, texts: Texts, found: readonly string[]]>([
    ['none without any file', {}, []],
    ['those of registries.conf', { system: search('quay.io', 'docker.io/') }, ['quay.io', 'docker.io']],
    ['those of its first version', { system: '[registries.search]\nregistries = ["quay.io"]\n' }, ['quay.io']],
    [
      'those of the last drop-in that has any',
      { system: search('a.io'), 'system-drop-in': [search('b.io'), search('c.io'), '[aliases]\n'] },
      ['c.io'],
    ],
    ['none where a drop-in takes them away', { system: search('a.io'), 'system-drop-in': search() }, []],
    [
      'those of root’s own file, which takes the place of the system’s and of its drop-ins',
      { system: search('a.io'), 'system-drop-in': search('b.io'), own: search('c.io') },
      ['c.io'],
    ],
    [
      'those of root’s own drop-ins, which come after the system’s',
      { system: search('a.io'), 'system-drop-in': search('b.io'), 'own-drop-in': search('c.io') },
      ['c.io'],
    ],
  ])('are %s', (_what, texts, found) => {
    expect(rulesOf(texts)).toMatchObject({ searchRegistries: found, unread: [] });
  });
});

describe('the aliases', () => {
  it('are those of all files, the last one for a name, and before them all what people have answered', () => {
    const found = rulesOf({
      system: '[aliases]\none = "a.io/one"\ntwo = "a.io/two"\n',
      'system-drop-in': '[aliases]\ntwo = "b.io/two"\nthree = "b.io/three"\n"team/app" = "b.io/app"\n',
      answered: '[aliases]\nthree = "c.io/three"\none = ""\nconstructor = "c.io/x"\n',
    });
    expect(found.aliases).toEqual({
      one: '',
      two: 'b.io/two',
      three: 'c.io/three',
      'team/app': 'b.io/app',
      constructor: 'c.io/x',
    });
  });
});

describe('the mode', () => {
  const registries = (name: string) => ({ system: `short-name-mode = "${name}"\n` });
  it.each<[what: string, texts: Texts, found: string | undefined, version?: string]>([
    ['enforcing with any file of CRI-O’s own', { crio: '[crio.image]\n', ...registries('permissive') }, 'enforcing'],
    ['what crio.conf says', { crio: mode('disabled'), ...registries('enforcing') }, 'disabled'],
    ['what its last drop-in says', { crio: [mode('disabled'), mode('enforcing'), '[crio]\n'] }, 'enforcing'],
    ['enforcing where a file of its own may not be read', { crio: [undefined] }, 'enforcing'],
    ['that of registries.conf without one', registries('disabled'), 'disabled'],
    ['permissive by default then', {}, undefined],
    ['disabled for versions without a mode', { crio: mode('enforcing') }, 'disabled', '1.33.7'],
    ['disabled for them whatever registries.conf says', registries('enforcing'), 'disabled', '1.28.1'],
    ['as in the newest for one of unknown version', { crio: '' }, 'enforcing', 'of unknown version'],
    ['as in the newest for the next major version', { crio: '' }, 'enforcing', '2.0.0'],
  ])('is %s', (_what, texts, found, version) => {
    expect(rulesOf(texts, version).mode).toBe(found);
  });
});

describe('a file that cannot be used is named, and the others count', () => {
  it.each<[what: string, text: string | undefined, says: RegExp]>([
    ['may not be read', undefined, /may not be read/],
    ['is no TOML', 'unqualified-search-registries = [', /cannot be understood/],
    ['has a mode that there is not', 'short-name-mode = "sometimes"', /short-name-mode is none of/],
    ['has something else than a list', 'unqualified-search-registries = "docker.io"', /no list of names/],
    ['has something else in its list', 'unqualified-search-registries = [1]', /no list of names/],
    ['has an alias of a full name', '[aliases]\n"a.io/app" = "b.io/app"\n', /no short name/],
    ['has an alias for a short name', '[aliases]\napp = "team/app"\n', /no short name/],
    ['has an alias for a number', '[aliases]\napp = 1\n', /no short name/],
    ['has a name that is none', '[aliases]\n"$(reboot)" = "a.io/app"\n', /not an image reference/],
    ['is too long', `# ${'x'.repeat(FILE_MAX_BYTES)}`, /more than 131072 bytes/],
    ['has a name that is too long', `[aliases]\n${'a'.repeat(300)} = "a.io/app"\n`, /no short name/],
    ['is too deep', `x = ${'['.repeat(5000)}${']'.repeat(5000)}`, /cannot be understood/],
  ])('one that %s', (_what, text, says) => {
    const found = rulesOf({ system: search('a.io'), 'system-drop-in': [text, '[aliases]\nkept = "b.io/kept"\n'] });
    expect(found).toMatchObject({ searchRegistries: ['a.io'], aliases: { kept: 'b.io/kept' } });
    expect(found.unread).toEqual([expect.stringMatching(says)]);
    expect(found.unread[0]).toMatch(/^\/system-drop-in\/0 /);
  });

  it('and the rest of more than anybody has', () => {
    const long = `# ${'x'.repeat(FILE_MAX_BYTES - 100)}`;
    const { unread } = rulesOf({ system: search('a.io'), 'system-drop-in': [long, long, long, long, long] });
    expect(unread).toEqual([expect.stringContaining('/system-drop-in/4 comes after 524288 bytes')]);
  });

  it('and cannot change what objects are', () => {
    rulesOf({ system: '["__proto__"]\nsearch = "a.io"\n[aliases.__proto__]\nx = "y"\n' });
    expect(({} as { search?: unknown }).search).toBeUndefined();
  });
});

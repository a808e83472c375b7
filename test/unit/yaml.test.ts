import { describe, expect, it } from 'vitest';
import { parseInventory } from '../../src/node/inventory.ts';
import { parseKubelet } from '../../src/node/kubelet.ts';
import { parsePodManifest } from '../../src/smoke/manifest.ts';
import { FROM_NODE, readYaml } from '../../src/yaml.ts';

const values = (text: string) => readYaml(text).map(({ value }) => value);
const faults = (text: string) => readYaml(text).flatMap(document => document.faults);
const times = (count: number, text: (index: number) => string) => Array.from({ length: count }, (_, i) => text(i));

/** Texts of a kilobyte or a few that took seconds to minutes, or ended the process. */
const HOSTILE: readonly (readonly [what: string, text: string, fault: RegExp])[] = [
  ['keys within keys, of one kilobyte', '? '.repeat(500), /nests deeper than 64/],
  ['keys within keys of flow mappings', '{? '.repeat(500), /nests deeper than 64/],
  ['lists within lists that end', `${'['.repeat(3000)}${']'.repeat(3000)}`, /nests deeper than 64/],
  ['mappings that are not closed', '{'.repeat(3000), /nests deeper than 64/],
  ['lists without an end', '- '.repeat(100_000), /nests deeper than 64/],
  ['indented ever deeper', times(300, i => `${' '.repeat(i)}a:`).join('\n'), /nests deeper than 64/],
  [
    'aliases that make 10^9 texts of one',
    times(9, i => `- &a${i} [${times(10, () => (i === 0 ? 'x' : `*a${i - 1}`)).join(', ')}]`).join('\n'),
    /more than 200000 values/,
  ],
  [
    'a long text many times',
    `- &a ${'x'.repeat(1000)}\n${'- *a\n'.repeat(50_000)}`,
    /grows too long, aliases followed/,
  ],
  ['an alias within itself', '&a [*a]', /nests deeper than 64, aliases followed/],
  ['a list as a key', '? [a, b]\n: c', /a key must be a text/],
  ['an error in every line', 'a: b: c\n'.repeat(20_000), /./],
  ['more than anybody writes', `# ${'x'.repeat(1 << 20)}`, /longer than 1048576 characters/],
];

describe('YAML that was written to stop whoever reads it', () => {
  it.each(HOSTILE)('%s: is a fault of the text', (_what, text, fault) => {
    const found = faults(text);
    expect(found[0]?.message).toMatch(fault);
    expect(found.length).toBeLessThanOrEqual(20);
  });

  it.each(HOSTILE)(
    '%s: is told of an inventory and a manifest, and a kubelet’s is left at its defaults',
    (_what, text) => {
      expect(() => parseInventory(text, 'i.yaml')).toThrow(expect.objectContaining({ code: 'INVENTORY_INVALID' }));
      expect(() => parsePodManifest(text, 'default')).toThrow(expect.objectContaining({ code: 'INPUT_INVALID' }));
      expect(parseKubelet(text, '')).toEqual(parseKubelet('', ''));
    },
  );

  it('many keys are read, each compared with those before it at once', () => {
    const text = times(40_000, i => `k${i}: ${i}`).join('\n');
    expect(Object.keys(values(text)[0] ?? {})).toHaveLength(40_000);
    expect(faults(`${text}\nk7: again`)).toEqual([{ line: 40_001, message: 'the key "k7" is there twice' }]);
  });

  it('many aliases are looked up, not searched for', () => {
    const text = `- &a x\n${'- *a\n'.repeat(40_000)}`;
    expect(new Set(values(text)[0] as string[])).toEqual(new Set(['x']));
  });

  it('a node may say less than a file of the user', () => {
    const text = `imageGCHighThresholdPercent: 70\n# ${'x'.repeat(300_000)}`;
    expect(readYaml(text)[0]?.faults).toEqual([]);
    expect(readYaml(text, FROM_NODE)[0]?.faults[0]?.message).toMatch(/longer than 65536 characters/);
    expect(parseKubelet(text, '').imageGcHighThresholdPercent).toBe(85);
  });

  it('a key named like a part of every object is a key', () => {
    const [value] = values('__proto__: { a: 1 }\nconstructor: 2');
    expect(Object.getPrototypeOf(value)).toBeNull();
    expect(Object.keys(value as object)).toEqual(['__proto__', 'constructor']);
    expect(parseKubelet('__proto__: { imagePullCredentialsVerificationPolicy: AlwaysVerify }', '')).toEqual(
      parseKubelet('', ''),
    );
  });

  it('the schema is the same whatever the text says of its version', () => {
    expect(values('%YAML 1.1\n---\n<<: { a: 1 }\nb: yes')).toEqual([{ '<<': { a: 1 }, b: 'yes' }]);
  });
});

describe('YAML as people write it', () => {
  it('is plain values, whatever the form', () => {
    const text = 'a: &x [1, 2.5, true, null, "t"]\nb: *x\nc:\n  ? d\n  : |\n    lines\n    of text\n1: one\n';
    const list = [1, 2.5, true, null, 't'];
    expect(values(text)).toEqual([{ a: list, b: list, c: { d: 'lines\nof text\n' }, 1: 'one' }]);
    expect(values('{"a": {"b": [1]}}')).toEqual([{ a: { b: [1] } }]);
  });

  it('is one value for each document that says something', () => {
    expect(values('')).toEqual([]);
    expect(values('# nothing\n---\na: 1\n---\n---\nb: 2\n')).toEqual([{ a: 1 }, { b: 2 }]);
  });

  it('has a line for each part of it', () => {
    const [document] = readYaml('a:\n  - b: 1\n  - c:\n      - 2\n      - 3\n');
    expect(document?.lineAt(['a', 1, 'c', 1])).toBe(5);
    expect(document?.lineAt(['a', 1, 'x'])).toBe(3);
    expect(document?.lineAt(['nothing'])).toBe(1);
  });

  it('says what is wrong, and where', () => {
    expect(faults('a: 1\nb: [\n')).toEqual([{ line: 3, message: expect.stringMatching(/must be .*end with a \]/) }]);
    expect(faults('a: *b')).toEqual([{ line: 1, message: 'the alias "b" names nothing before it' }]);
  });
});

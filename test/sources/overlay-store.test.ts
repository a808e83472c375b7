import { execFileSync } from 'node:child_process';
import { linkSync, mkdirSync, readdirSync, readFileSync, symlinkSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import type { OpenImagesOptions } from '../../src/image/open.ts';
import { machineDirectory } from '../lab/machine.ts';
import { failureOf } from '../unit/image/opening.ts';
import { expectImage, never, recording, run, seed, told, useWorkshop, variantOf } from './images.ts';

const shop = useWorkshop();
const { lab } = shop;

/** Engines whose files lie in the runner. */
const STORES = {
  docker: { program: join(lab.bin, 'docker'), directory: '/var/lib/docker', engine: 'docker engine' },
  podman: { program: join(lab.bin, 'podman'), directory: '/var/lib/containers/storage', engine: 'podman' },
} as const;

/** The runner has a file system of its own, and these on the lab's disk. */
function seenFrom(directory: string): string {
  return join(machineDirectory(lab.name, 'runner'), 'data', directory);
}

/** Answers as the engine does, with the places at which its files are seen from here. */
function seeing({ program, directory }: (typeof STORES)[keyof typeof STORES]): ReturnType<typeof recording> {
  const moved = `'${program}' "$@" | sed 's#\\([":]\\)${directory}/#\\1${seenFrom(directory)}/#g'; exit`;
  return recording(shop, program, `case "$1 $2" in "image inspect") ${moved} ;; esac`);
}

/** A tar with what layers have besides plain files of ASCII names, each kind as GNU tar writes it. */
function oddLayer(name: string, format: 'gnu' | 'pax' | 'v7'): string {
  const directory = shop.at(`odd-${name}`);
  const at = (name: string | Buffer) => Buffer.concat([Buffer.from(`${directory}/`), Buffer.from(name)]);
  mkdirSync(join(directory, 'empty', 'directory'), { recursive: true });
  writeFileSync(at('one'), 'one');
  linkSync(at('one'), at('hard link'));
  symlinkSync('/etc/passwd', at('soft link'));
  writeFileSync(at('empty/nothing'), '');
  writeFileSync(at(Buffer.from('not \xff UTF-8', 'latin1')), 'not UTF-8');
  writeFileSync(at('ein Ä'), 'an umlaut');
  writeFileSync(at('a block'), Buffer.alloc(512, 'b'));
  writeFileSync(at('longer than a chunk'), Buffer.alloc((2 << 20) + 1, 'c'));
  if (format !== 'v7') writeFileSync(at('n'.repeat(200)), 'a long name');
  const file = shop.at(`odd-${name}.tar`);
  run('tar', ['-cf', file, `--format=${format}`, '--blocking-factor=64', '-C', directory, '.']);
  return file;
}

describe('who may read in place', () => {
  /** Tells how many bytes there are in the files of an image, by a program of its own. */
  const script = join(import.meta.dirname, 'in-place.ts');
  const nobody = ['--reuid=65534', '--regid=65534', '--clear-groups'];

  it.each([
    ['is root', [], /^\d{6,}$/],
    ['is not root without its capabilities', ['--bounding-set=-all'], /^asks the engine$/],
    ['is not anybody else', nobody, /^asks the engine$/],
    [
      'is a service with CAP_DAC_READ_SEARCH',
      [...nobody, '--inh-caps=-all,+dac_read_search', '--ambient-caps=-all,+dac_read_search'],
      /^\d{6,}$/,
    ],
  ])('%s', async (_what, flags, answer) => {
    seed(shop, 'for whom', { text: 'a base for whom' });
    run(STORES.docker.program, ['build', '--quiet', '--tag', 'whom:v1', shop.context]);
    const inspection = run((await seeing(STORES.docker)).path, ['image', 'inspect', 'whom:v1']);
    expect(run('setpriv', [...flags, process.execPath, script, inspection])).toMatch(answer);
  });
});

describe.each(['docker', 'podman'] as const)('the store of %s', name => {
  const { program, directory, engine } = STORES[name];
  const root = seenFrom(directory);

  const open = async (reference: string, options: Partial<OpenImagesOptions> = {}) =>
    shop.open({ source: name, [name]: (await seeing(STORES[name])).path, references: [reference], ...options });

  const build = (reference: string, text: string, base: string): void => {
    seed(shop, text, { text: base });
    run(program, ['build', '--quiet', '--tag', reference, shop.context]);
  };

  const saved = (reference: string) => {
    const file = shop.at(`${name}-${reference.replace(':', '-')}.tar`);
    run(program, ['save', '--output', file, reference]);
    return told(lab, `docker-archive:${file}`);
  };

  /** Where the engine has the layers of an image: what the uppermost one changes, or the others, the lowest one last. */
  const directoriesOf = (reference: string, which: 'UpperDir' | 'LowerDir'): readonly string[] => {
    const told = run(program, ['image', 'inspect', '--format', `{{.GraphDriver.Data.${which}}}`, reference]);
    return told.split(':').map(place => place.replace(directory, root));
  };

  const storeAll = async (reference: string, options: Partial<OpenImagesOptions> = {}) =>
    await Promise.all(variantOf(await open(reference, options)).layers.map(layer => layer.store(never)));

  it('is read in place of asking the engine for layers', async () => {
    build('stored:v1', 'stored', 'a base');
    const recorded = await seeing(STORES[name]);
    const set = await open('stored:v1', { [name]: recorded.path });
    await expectImage(shop, set, saved('stored:v1'), 'docker.io/library/stored:v1');
    // docker is asked to inspect it; podman whether it exists, too.
    expect(await recorded.calls()).toEqual({ docker: ['image'], podman: ['image', 'image'] }[name]);
    expect(shop.lines).toContain(`layers of stored:v1 are read where ${engine} has them, in ${root}`);
  });

  it.each(['gnu', 'pax', 'v7'] as const)('gives a tar of the form %s back byte for byte', async format => {
    const file = oddLayer(`${name}-${format}`, format);
    run(program, ['import', file, `odd:${format}`]);
    const set = await open(`odd:${format}`);
    const [layer] = variantOf(set).layers;
    expect(layer?.diffId).toBe(`sha256:${run('sha256sum', [file]).slice(0, 64)}`);
    await expectImage(shop, set, saved(`odd:${format}`), `docker.io/library/odd:${format}`);
    expect(shop.lines.join()).toContain('are read where');
  });

  it('is not read for layers that the runner has stored', async () => {
    const cache = { directory: shop.at(`${name}-cache`), maxBytes: 1e9 };
    build('again:v1', 'again', 'the base of again');
    await storeAll('again:v1', { cache });
    build('again:v2', 'again, anew', 'the base of again');
    // Its lowest layer is not what it was, and nobody notices.
    const busybox = join(directoriesOf('again:v2', 'LowerDir').at(-1) ?? '', 'bin', 'busybox');
    const bytes = readFileSync(busybox);
    truncateSync(busybox, 1);
    try {
      expect(await storeAll('again:v2', { cache })).toHaveLength(2);
    } finally {
      writeFileSync(busybox, bytes);
    }
  });

  it('that has lost a file is told, and so is one whose file has other content', async () => {
    build('damaged:v1', 'damaged', 'a base');
    const [upper = ''] = directoriesOf('damaged:v1', 'UpperDir');
    const file = join(upper, readdirSync(upper).find(entry => entry.startsWith('seed')) ?? '');
    writeFileSync(file, 'DAMAGED');
    expect(await failureOf(storeAll('damaged:v1'))).toMatchObject({
      code: 'ARCHIVE_CORRUPT',
      message: expect.stringContaining(`what ${engine} has of damaged:v1`),
    });
    truncateSync(file, 3);
    expect(await failureOf(storeAll('damaged:v1'))).toMatchObject({
      code: 'SOURCE_UNAVAILABLE',
      message: expect.stringContaining('is not the file of 7 bytes that was unpacked there'),
    });
    execFileSync('rm', [file]);
    expect(await failureOf(storeAll('damaged:v1'))).toMatchObject({
      code: 'SOURCE_UNAVAILABLE',
      message: expect.stringContaining('ENOENT'),
    });
  });

  it('of which nothing is there is no obstacle: the engine is asked', async () => {
    build('elsewhere:v1', 'elsewhere', 'a base');
    const set = await open('elsewhere:v1', { [name]: program });
    await expectImage(shop, set, saved('elsewhere:v1'), 'docker.io/library/elsewhere:v1');
    expect(shop.lines.join()).not.toContain('are read where');
  });
});

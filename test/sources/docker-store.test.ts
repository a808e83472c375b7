import { execFileSync } from 'node:child_process';
import { linkSync, mkdirSync, readdirSync, readFileSync, symlinkSync, truncateSync, writeFileSync } from 'node:fs';
import { chmod, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { beforeAll, describe, expect, it } from 'vitest';
import type { OpenImagesOptions } from '../../src/image/open.ts';
import { failureOf } from '../unit/image/opening.ts';
import { expectImage, never, run, seed, told, useWorkshop, variantOf } from './images.ts';

const shop = useWorkshop();
const { lab } = shop;
const docker = join(lab.bin, 'docker');
/** The store as it is seen from here: the runner has a file system of its own. */
const root = `${lab.runner.root}/var/lib/docker`;
/** Answers as docker does, with the place at which its files are seen from here; and a list of what it was called with. */
let seen: string;

beforeAll(async () => {
  seen = shop.at('docker-and-its-files');
  const script = `#!/bin/sh
echo "$1" >>'${seen}.calls'
case "$1 $2" in "image inspect") '${docker}' "$@" | sed 's#"/var/lib/docker/#"${root}/#' ;; *) exec '${docker}' "$@" ;; esac
`;
  await writeFile(seen, script);
  await chmod(seen, 0o755);
});

async function calls(): Promise<readonly string[]> {
  const list = (await readFile(`${seen}.calls`, 'utf8')).trim().split('\n');
  await writeFile(`${seen}.calls`, '');
  return list;
}

function open(reference: string, options: Partial<OpenImagesOptions> = {}) {
  return shop.open({ source: 'docker', docker: seen, references: [reference], ...options });
}

function build(reference: string, text: string, base: string): void {
  seed(shop, text, { text: base });
  run(docker, ['build', '--quiet', '--tag', reference, shop.context]);
}

function saved(reference: string) {
  const file = shop.at(`${reference.replace(':', '-')}.tar`);
  run(docker, ['save', '--output', file, reference]);
  return told(lab, `docker-archive:${file}`);
}

/** Where docker has the layers of an image: what the uppermost one changes, or the others, the lowest one last. */
function directoriesOf(reference: string, which: 'UpperDir' | 'LowerDir'): readonly string[] {
  const told = run(docker, ['image', 'inspect', '--format', `{{.GraphDriver.Data.${which}}}`, reference]);
  return told.split(':').map(directory => directory.replace('/var/lib/docker', root));
}

/** A tar with what layers have besides plain files of ASCII names, each kind as GNU tar writes it. */
function oddLayer(format: 'gnu' | 'pax' | 'v7'): string {
  const directory = shop.at(`odd-${format}`);
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
  const file = shop.at(`odd-${format}.tar`);
  run('tar', ['-cf', file, `--format=${format}`, '--blocking-factor=64', '-C', directory, '.']);
  return file;
}

describe('docker’s classic store', () => {
  it('is read in place of asking the engine for its layers', async () => {
    build('stored:v1', 'stored', 'a base');
    const set = await open('stored:v1');
    await expectImage(shop, set, saved('stored:v1'), 'docker.io/library/stored:v1');
    expect(await calls()).toEqual(['image']);
    expect(shop.lines).toContain(`layers of stored:v1 are read where docker engine has them, in ${root}`);
  });

  it.each(['gnu', 'pax', 'v7'] as const)('gives a tar of the form %s back byte for byte', async format => {
    const file = oddLayer(format);
    run(docker, ['import', file, `odd:${format}`]);
    const set = await open(`odd:${format}`);
    const [layer] = variantOf(set).layers;
    expect(layer?.diffId).toBe(`sha256:${run('sha256sum', [file]).slice(0, 64)}`);
    await expectImage(shop, set, saved(`odd:${format}`), `docker.io/library/odd:${format}`);
  });

  it('is not read for layers that the runner has stored', async () => {
    const cache = { directory: shop.at('cache'), maxBytes: 1e9 };
    build('again:v1', 'again', 'the base of again');
    const first = await open('again:v1', { cache });
    await Promise.all(variantOf(first).layers.map(layer => layer.store(never)));
    await first.close();
    build('again:v2', 'again, anew', 'the base of again');
    // Its lowest layer is not what it was, and nobody notices.
    const busybox = join(directoriesOf('again:v2', 'LowerDir').at(-1) ?? '', 'bin', 'busybox');
    const bytes = readFileSync(busybox);
    truncateSync(busybox, 1);
    try {
      const second = await open('again:v2', { cache });
      const blobs = await Promise.all(variantOf(second).layers.map(layer => layer.store(never)));
      expect(blobs).toHaveLength(2);
    } finally {
      writeFileSync(busybox, bytes);
    }
  });

  it('that has lost a file is told, and so is one whose file has other content', async () => {
    build('damaged:v1', 'damaged', 'a base');
    const [upper = ''] = directoriesOf('damaged:v1', 'UpperDir');
    const [name = ''] = readdirSync(upper);
    const file = join(upper, name);
    const store = async () => {
      const set = await open('damaged:v1');
      return await failureOf(Promise.all(variantOf(set).layers.map(layer => layer.store(never))));
    };
    writeFileSync(file, 'DAMAGED');
    expect(await store()).toMatchObject({
      code: 'ARCHIVE_CORRUPT',
      message: expect.stringContaining('docker engine has of damaged:v1'),
    });
    truncateSync(file, 3);
    expect(await store()).toMatchObject({
      code: 'SOURCE_UNAVAILABLE',
      message: expect.stringContaining('is not the file of 7 bytes that was unpacked there'),
    });
    execFileSync('rm', [file]);
    expect(await store()).toMatchObject({ code: 'SOURCE_UNAVAILABLE', message: expect.stringContaining('ENOENT') });
  });

  it('of which nothing is there, the engine is asked instead', async () => {
    build('elsewhere:v1', 'elsewhere', 'a base');
    const set = await open('elsewhere:v1', { docker });
    await expectImage(shop, set, saved('elsewhere:v1'), 'docker.io/library/elsewhere:v1');
    expect(shop.lines.join()).not.toContain('are read where');
  });
});

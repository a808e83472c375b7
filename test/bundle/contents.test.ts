import { execFile } from 'node:child_process';
import { cp, mkdir, mkdtemp, readdir, readFile, rm, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { promisify } from 'node:util';
import { describe, expect, it, onTestFinished } from 'vitest';
import { parse } from 'yaml';
import { INPUT_NAMES } from '../../src/inputs.ts';

const run = promisify(execFile);
const root = resolve(import.meta.dirname, '..', '..');
const dist = join(root, 'dist');

/** Names of all files below a directory, sorted. */
async function filesIn(directory: string): Promise<readonly string[]> {
  const entries = await readdir(directory, { recursive: true, withFileTypes: true });
  return entries
    .filter(entry => entry.isFile())
    .map(entry => join(entry.parentPath, entry.name).slice(directory.length + 1))
    .toSorted();
}

describe('dist/', () => {
  it('holds two bundles and nothing native', async () => {
    expect(await filesIn(dist)).toEqual(
      ['action', 'cli'].flatMap(entry => ['index.js', 'licenses.txt', 'package.json'].map(file => `${entry}/${file}`)),
    );
  });

  it.each(['action', 'cli'])('is CommonJS, whatever package.json lies above it: %s', async entry => {
    const { type } = JSON.parse(await readFile(join(dist, entry, 'package.json'), 'utf8'));
    expect(type).toBe('commonjs');
  });

  it.each([
    ['action', ['@actions/core', '@actions/exec']],
    ['cli', []],
  ])('has the licences of what it contains: %s', async (entry, own) => {
    const licences = await readFile(join(dist, entry, 'licenses.txt'), 'utf8');
    for (const name of [...own, 'node-ssh', 'ssh2', '@actions/io', 'tar-stream', 'valibot', 'yaml']) {
      expect(licences.split('\n'), name).toContain(name);
    }
  });

  it('can be started by its name', async () => {
    const file = join(dist, 'cli', 'index.js');
    expect((await stat(file)).mode & 0o111).toBe(0o111);
    expect((await readFile(file, 'utf8')).split('\n')[0]).toBe('#!/usr/bin/env node');
  });

  it('names no directory of the machine that built it', async () => {
    for (const entry of ['action', 'cli']) {
      expect(await readFile(join(dist, entry, 'index.js'), 'utf8')).not.toContain(root);
    }
  });
});

it('action.yml starts what is there, and offers every input and output', async () => {
  const action = parse(await readFile(join(root, 'action.yml'), 'utf8'));
  expect(action.runs).toEqual({ using: 'node24', main: 'dist/action/index.js', post: 'dist/action/index.js' });
  expect((await stat(join(root, action.runs.main))).isFile()).toBe(true);
  expect(Object.keys(action.inputs)).toEqual(INPUT_NAMES);
  // A default in action.yml could not be told from the user's own value, and would override the inventory.
  for (const input of Object.values<object>(action.inputs)) expect(input).not.toHaveProperty('default');
  expect(Object.keys(action.outputs)).toEqual([
    'images',
    'image-ids',
    'nodes',
    'bytes-sent',
    'changed',
    'drift',
    'bundle',
  ]);
});

it('is built again byte for byte, wherever the checkout lies', async () => {
  const directory = await mkdtemp(join(tmpdir(), 'kube-sideload-build-'));
  onTestFinished(() => rm(directory, { recursive: true, force: true }));
  // Two checkouts, so that builds cannot meet in `lib/`, neither each other nor those of whoever works here.
  const checkouts = [join(directory, 'a'), join(directory, 'somewhere else', 'much', 'deeper')];
  await Promise.all(checkouts.map(build));
  for (const checkout of checkouts) {
    const built = join(checkout, 'dist');
    const files = await filesIn(dist);
    expect(await filesIn(built)).toEqual(files);
    for (const file of files) {
      // A boolean, since the difference of two bundles is nothing to print.
      const isEqual = (await readFile(join(built, file))).equals(await readFile(join(dist, file)));
      expect({ file, isEqual }).toEqual({ file, isEqual: true });
    }
  }
});

async function build(checkout: string): Promise<void> {
  await mkdir(checkout, { recursive: true });
  for (const name of ['src', 'scripts', 'package.json', 'tsconfig.json', 'tsconfig.build.json']) {
    await cp(join(root, name), join(checkout, name), { recursive: true });
  }
  // Hard links where the file system allows; a symbolic link would lead the bundler out of the checkout.
  const modules = [join(root, 'node_modules'), join(checkout, 'node_modules')];
  await run('cp', ['-al', ...modules]).catch(async () => {
    await rm(join(checkout, 'node_modules'), { recursive: true, force: true });
    await run('cp', ['-a', ...modules]);
  });
  await run(process.execPath, [join(checkout, 'scripts', 'build.ts')], { cwd: checkout });
}

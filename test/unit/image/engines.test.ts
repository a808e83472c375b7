import { execFile } from 'node:child_process';
import { chmod, readdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { beforeEach, describe, expect, it, vi } from 'vitest';
import type { OpenImagesOptions } from '../../../src/image/open.ts';
import { dockerEngine } from '../../../src/image/sources/docker.ts';
import {
  type DockerWriter,
  dockerArchive,
  LINUX_AMD64,
  LINUX_ARM64,
  named,
  ociArchive,
  type SampleImage,
  sampleImage,
  sampleLayer,
  sha256,
  tarBytes,
} from './archives.ts';
import { failureOf, storeAll, useWorkplace } from './opening.ts';

const place = useWorkplace();
const APP = 'docker.io/library/app:v1';
const layers = [await sampleLayer('base', 'x'.repeat(5_000_000)), await sampleLayer('top')];
const app = sampleImage(layers, LINUX_AMD64, 'app');
const other = sampleImage(layers, LINUX_AMD64, 'other');
const ENGINES = ['docker', 'podman', 'buildah', 'nerdctl', 'ctr'] as const;
type EngineProgram = (typeof ENGINES)[number];
let programs: Pick<OpenImagesOptions, EngineProgram>;

beforeEach(() => {
  programs = Object.fromEntries(ENGINES.map(name => [name, join(place.directory, `no-${name}`)]));
});

/** Puts a program on the disk that answers as the lines of shell say; `$DIR` is the test's directory. */
async function program(name: EngineProgram, ...lines: readonly string[]): Promise<void> {
  const path = join(place.directory, name);
  const script = ['#!/bin/sh', `DIR='${place.directory}'`, `echo "$*" >>"$DIR/${name}.calls"`, ...lines];
  await writeFile(path, script.join('\n'));
  await chmod(path, 0o755);
  programs = { ...programs, [name]: path };
}

async function calls(name: string): Promise<readonly string[]> {
  return (await readFile(join(place.directory, `${name}.calls`), 'utf8')).trim().split('\n');
}

const FIND_ID = { docker: 'image\\ inspect*', podman: 'image\\ *' } as const;
/** What `image inspect` prints: docker with `sha256:` before the ID, podman without. */
function inspection(name: 'docker' | 'podman', image: SampleImage, id = image.imageId): string {
  const Layers = image.layers.map(({ tar }) => `sha256:${sha256(tar)}`);
  return JSON.stringify([{ Id: name === 'docker' ? id : id.slice('sha256:'.length), RootFS: { Layers } }]);
}

/** An engine that has one image and saves it. */
async function engine(
  name: 'docker' | 'podman',
  image = app,
  names: readonly string[] = ['app:v1'],
  save = `cat "$DIR/${name}.tar"`,
  id = image.imageId,
): Promise<void> {
  const writer: DockerWriter = name;
  await writeFile(join(place.directory, `${name}.tar`), await tarBytes(dockerArchive([[names, image]], writer)));
  await program(name, `case "$*" in ${FIND_ID[name]}) echo '${inspection(name, image, id)}' ;; save*) ${save} ;; esac`);
}

const fails = (name: EngineProgram, message: string, code = 1) => program(name, `echo '${message}' >&2; exit ${code}`);
const open = (reference = 'app:v1', options: Partial<OpenImagesOptions> = {}) =>
  place.open({ references: [reference], ...programs, ...options });

describe('an image in an engine', () => {
  it('is taken from docker, by one exact tag', async () => {
    await engine('docker', app, ['app:latest']);
    const set = await open('app', { source: 'docker' });
    expect(set.images[0]).toMatchObject({ reference: 'docker.io/library/app:latest', origin: 'docker engine' });
    expect(set.images[0]?.variants[0]?.imageId).toBe(app.imageId);
    expect(await storeAll(set)).toHaveLength(2);
    expect(await calls('docker')).toContain('save app:latest');
  });

  it('is taken from podman, as an uncompressed docker-archive', async () => {
    await engine('podman', app, ['localhost/app:v1']);
    const set = await open('app:v1', { source: 'podman' });
    expect(set.images[0]).toMatchObject({ reference: APP, origin: 'podman' });
    expect(await calls('podman')).toContain('save --format docker-archive app:v1');
  });

  it('keeps the name that was asked for, whatever name the engine resolved it to', async () => {
    await engine('podman', app, ['registry.example/mirror/app:v1']);
    expect((await open('app:v1')).images[0]?.reference).toBe(APP);
  });

  it('is one image however many names the engine writes for it', async () => {
    await engine('podman', app, ['localhost/app:v1', 'registry.example/app:v1']);
    expect((await open('app:v3')).images[0]).toMatchObject({ reference: 'docker.io/library/app:v3' });
  });

  it('may have several platforms in the containerd store', async () => {
    const arm = sampleImage(layers, LINUX_ARM64);
    const children = [
      { image: app, platform: LINUX_AMD64 },
      { image: arm, platform: LINUX_ARM64 },
    ];
    await engine('docker');
    await writeFile(join(place.directory, 'docker.tar'), await tarBytes(ociArchive([{ children }])));
    const set = await open();
    expect(set.images[0]?.variants.map(({ imageId }) => imageId)).toEqual([app.imageId, arm.imageId]);
  });

  it('shares its layers with the next image', async () => {
    await engine(
      'docker',
      app,
      ['app:v1'],
      'case $2 in app:v1) cat "$DIR/docker.tar" ;; *) cat "$DIR/other.tar" ;; esac',
    );
    await writeFile(
      join(place.directory, 'other.tar'),
      await tarBytes(dockerArchive([[['other:v1'], other]], 'docker')),
    );
    const set = await place.open({ references: ['app:v1', 'other:v1'], source: 'docker', ...programs });
    expect(set.images.map(image => image.variants[0]?.imageId)).toEqual([app.imageId, other.imageId]);
    expect(set.images[0]?.variants[0]?.layers).toEqual(set.images[1]?.variants[0]?.layers);
    const [root = ''] = await readdir(place.scratch);
    expect(await readdir(join(place.scratch, root))).toHaveLength(2);
  });
});

describe('with two engines', () => {
  it('the one that has the image is taken, and the log says so', async () => {
    await fails('docker', 'Error response from daemon: No such image: app:v1');
    await engine('podman');
    expect((await open()).images[0]?.origin).toBe('podman');
    expect(place.lines).toContain('app:v1 is taken from podman; docker engine lacks it');
  });

  it('one that is down is mentioned and does not matter', async () => {
    await fails('docker', 'Cannot connect to the Docker daemon at unix:///var/run/docker.sock.');
    await engine('podman');
    expect((await open()).images[0]?.origin).toBe('podman');
    expect(place.lines).toContainEqual(expect.stringContaining('Cannot connect to the Docker daemon'));
  });

  it('that have the same image, either will do', async () => {
    await engine('docker');
    await engine('podman');
    expect((await open()).images[0]?.variants[0]?.imageId).toBe(app.imageId);
  });

  it('whose IDs differ because one is a manifest’s, the contents decide', async () => {
    await engine('docker', app, ['app:v1'], undefined, `sha256:${'a'.repeat(64)}`);
    await engine('podman', app);
    expect((await open()).images[0]).toMatchObject({ origin: 'docker engine', variants: [{ imageId: app.imageId }] });
    await engine('podman', other);
    expect(await failureOf(open())).toMatchObject({ code: 'IMAGE_AMBIGUOUS' });
  });

  it('that have images of different layers, neither is read', async () => {
    await engine('docker');
    await engine('podman', sampleImage([layers[1] ?? expect.unreachable()]));
    expect(await failureOf(open())).toMatchObject({ code: 'IMAGE_AMBIGUOUS' });
    expect(await calls('docker')).toEqual(['image inspect app:v1']);
  });

  it('that have different images of the name, none is guessed', async () => {
    await engine('docker', app);
    await engine('podman', other);
    expect(await failureOf(open())).toMatchObject({
      code: 'IMAGE_AMBIGUOUS',
      message: expect.stringMatching(/docker engine \([0-9a-f]{12}\) and podman \([0-9a-f]{12}\)/),
    });
    expect((await open('app:v1', { source: 'podman' })).images[0]?.variants[0]?.imageId).toBe(other.imageId);
  });

  it('that both lack the image, both are named', async () => {
    await fails('docker', 'Error: No such image: app:v1');
    await program('podman', 'exit 1');
    expect(await failureOf(open())).toMatchObject({
      code: 'IMAGE_NOT_FOUND',
      message: expect.stringMatching(/^no image app:v1 in docker engine, podman; buildah is not installed/),
    });
  });

  it('of which one lacks the image and one cannot be asked, both facts are told', async () => {
    await program('podman', 'exit 1');
    expect(await failureOf(open())).toMatchObject({
      code: 'IMAGE_NOT_FOUND',
      message: expect.stringMatching(/^no image app:v1 in podman; docker engine is not installed/),
    });
  });

  it('that are not there, the image has no source', async () => {
    expect(await failureOf(open())).toMatchObject({
      code: 'SOURCE_UNAVAILABLE',
      message: expect.stringMatching(/docker engine is not installed; podman is not installed/),
    });
  });
});

describe('containerd', () => {
  const row = (name: string) =>
    `${name} application/vnd.oci.image.index.v1+json sha256:${'b'.repeat(64)} 1MiB linux/amd64 -`;
  const table = (...names: readonly string[]) =>
    `printf '%s\\n' 'REF TYPE DIGEST' ${names.map(name => `'${row(name)}'`).join(' ')}`;
  const save = 'cat "$DIR/ctr.tar"';

  beforeEach(async () => {
    const entries = ociArchive([{ image: app, annotations: named(APP) }]);
    await writeFile(join(place.directory, 'ctr.tar'), await tarBytes(entries));
  });

  it('is asked by the full name, and hands out all platforms', async () => {
    await program('ctr', `case "$*" in *list*) ${table(APP)} ;; *export*) ${save} ;; esac`);
    const set = await open('app:v1', { source: 'containerd' });
    expect(set.images[0]).toMatchObject({ reference: APP, origin: 'containerd', variants: [{ imageId: app.imageId }] });
    expect(await calls('ctr')).toEqual([
      `--connect-timeout 5s images list name=="${APP}" name=="app:v1"`,
      expect.stringMatching(/ images push --plain-http 127\.0\.0\.1:\d+\/kube-sideload-[0-9a-f]{32}\/image:pushed /),
      `--connect-timeout 5s images export --local --all-platforms - ${APP}`,
    ]);
  });

  it('of a version without --local, and with content of one platform only, is asked until it can', async () => {
    const refusals =
      '*--local*) echo "flag provided but not defined: -local" >&2; exit 1 ;; *--all-platforms*) exit 1 ;;';
    await program('ctr', `case "$*" in *list*) ${table(APP)} ;; ${refusals} *export*) ${save} ;; esac`);
    expect((await open('app:v1', { source: 'containerd' })).images[0]?.reference).toBe(APP);
    expect((await calls('ctr')).at(-1)).toBe(`--connect-timeout 5s images export - ${APP}`);
  });

  it('gives an image that an import has stored under its short name', async () => {
    await program('ctr', `case "$*" in *list*) ${table('app:v1')} ;; *export*) ${save} ;; esac`);
    expect((await open('app:v1', { source: 'containerd' })).images[0]?.reference).toBe(APP);
    expect((await calls('ctr')).at(-1)).toMatch(/ - app:v1$/);
  });

  it('is asked through nerdctl, in the namespace that is named', async () => {
    const id = `sha256:${'b'.repeat(64)}`;
    await program('nerdctl', `case "$*" in *images*) echo ${id}; echo ${id} ;; *save*) ${save} ;; esac`);
    const set = await open('app:v1', { source: 'nerdctl', containerdNamespace: 'k8s.io' });
    expect(set.images[0]?.origin).toBe('nerdctl (namespace k8s.io)');
    expect(await calls('nerdctl')).toEqual([
      `--namespace k8s.io images --no-trunc --quiet ${APP}`,
      `--namespace k8s.io save --all-platforms ${APP}`,
    ]);
  });

  it('never competes with the engines that CI builds with', async () => {
    await engine('docker');
    await program('ctr', `case "$*" in *list*) ${table(APP)} ;; *export*) ${save} ;; esac`);
    expect((await open()).images[0]?.origin).toBe('docker engine');
    await expect(calls('ctr')).rejects.toThrow('ENOENT');
  });

  it('that lacks the image says so, and one that is down too', async () => {
    await program('ctr', table());
    await fails('nerdctl', 'cannot access containerd socket');
    expect(await failureOf(open('app:v1', { source: 'containerd' }))).toMatchObject({
      code: 'IMAGE_NOT_FOUND',
      message: 'no image app:v1 in containerd',
    });
    expect(await failureOf(open('app:v1', { source: 'nerdctl' }))).toMatchObject({
      code: 'SOURCE_UNAVAILABLE',
      message: expect.stringContaining('nerdctl does not answer: cannot access containerd socket'),
    });
  });

  it('that breaks off is no image', async () => {
    await program('ctr', `case "$*" in *list*) ${table(APP)} ;; *export*) head -c 2000 "$DIR/ctr.tar" ;; esac`);
    expect(await failureOf(open('app:v1', { source: 'containerd' }))).toMatchObject({ code: 'ARCHIVE_INVALID' });
  });
});

describe('buildah without podman', () => {
  const id = app.imageId.slice('sha256:'.length);
  // docker-archive:PATH is the last argument.
  const push = `for last; do :; done; cp "$DIR/buildah.tar" "\${last#docker-archive:}"`;

  beforeEach(async () => {
    const entries = dockerArchive([[[], app]], 'podman');
    await writeFile(join(place.directory, 'buildah.tar'), await tarBytes(entries));
  });

  it('writes its image to a file, which goes with the rest', async () => {
    await program('buildah', `case $1 in inspect) echo ${id} ;; push) ${push} ;; esac`);
    const set = await open('app:v1', { source: 'buildah' });
    expect(set.images[0]).toMatchObject({ reference: APP, origin: 'buildah', variants: [{ imageId: app.imageId }] });
    expect(await storeAll(set)).toHaveLength(2);
  });

  it('that fails to write it speaks for itself', async () => {
    await program('buildah', `case $1 in inspect) echo ${id} ;; push) echo 'no space left' >&2; exit 125 ;; esac`);
    expect(await failureOf(open('app:v1', { source: 'buildah' }))).toMatchObject({
      code: 'SOURCE_UNAVAILABLE',
      message: 'buildah did not save app:v1: no space left',
    });
  });

  it('that lacks it is named', async () => {
    await fails('buildah', 'Error: importing settings: app:v1: image not known', 125);
    expect(await failureOf(open('app:v1', { source: 'buildah' }))).toMatchObject({
      code: 'IMAGE_NOT_FOUND',
      message: 'no image app:v1 in buildah; podman is not installed',
    });
  });
});

describe('what podman has built by a short name', () => {
  beforeEach(async () => {
    await engine('podman', app, ['localhost/app:v1']);
    const answers = `*docker.io*) exit 1 ;; *image\\ *localhost/app:v1) echo '${inspection('podman', app)}' ;; save*) cat "$DIR/podman.tar"`;
    await program('podman', `case "$*" in ${answers} ;; *) exit 1 ;; esac`);
  });

  it.each(['podman', 'auto', 'buildah'] as const)('is found by its full name, too (source: %s)', async source => {
    const set = await open(APP, { source });
    expect(set.images[0]).toMatchObject({ reference: APP, origin: 'podman', variants: [{ imageId: app.imageId }] });
    expect(await storeAll(set)).toHaveLength(2);
    expect(place.lines.join('\n')).toContain(`podman has ${APP} as localhost/app:v1`);
  });

  it('is not what docker has by the full name, nor an image of another registry', async () => {
    await engine('docker', other);
    expect((await open(APP)).images[0]?.variants[0]?.imageId).toBe(other.imageId);
    expect(await failureOf(open('registry.example/app:v1', { source: 'podman' }))).toMatchObject({
      code: 'IMAGE_NOT_FOUND',
      message: 'no image registry.example/app:v1 in podman',
    });
  });
});

describe('what an engine tells of an image before it is read', () => {
  const factsOf = async (answer: object) => {
    await program('docker', `echo '${JSON.stringify([answer])}'`);
    const found = await dockerEngine(programs.docker ?? '', () => {}).find('app:v1', new AbortController().signal);
    const { read: _, ...facts } = found.state === 'found' ? found.image : expect.unreachable();
    return facts;
  };
  const id = app.imageId;
  const inspected = { Id: id, Os: 'linux', Architecture: 'arm64', Variant: 'v8', Size: 5, RootFS: { Layers: [id] } };

  it('is the image ID, the platform and the size with the classic store', async () => {
    const platform = { os: 'linux', architecture: 'arm64', variant: 'v8' };
    expect(await factsOf(inspected)).toEqual({ id, diffIds: [id], imageId: id, platform, sizeBytes: 5 });
  });

  it('is no image ID with containerd’s store, where the ID is another digest', async () => {
    expect(await factsOf({ ...inspected, Descriptor: { digest: id } })).toEqual({ id, diffIds: [id] });
  });

  it('is the same of podman under docker’s name', async () => {
    const answer = { Id: id.replace('sha256:', ''), RootFS: { Layers: [id] } };
    expect(await factsOf(answer)).toEqual({ id, diffIds: [id], imageId: id });
  });
});

describe('an engine that does not push', () => {
  it('because it is too old, saves', async () => {
    await engine('podman', app, ['localhost/app:v1'], `cat "$DIR/podman.tar"`);
    const script = await readFile(join(place.directory, 'podman'), 'utf8');
    const refusal = `echo 'Error: unknown flag: --force-compression' >&2; exit 125`;
    await writeFile(
      join(place.directory, 'podman'),
      script.replace('case', `case $1 in push) ${refusal} ;; esac\ncase`),
    );
    expect((await open('app:v1', { source: 'podman' })).images[0]?.variants[0]?.imageId).toBe(app.imageId);
    expect(place.lines).toContain(
      'the whole image is saved: podman did not push app:v1: Error: unknown flag: --force-compression',
    );
  });

  it('but to another machine, saves', async () => {
    await engine('podman', app, ['localhost/app:v1']); // its push succeeds and does nothing here
    expect((await open('app:v1', { source: 'podman' })).images[0]?.variants[0]?.imageId).toBe(app.imageId);
    expect(place.lines).toContain('the whole image is saved: podman did not push app:v1: it pushed to another machine');
  });

  it('by podman of another machine is not asked to', async () => {
    await engine('podman', app, ['localhost/app:v1']);
    vi.stubEnv('CONTAINER_HOST', 'ssh://builder/run/podman.sock');
    await open('app:v1', { source: 'podman' });
    vi.unstubAllEnvs();
    expect((await calls('podman')).map(call => call.split(' ')[0])).toEqual(['image', 'image', 'save']);
    expect(place.lines).toContain('the whole image is saved: podman runs elsewhere');
  });
});

describe('an engine that fails', () => {
  it('at once, speaks for itself', async () => {
    await fails('docker', 'permission denied while trying to connect to the Docker daemon socket');
    expect(await failureOf(open('app:v1', { source: 'docker' }))).toMatchObject({
      code: 'SOURCE_UNAVAILABLE',
      message: expect.stringContaining('permission denied'),
    });
    await fails('podman', 'Error: cannot set up namespace', 125);
    expect(await failureOf(open('app:v1', { source: 'podman' }))).toMatchObject({
      code: 'SOURCE_UNAVAILABLE',
      message: expect.stringContaining('cannot set up namespace'),
    });
  });

  it.each([0, 1, 700, 100_000, 5_100_000])('after %i bytes, gives no shorter image', async bytes => {
    await engine('docker', app, ['app:v1'], `head -c ${bytes} "$DIR/docker.tar"; echo 'no space left' >&2; exit 1`);
    expect(await failureOf(open())).toMatchObject({
      code: 'SOURCE_UNAVAILABLE',
      message: 'docker engine did not save app:v1: no space left',
    });
  });

  it('after the whole archive, is not trusted either', async () => {
    await engine('docker', app, ['app:v1'], 'cat "$DIR/docker.tar"; exit 1');
    expect(await failureOf(open())).toMatchObject({ code: 'SOURCE_UNAVAILABLE' });
  });

  it.each([0, 700, 100_000, 5_001_300])('after %i bytes without saying so, gives no shorter image', async bytes => {
    await engine('docker', app, ['app:v1'], `head -c ${bytes} "$DIR/docker.tar"`);
    expect(await failureOf(open())).toMatchObject({ code: 'ARCHIVE_INVALID' });
  });

  it('by writing something else, is ended', async () => {
    await engine('docker', app, ['app:v1'], 'exec yes');
    expect(await failureOf(open())).toMatchObject({ code: 'ARCHIVE_INVALID' });
  });
});

it.each(['yes | head -c 5000', 'head -c 512 "$DIR/docker.tar"; yes | head -c 9999999'])(
  'an engine that writes no archive (%s) and then hangs is ended',
  async output => {
    await engine('docker', app, ['app:v1'], `echo $$ >"$DIR/pid"; ${output}; exec tail -f /dev/null`);
    expect(await failureOf(open())).toMatchObject({ code: 'ARCHIVE_INVALID' });
    const pid = Number(await readFile(join(place.directory, 'pid'), 'utf8'));
    expect(() => process.kill(pid, 0)).toThrow('ESRCH');
  },
);

describe('a job that is cancelled', () => {
  it('ends the engine and leaves nothing behind', async () => {
    const fifo = join(place.directory, 'started');
    await promisify(execFile)('mkfifo', [fifo]);
    const save = `head -c 100000 "$DIR/docker.tar"; echo $$ >"$DIR/started"; exec tail -f /dev/null`;
    await engine('docker', app, ['app:v1'], save);
    const job = new AbortController();
    const failure = failureOf(open('app:v1', { signal: job.signal }));
    const pid = Number(await readFile(fifo, 'utf8'));
    job.abort();
    expect(await failure).toMatchObject({ code: 'CANCELLED' });
    expect(() => process.kill(pid, 0)).toThrow('ESRCH');
    expect(await readdir(place.scratch)).toEqual([]);
  });

  it('before it began, opens nothing', async () => {
    await engine('docker');
    expect(await failureOf(open('app:v1', { signal: AbortSignal.abort() }))).toMatchObject({ code: 'CANCELLED' });
    await expect(calls('docker')).rejects.toThrow('ENOENT');
  });
});

it('needs a name or an archive', async () => {
  expect(await failureOf(place.open({ source: 'docker', ...programs }))).toMatchObject({ code: 'INPUT_INVALID' });
  expect(await failureOf(open('app:v1', { source: 'archive' }))).toMatchObject({ code: 'INPUT_INVALID' });
});

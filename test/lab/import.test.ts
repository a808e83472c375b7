import { gzipSync, zstdCompressSync } from 'node:zlib';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { run, until } from './command.ts';
import { type Handmade, handmade, layerOf } from './handmade.ts';
import { down, enter, type Lab, type LabNode, type NodeKindName, up } from './index.ts';

const name = 'lab-test-import';
const buildMs = 60 * 60_000;

/** A containerd and the way in which its `ctr` imports. */
interface Way {
  readonly kind: NodeKindName;
  readonly flags: readonly string[];
  /** Whether the import goes through the transfer service. */
  readonly transfers: boolean;
  /** Whether `io.cri-containerd.pinned` is known. */
  readonly pins: boolean;
}

const ways: Readonly<Record<string, Way>> = {
  'containerd 1.6': { kind: 'containerd-1.6', flags: [], transfers: false, pins: false },
  'containerd 1.7': { kind: 'containerd-1.7', flags: [], transfers: false, pins: true },
  'containerd 2': { kind: 'containerd', flags: [], transfers: true, pins: true },
  'containerd 2 with --local': { kind: 'containerd', flags: ['--local'], transfers: false, pins: true },
};

/** What differs between the imports of containerd's versions, as `docs/notes/containerd.md` has it. */
describe.each(Object.entries(ways))('ctr images import of %s', (_, way) => {
  let lab: Lab;
  let node: LabNode;

  beforeAll(async () => {
    lab = await up({ name, nodes: [way.kind], cluster: false, log: line => console.log(line) });
    node = lab.nodes[0] ?? expect.unreachable();
  }, buildMs);
  afterAll(() => down(name), 60_000);

  let count = 0;
  const image = (more: Partial<Handmade> = {}) =>
    handmade({
      reference: `import.invalid/app:${count++}`,
      layers: [{ plain: layerOf('etc/number', `${count}`) }],
      ...more,
    });
  const load = (archive: Buffer, ...flags: readonly string[]) =>
    enter(node, ['ctr', '-n', 'k8s.io', 'images', 'import', ...way.flags, ...flags, '-'], { input: archive });
  const listed = async (reference: string) =>
    (await enter(node, ['ctr', '-n', 'k8s.io', 'images', 'ls', `name==${reference}`])).stdout;
  const crictl = (...argv: readonly string[]) => {
    const socket = `unix://${node.root}${node.criSocket}`;
    const endpoints = ['--config', '/dev/null', '--image-endpoint', socket, '--runtime-endpoint', socket];
    return run([`${lab.bin}/crictl`, ...endpoints, ...argv]);
  };
  /** What the CRI says of an image, once it has heard of it. */
  const status = (reference: string): Promise<{ readonly id: string; readonly pinned: boolean }> =>
    until(`the CRI to know ${reference}`, 5000, async () => {
      const { code, stdout } = await crictl('inspecti', '-o', 'json', reference);
      return code === 0 && JSON.parse(stdout).status;
    });

  test(way.transfers ? 'reads a compressed tar' : 'reads no compressed tar', async () => {
    for (const compress of [gzipSync, zstdCompressSync]) {
      const { code, stderr } = await load(compress(image().archive));
      expect(code).toBe(way.transfers ? 0 : 1);
      if (!way.transfers) expect(stderr).toContain('archive/tar: invalid tar header');
    }
  });

  test(way.transfers ? 'unpacks for its own snapshotter alone' : 'unpacks for any snapshotter', async () => {
    const { code, stderr } = await load(image().archive, '--snapshotter', 'native');
    expect(code).toBe(way.transfers ? 1 : 0);
    if (way.transfers) expect(stderr).toContain('no unpack platforms defined');
  });

  test(way.transfers ? 'leaves no name when a layer is broken' : 'leaves the name when a layer is broken', async () => {
    const reference = 'import.invalid/broken:1';
    const { archive } = image({ reference, layers: [{ plain: Buffer.from('not a tar at all '.repeat(100)) }] });
    const { code, stderr } = await load(archive);
    expect(code).toBe(1);
    expect(stderr).toContain('archive/tar: invalid tar header');
    expect((await listed(reference)).includes(reference)).toBe(!way.transfers);
  });

  test(
    way.transfers ? 'takes labels away from a name that it has' : 'keeps the labels of a name that it has',
    async () => {
      const reference = 'import.invalid/labelled:1';
      for (const { archive } of [image({ reference }), image({ reference })]) {
        expect(await load(archive)).toMatchObject({ code: 0 });
        await enter(node, ['ctr', '-n', 'k8s.io', 'images', 'label', reference, 'some=label']);
        expect(await listed(reference)).toContain('some=label');
        expect(await load(archive)).toMatchObject({ code: 0 });
        expect((await listed(reference)).includes('some=label')).toBe(!way.transfers);
      }
    },
  );

  test(way.pins ? 'pins by a label' : 'pins by no label', async () => {
    const reference = 'import.invalid/pinned:1';
    expect(await load(image({ reference }).archive)).toMatchObject({ code: 0 });
    await status(reference);
    await enter(node, ['ctr', '-n', 'k8s.io', 'images', 'label', reference, 'io.cri-containerd.pinned=pinned']);
    if (way.pins) {
      await until('the CRI to hear of the label', 5000, async () => (await status(reference)).pinned);
    } else {
      // A later image is known to the CRI: so it has heard of the label before it, and made nothing of it.
      const { archive } = image({ reference: 'import.invalid/later:1' });
      expect(await load(archive)).toMatchObject({ code: 0 });
      await status('import.invalid/later:1');
      expect((await status(reference)).pinned).toBe(false);
    }
  });

  test('keeps a bare name, which the CRI lists as a full one and does not find', async () => {
    const { archive, id } = image({ reference: 'bare:v3' });
    expect(await load(archive)).toMatchObject({ code: 0 });
    await until('the CRI to list it', 5000, async () => {
      const { images } = JSON.parse((await crictl('images', '-o', 'json')).stdout);
      return JSON.stringify(images).includes(`"id":"${id}","repoTags":["docker.io/library/bare:v3"]`);
    });
    for (const asked of ['bare:v3', 'docker.io/library/bare:v3']) {
      expect((await crictl('inspecti', asked)).stderr).toContain('no such image');
    }
  });

  test('refuses another architecture only when the index tells', async () => {
    const platform = ['--platform', 'linux/amd64'];
    const told = await load(image({ architecture: 'arm64' }).archive, ...platform);
    expect(told.code).toBe(1);
    expect(told.stderr).toContain('image might be filtered out');
    const reference = 'import.invalid/foreign:1';
    const untold = image({ reference, architecture: 'arm64', hasPlatform: false });
    expect(await load(untold.archive, ...platform)).toMatchObject({ code: 0 });
    expect((await status(reference)).id).toBe(untold.id);
  });

  test('takes one image several times at once, each time by a name of its own', async () => {
    const references = [1, 2, 3].map(number => `import.invalid/parallel:${number}`);
    const images = references.map(reference =>
      image({ reference, layers: [{ plain: layerOf('big', 'x'.repeat(20_000_000)) }] }),
    );
    const results = await Promise.all(images.map(({ archive }) => load(archive)));
    expect(results.filter(({ code }) => code !== 0)).toEqual([]);
    for (const [index, reference] of references.entries()) {
      expect((await status(reference)).id).toBe(images[index]?.id);
    }
  });

  test('fails with --all-platforms when the index names more than the archive carries', async () => {
    const { archive } = image({
      layers: [{ plain: layerOf('etc/elsewhere', 'of a platform that is not here'), isOmitted: true }],
    });
    const { code, stderr } = await load(archive, '--all-platforms');
    expect(code).toBe(1);
    expect(stderr).toMatch(/content digest sha256:\w{64}: not found/);
  });
});

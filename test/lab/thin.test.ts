import { createHash } from 'node:crypto';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { must, until } from './command.ts';
import { type Handmade, handmade, layerOf } from './handmade.ts';
import { down, enter, type Lab, type LabNode, type NodeKindName, type Outcome, up } from './index.ts';

const name = 'lab-test-thin';
const diffIdOf = (plain: Buffer) => `sha256:${createHash('sha256').update(plain).digest('hex')}`;
const buildMs = 60 * 60_000;

/** A way to import: which kind of node, and what is run there with the archive on standard input. */
interface Way {
  readonly kind: NodeKindName;
  readonly argv: (reference: string) => readonly string[];
}

const ctr = (kind: NodeKindName, ...flags: readonly string[]): Way => ({
  kind,
  argv: () => ['ctr', '-n', 'k8s.io', 'images', 'import', '--platform', 'linux/amd64', ...flags, '-'],
});
const containersStorage = (store: (reference: string) => string): Way => ({
  kind: 'crio',
  argv: reference => ['sh', '-c', `d=$(mktemp -d); trap 'rm -rf $d' EXIT; tar -xf - -C $d && ${store(reference)}`],
});

/** Importers that keep the blobs that they unpack, as containerd's do unless told. */
const keeping: Readonly<Record<string, Way>> = {
  'containerd 1.6': ctr('containerd-1.6'),
  'containerd 1.7': ctr('containerd-1.7'),
  'containerd 2': ctr('containerd'),
  'containerd 2 with --local': ctr('containerd', '--local'),
  'containerd 2 with the snapshotter native': ctr('containerd-native', '--local', '--snapshotter', 'native'),
};
const discarding: Readonly<Record<string, Way>> = {
  'containerd 1.7 with --discard-unpacked-layers': ctr('containerd-1.7', '--discard-unpacked-layers'),
  'containerd 2 with --local --discard-unpacked-layers': ctr('containerd', '--local', '--discard-unpacked-layers'),
};
const copying: Readonly<Record<string, Way>> = {
  skopeo: containersStorage(reference => `skopeo copy --quiet oci:$d containers-storage:${reference}`),
  'podman alone': containersStorage(reference => `i=$(podman pull --quiet oci:$d) && podman tag $i ${reference}`),
};
const docker: Readonly<Record<string, Way>> = { Docker: { kind: 'docker', argv: () => ['docker', 'load', '--quiet'] } };

const chains = { ...keeping, ...discarding };
const all = { ...chains, ...copying, ...docker };
const rows = (ways: Readonly<Record<string, Way>>) => Object.entries(ways);

/**
 * Which layers may be missing from an archive ("thin") that a node imports, by what the node has already, and what its
 * importer says when it needs one of them after all.
 */
describe('an archive that lacks layers', () => {
  let lab: Lab;

  beforeAll(async () => {
    const kinds = new Set(Object.values(all).map(({ kind }) => kind));
    lab = await up({ name, nodes: [...kinds], cluster: false, log: line => console.log(line) });
  }, buildMs);
  afterAll(() => down(name), 60_000);

  const nodeOf = (way: Way): LabNode => lab.nodes.find(({ kind }) => kind === way.kind) ?? expect.unreachable();
  let count = 0;
  const fresh = (what: string): Buffer => layerOf(`etc/${what}`, `${what} ${count++}`);

  const send = async (way: Way, layers: Handmade['layers'], kind: Handmade['kind'] = 'both') => {
    const reference = `thin.invalid/app:${count++}`;
    const { archive, id } = handmade({ reference, layers, kind });
    return { reference, id, result: await enter(nodeOf(way), way.argv(reference), { input: archive }) };
  };
  /** The image ID by the CRI, which hears of a new name a moment later. */
  const idOf = async (way: Way, reference: string): Promise<string> => {
    const node = nodeOf(way);
    const socket = `unix://${node.root}${node.criSocket.replace(/^\/var\/run/, '/run')}`;
    const argv = ['--config', '/dev/null', '--image-endpoint', socket, '--runtime-endpoint', socket];
    const answer = await until(`the CRI to know ${reference}`, 5000, () =>
      must([`${lab.bin}/crictl`, ...argv, 'inspecti', '-o', 'json', reference]),
    );
    return `sha256:${JSON.parse(answer).status.id.replace('sha256:', '')}`;
  };
  const taken = async (way: Way, layers: Handmade['layers'], kind?: Handmade['kind']) => {
    const { reference, id, result } = await send(way, layers, kind);
    expect(result).toMatchObject({ code: 0 });
    expect(await idOf(way, reference)).toBe(id);
    return reference;
  };
  const refused = async (way: Way, layers: Handmade['layers'], kind?: Handmade['kind']): Promise<Outcome> => {
    const { result } = await send(way, layers, kind);
    expect(result.code).toBeGreaterThan(0);
    return result;
  };
  /** A node that has an image of two layers. */
  const twoLayers = async (way: Way) => {
    const [base, top] = [fresh('base'), fresh('top')];
    return { base, top, reference: await taken(way, [{ plain: base }, { plain: top }]) };
  };

  test.each(rows(all))(
    'is taken when the layers below are there under the digest that it names: %s',
    async (_, way) => {
      const { base } = await twoLayers(way);
      await taken(way, [{ plain: base, isOmitted: true }, { plain: fresh('new') }]);
    },
  );

  test.each(rows(all))('is taken when it names those layers as plain tars, by their diffIDs: %s', async (_, way) => {
    const { base, top } = await twoLayers(way);
    await taken(way, [{ plain: base, form: 'plain', isOmitted: true }, { plain: fresh('new') }]);
    await taken(
      way,
      [base, top].map(plain => ({ plain, form: 'plain' as const, isOmitted: true })),
    );
  });

  test.each(rows({ ...chains, ...docker }))(
    'is taken when it names those layers by digests that nobody has seen: %s',
    async (_, way) => {
      const { base } = await twoLayers(way);
      await taken(way, [{ plain: base, form: 'gzip', isOmitted: true }, { plain: fresh('new') }]);
    },
  );

  test.each(rows(copying))('is not taken when it names them by digests that nobody has seen: %s', async (_, way) => {
    const { base } = await twoLayers(way);
    const { stderr } = await refused(way, [{ plain: base, form: 'gzip', isOmitted: true }, { plain: fresh('new') }]);
    expect(stderr).toMatch(/reading blob sha256:\w{64}: open \S+\/blobs\/sha256\/\w{64}: no such file or directory/);
  });

  test.each(rows({ ...keeping, ...copying }))(
    'is taken when a layer is there, but on top of others: %s',
    async (_, way) => {
      const { top } = await twoLayers(way);
      await taken(way, [{ plain: fresh('new') }, { plain: top, isOmitted: true }]);
      if (way.kind !== 'crio') return;
      await taken(way, [{ plain: fresh('new') }, { plain: top, form: 'plain', isOmitted: true }]);
    },
  );

  test.each(rows({ ...discarding, ...docker }))(
    'is not taken when a layer is there on top of others alone: %s',
    async (_, way) => {
      const { top } = await twoLayers(way);
      const layers = [{ plain: fresh('new') }, { plain: top, isOmitted: true }];
      if (way.kind !== 'docker') await forgotten(way, handmade({ reference: 'x', layers }).digests[1] ?? '');
      const { stderr } = await refused(way, layers);
      expect(stderr).toMatch(
        /content digest sha256:\w{64}: not found|blobs\/sha256\/\w{64}: no such file or directory/,
      );
    },
  );

  test.each(rows(copying))('is taken by the storage’s own word, without its cache of digests: %s', async (_, way) => {
    const { base } = await twoLayers(way);
    await enter(nodeOf(way), ['rm', '-r', '/var/lib/containers/cache']);
    await taken(way, [{ plain: base, isOmitted: true }, { plain: fresh('new') }]);
  });

  test.each(rows(chains))('stays whole when the image with the layers goes: %s', async (_, way) => {
    const { base, reference } = await twoLayers(way);
    const thin = await taken(way, [{ plain: base, form: 'gzip', isOmitted: true }, { plain: fresh('new') }]);
    await enter(nodeOf(way), ['ctr', '-n', 'k8s.io', 'images', 'rm', '--sync', reference]);
    expect((await check(way, thin)).stdout).toMatch(/ true\s*$/);
    // A layer on top of one that is only a snapshot, again.
    await taken(way, [{ plain: base, form: 'plain', isOmitted: true }, { plain: fresh('new') }]);
  });

  /** Blobs that are discarded go with the next garbage collection. */
  const forgotten = (way: Way, digest: string) =>
    until(`${digest} to be discarded`, 20_000, async () => {
      const listed = await enter(nodeOf(way), ['ctr', '-n', 'k8s.io', 'content', 'ls', '-q']);
      return !listed.stdout.includes(digest);
    });
  const check = (way: Way, reference: string) => {
    const snapshotter = way.kind === 'containerd-native' ? 'native' : 'overlayfs';
    const words = ['ctr', '-n', 'k8s.io', 'images', 'check', '--snapshotter', snapshotter, `name==${reference}`];
    return enter(nodeOf(way), words);
  };

  test.each(rows(chains))('fails when a layer is nowhere, by the name of its blob: %s', async (label, way) => {
    const { reference, result } = await send(way, [
      { plain: fresh('nobody'), isOmitted: true },
      { plain: fresh('top') },
    ]);
    expect(result.code).toBe(1);
    expect(result.stderr).toMatch(/failed to extract layer .*: content digest sha256:\w{64}: not found/);
    const listed = await enter(nodeOf(way), ['ctr', '-n', 'k8s.io', 'images', 'ls', '-q', `name==${reference}`]);
    if (label === 'containerd 2') {
      expect(listed.stdout).toBe('');
    } else {
      // The name stays, and the CRI says that it has the image; that it is not unpacked only `images check` tells.
      expect(listed.stdout.trim()).toBe(reference);
      await idOf(way, reference);
      expect((await check(way, reference)).stdout).toMatch(/ false\s*$/);
    }
  });

  test.each(rows({ ...copying, ...docker }))(
    'fails when a layer is nowhere, and leaves no name: %s',
    async (_, way) => {
      for (const form of ['zstd', 'plain'] as const) {
        const layers = [{ plain: fresh('nobody'), form, isOmitted: true }, { plain: fresh('top') }];
        const { reference, result } = await send(way, layers);
        expect(result.code).toBeGreaterThan(0);
        expect(result.stderr).toMatch(/open \S+\/blobs\/sha256\/\w{64}: no such file or directory/);
        const client = way.kind === 'docker' ? 'docker' : 'podman';
        expect((await enter(nodeOf(way), [client, 'image', 'inspect', reference])).code).toBeGreaterThan(0);
      }
    },
  );

  test.each(rows(all))('as a docker-archive alone is for Docker: %s', async (_, way) => {
    const { base } = await twoLayers(way);
    const layers = [{ plain: base, isOmitted: true }, { plain: fresh('new') }];
    if (way.kind === 'docker') {
      await taken(way, layers, 'docker');
      expect((await refused(way, layers, 'oci')).stderr).toMatch(/blobs\/json: no such file or directory/);
    } else if (way.kind === 'crio') {
      const script =
        'f=$(mktemp); cat >$f; skopeo copy docker-archive:$f containers-storage:thin.invalid/archive; c=$?; rm $f; exit $c';
      const { archive } = handmade({ reference: 'thin.invalid/archive:1', layers, kind: 'docker' });
      const { code, stderr } = await enter(nodeOf(way), ['sh', '-c', script], { input: archive });
      expect(code).toBe(1);
      expect(stderr).toContain('Some layer tarfiles are missing in the tarball');
    } else {
      expect((await refused(way, layers, 'docker')).stderr).toMatch(/layer "blobs\/sha256\/\w{64}" not found/);
    }
  });

  test.each(rows(all))('needs only what the node can say that it has: %s', async (_, way) => {
    const { base, top, reference } = await twoLayers(way);
    const [first, second] = [base, top].map(diffIdOf);
    const layers = JSON.stringify([first, second]);
    const ask = async (...argv: readonly string[]) => (await enter(nodeOf(way), argv)).stdout;
    if (way.kind === 'docker') {
      expect((await ask('docker', 'image', 'inspect', '--format', '{{json .RootFS.Layers}}', reference)).trim()).toBe(
        layers,
      );
    } else if (way.kind === 'crio') {
      expect((await ask('podman', 'image', 'inspect', '--format', '{{json .RootFS.Layers}}', reference)).trim()).toBe(
        layers,
      );
      const recorded = await ask('cat', '/var/lib/containers/storage/overlay-layers/layers.json');
      expect(recorded).toContain(`"diff-digest":"${second}"`);
    } else {
      const snapshotter = way.kind === 'containerd-native' ? 'native' : 'overlayfs';
      const listed = await ask('ctr', '-n', 'k8s.io', 'snapshots', '--snapshotter', snapshotter, 'ls');
      // OCI image-spec: the chain ID of the second layer is the digest of both, with a space between.
      expect(listed).toContain(first);
      expect(listed).toContain(diffIdOf(Buffer.from(`${first} ${second}`)));
    }
  });
});

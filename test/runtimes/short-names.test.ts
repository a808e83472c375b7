import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, inject, it } from 'vitest';
import { criImageId, kubectl, smokePods } from '../cluster/kubernetes.ts';
import { archive, build, onRunner } from '../engines.ts';
import { until } from '../lab/command.ts';
import { enter, type Image, type LabNode, start, stop } from '../lab/index.ts';
import { must } from '../node/people.ts';
import { check, type Inputs, leftOnNode, type Outcome, plan, push, reach, referencesOn } from '../shipped.ts';

const lab = inject('lab');
const nodeOf = (kind: string): LabNode => lab.nodes.find(node => node.kind === kind) ?? expect.unreachable();
const crio = nodeOf('crio');
const others = [nodeOf('containerd'), nodeOf('docker')];

/** As the recipe has it: podman builds it so, and a pod writes it so. */
const NAME = 'myimage:latest';
const FULL = 'docker.io/library/myimage:latest';

const directory = mkdtempSync(join(tmpdir(), 'kube-sideload-short-names-'));
let imageId = '';

beforeAll(() => {
  build(lab, 'podman', NAME, 'short names');
  imageId = `sha256:${onRunner(lab, 'podman', ['image', 'inspect', '--format', '{{.Id}}', NAME])}`;
});
afterEach(async () => {
  kubectl(lab, ['delete', 'pods', '--all', '--now', '--ignore-not-found']);
  expect(smokePods(lab)).toEqual([]);
  expect(await leftOnNode(lab)).toEqual([]);
});
afterAll(async () => {
  await configure({});
  rmSync(directory, { recursive: true, force: true });
});

interface Configuration {
  readonly search?: readonly string[];
  /** `short-name-mode` of registries.conf. */
  readonly mode?: string;
  /** `short_name_mode` of a drop-in of crio.conf. */
  readonly crioMode?: string;
  readonly alias?: string;
}

/** Gives CRI-O these rules, and no image of earlier tests. */
async function configure(rules: Configuration): Promise<void> {
  await write(rules);
  const ours = "podman image ls --noheading --format '{{.Repository}}:{{.Tag}}' | grep -e /myimage: -e /team/app:";
  await must(
    crio,
    `for name in $(${ours}); do podman image rm --force $name >/dev/null; done; rm -rf /var/lib/kube-sideload`,
  );
  await stop(crio, 'crio');
  await start(crio, 'crio');
}

async function write({ search, mode, crioMode, alias }: Configuration): Promise<void> {
  const registries = [
    ...(search === undefined ? [] : [`unqualified-search-registries = ${JSON.stringify(search)}`]),
    ...(mode === undefined ? [] : [`short-name-mode = "${mode}"`]),
  ];
  const files = {
    '/etc/containers/registries.conf': registries,
    '/etc/containers/registries.conf.d/90-lab.conf': alias === undefined ? [] : ['[aliases]', `myimage = "${alias}"`],
    '/etc/crio/crio.conf.d/90-lab.conf':
      crioMode === undefined ? [] : ['[crio.image]', `short_name_mode = "${crioMode}"`],
  };
  for (const [file, lines] of Object.entries(files)) {
    await must(crio, `mkdir -p ${file.replace(/\/[^/]*$/, '')}; cat >${file} <<'END'\n${lines.join('\n')}\nEND`);
  }
}

function inputsFor(nodes: readonly LabNode[], more: Inputs = {}): Inputs {
  const list = nodes.map(({ address, name }) => `${address}=${name}`);
  return { ...reach(lab, list), images: NAME, source: 'podman', ...more };
}

/** Which references each node has got, what their smoke pods wrote, and what came of it. */
function placed({ nodes }: Outcome): readonly unknown[] {
  return nodes.map(({ images }) =>
    images.map(({ reference, spelling, smoke }) => [reference, spelling ?? reference, smoke]),
  );
}

/** What the kubelet says of a pod of a user that writes the name and never pulls. */
async function podOn(node: LabNode, image: string): Promise<string> {
  const name = `user-${node.name}`;
  const manifest = {
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { name },
    spec: {
      nodeName: node.name,
      automountServiceAccountToken: false,
      terminationGracePeriodSeconds: 0,
      containers: [{ name: 'app', image, imagePullPolicy: 'Never' }],
    },
  };
  kubectl(lab, ['delete', 'pod', name, '--now', '--ignore-not-found']);
  kubectl(lab, ['create', '-f', '-'], JSON.stringify(manifest));
  const path = '{.status.containerStatuses[0].state.waiting.reason}{" "}{.status.phase}';
  let said = '';
  await until(`the kubelet of ${node.name} to speak of ${image}`, 60_000, async () => {
    said = kubectl(lab, ['get', 'pod', name, '-o', `jsonpath=${path}`]).trim();
    return said === 'Running' || /^(Image|Err)\w+ /.test(said);
  });
  return said.split(' ')[0] ?? '';
}

describe('a name that pods write short', () => {
  it('is the same on containerd and Docker, and one smoke pod writes it as the user does', async () => {
    const outcome = await push(inputsFor(others), { lab });
    expect(outcome.code, outcome.log).toBe(0);
    expect(placed(outcome)).toEqual(others.map(() => [[FULL, NAME, 'Running']]));
    const said = kubectl(lab, ['get', 'events', '-o', 'jsonpath={.items[*].message}']);
    expect(said).toContain(`Container image "${NAME}" already present on machine`);
    for (const node of others) {
      expect(await podOn(node, NAME), node.kind).toBe('Running');
    }
  });

  it('is refused before a byte moves where CRI-O searches nowhere, and the full name is what to write', async () => {
    await configure({});
    const planned = await plan(inputsFor([crio]), { lab });
    expect(planned.code).toBe(1);
    expect(planned.nodes[0]?.findings).toMatchObject([
      {
        code: 'SHORT_NAME_REFUSED',
        severity: 'error',
        message: expect.stringMatching(/myimage:latest: short-name .* no unqualified-search registries are defined/),
        hint: `Write ${FULL} in the pods and in \`images\`.`,
      },
    ]);
    const pushed = await push(inputsFor([crio]), { lab });
    expect(pushed.nodes[0]?.error?.code, pushed.log).toBe('SHORT_NAME_REFUSED');
    expect(pushed.outputs['bytes-sent']).toBe('0');
    expect(await referencesOn(lab, crio.name)).not.toContain(FULL);

    const full = await push(inputsFor([crio], { images: FULL }), { lab });
    expect(full.code, full.log).toBe(0);
    expect(placed(full)).toEqual([[[FULL, FULL, 'Running']]]);
    expect(await podOn(crio, NAME)).toBe('ImageInspectError');
    expect(await podOn(crio, FULL)).toBe('Running');
  });

  it('is put under the one name that CRI-O makes of it, besides the full one', async () => {
    await configure({ search: ['registry.example:5000'], mode: 'disabled' });
    const reference = 'registry.example:5000/myimage:latest';
    const report = join(directory, 'report.json');
    const outcome = await push(inputsFor([crio], { 'report-json': report, pin: 'true' }), { lab });
    expect(outcome.code, outcome.log).toBe(0);
    expect(placed(outcome)).toEqual([
      [
        [FULL, FULL, 'Running'],
        [reference, NAME, 'Running'],
      ],
    ]);
    expect(outcome.log).toContain(`needs ${reference} (${NAME} there)`);
    expect(await criImageId(lab, crio, NAME)).toBe(imageId);
    expect(await podOn(crio, NAME)).toBe('Running');
    const record = (await enter(crio, ['cat', '/var/lib/kube-sideload/images'])).stdout;
    expect(record).toContain(FULL);
    expect(record).toContain(reference);

    for (const by of [{ expected: report, images: '' }, {}]) {
      const same = await check(inputsFor([crio], { ...by, source: by.expected === undefined ? 'podman' : 'auto' }), {
        lab,
      });
      expect(same.code, same.log).toBe(0);
      expect(same.nodes[0]?.images.map(image => image.reference)).toEqual([FULL, reference]);
    }
    await configureAlso({ search: ['elsewhere.example'] });
    const differs = await check(inputsFor([crio], { expected: report, images: '', source: 'auto' }), { lab });
    expect(differs.nodes[0]?.error, differs.log).toMatchObject({
      code: 'DRIFT',
      message: expect.stringContaining('elsewhere.example/myimage:latest: the runtime does not have it'),
    });

    await configureAlso({ search: ['registry.example:5000'] });
    kubectl(lab, ['delete', 'pods', '--all', '--now']);
    build(lab, 'podman', 'myimage:2', 'a later release');
    const later = await push(inputsFor([crio], { images: 'myimage:2', keep: '1', smoke: 'none' }), { lab });
    expect(later.code, later.log).toBe(0);
    const left = (await referencesOn(lab, crio.name)).filter(name => name.includes('myimage'));
    expect(left).toEqual(['docker.io/library/myimage:2', 'registry.example:5000/myimage:2']);
  });

  it('is refused where CRI-O could take it for several, whatever registries.conf says of its mode', async () => {
    await configure({ search: ['registry.example', 'docker.io'], mode: 'permissive' });
    const outcome = await plan(inputsFor([crio]), { lab });
    expect(outcome.nodes[0]?.error, outcome.log).toMatchObject({
      code: 'SHORT_NAME_REFUSED',
      message: expect.stringContaining(
        'short name mode is enforcing, but image name myimage:latest returns ambiguous list',
      ),
    });
    expect(await podOn(crio, NAME)).toBe('ImageInspectError');
    // What is written counts when CRI-O starts anew: until then its own word does.
    await write({ search: ['registry.example', 'docker.io'], crioMode: 'disabled' });
    expect((await plan(inputsFor([crio]), { lab })).nodes[0]?.error?.code).toBe('SHORT_NAME_REFUSED');
  });

  it('is put under the first of several, where another image lies that pods would get, and which comes back when the job fails', async () => {
    await configure({ search: ['registry.example', 'docker.io'], mode: 'enforcing', crioMode: 'disabled' });
    const first = 'registry.example/myimage:latest';
    const old = await other(first);
    const { kubeconfig: _none, ...byCri } = inputsFor([crio], { smoke: 'cri', 'smoke-command': '/nowhere' });
    const failed = await push(byCri, { lab });
    expect(failed.nodes[0]?.error?.code, failed.log).toBe('SMOKE_START');
    expect(await criImageId(lab, crio, NAME)).toBe(old.id);
    expect(await referencesOn(lab, crio.name)).not.toContain(FULL);

    const outcome = await push(inputsFor([crio]), { lab });
    expect(outcome.code, outcome.log).toBe(0);
    expect(placed(outcome)).toEqual([
      [
        [FULL, FULL, 'Running'],
        [first, NAME, 'Running'],
      ],
    ]);
    expect(await criImageId(lab, crio, NAME)).toBe(imageId);
    expect(await podOn(crio, NAME)).toBe('Running');
  });

  it('is what an alias makes of it, for the runtime’s own verdict too', async () => {
    await configure({ search: ['registry.example', 'docker.io'], alias: 'quay.example/team/app' });
    const { kubeconfig: _none, ...own } = inputsFor([crio], { smoke: 'cri' });
    const outcome = await push(own, { lab });
    expect(outcome.code, outcome.log).toBe(0);
    expect(placed(outcome)).toEqual([
      [
        [FULL, FULL, expect.stringContaining('Running')],
        ['quay.example/team/app:latest', NAME, expect.stringContaining('Running')],
      ],
    ]);
    expect(await podOn(crio, NAME)).toBe('Running');
  });

  it('is what the pods of a manifest write, although `images` has it in full', async () => {
    await configure({ search: ['docker.io'] });
    const pod = { kind: 'Pod', spec: { containers: [{ name: 'app', image: 'myimage' }] } };
    const outcome = await push(inputsFor([crio], { images: FULL, 'smoke-manifest': JSON.stringify(pod) }), { lab });
    expect(outcome.code, outcome.log).toBe(0);
    expect(placed(outcome)).toEqual([[[FULL, 'myimage', 'Running']]]);
  });
});

describe('a user who may read neither root’s files nor what CRI-O says', () => {
  const limited = lab.nodes.filter(({ kind }) => kind === 'rhcos-layout');

  it.for(limited)(
    'is told what is not certain, and a pod proves it, or nobody does ($kind)',
    async (node, { expect }) => {
      const file = '/etc/containers/registries.conf';
      const inputs = inputsFor([node], { 'ssh-user': 'loader' });
      await must(
        node,
        `stat -c %a /root >/run/mode-of-root; chmod 700 /root; cp -a ${file} ${file}.before; echo 'unqualified-search-registries = ["docker.io"]' >${file}; pkill -HUP -x crio`,
      );
      try {
        const { kubeconfig: _none, ...unproven } = inputs;
        const planned = await plan({ ...unproven, smoke: 'none' }, { lab });
        expect(planned.nodes[0]?.error, planned.log).toMatchObject({
          code: 'SHORT_NAME_DOUBTFUL',
          message: expect.stringContaining('/root/.config/containers/registries.conf may not be read'),
        });
        const outcome = await push(inputs, { lab });
        expect(outcome.code, outcome.log).toBe(0);
        expect(outcome.nodes[0]?.findings).toMatchObject([{ code: 'SHORT_NAME_DOUBTFUL', severity: 'warning' }]);
        expect(placed(outcome)).toEqual([[[FULL, NAME, 'Running']]]);
      } finally {
        await must(node, `chmod $(cat /run/mode-of-root) /root; mv ${file}.before ${file}; pkill -HUP -x crio`);
      }
    },
  );
});

/** The same without a loss of images: CRI-O reads registries.conf again on SIGHUP. */
async function configureAlso(rules: Configuration): Promise<void> {
  await write(rules);
  await must(crio, 'pkill -HUP -x crio');
}

/** Another image under a name of the node. */
async function other(reference: string): Promise<Image> {
  const image = await archive(directory, { reference, layers: [{ files: { 'etc/other': 'yes' } }] });
  const { kubeconfig: _none, ...own } = inputsFor([crio]);
  const outcome = await push(
    { ...own, images: reference, source: 'archive', archive: image.file, smoke: 'none' },
    { lab },
  );
  expect(outcome.code, outcome.log).toBe(0);
  return image;
}

import { appendFileSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, describe, expect, inject, it } from 'vitest';
import { archive, build, onRunner } from '../engines.ts';
import { enter, type LabNode, start, stop } from '../lab/index.ts';
import { leftOnNode, nodeNamed, plan, push, reach, referencesOn, runAction } from '../shipped.ts';
import { kubectl, smokePods } from './kubernetes.ts';

const lab = inject('lab');
const [n1, n2, n3] = [nodeNamed(lab, 'n1'), nodeNamed(lab, 'n2'), nodeNamed(lab, 'n3')];
const PAUSE = 'registry.k8s.io/pause:3.10';
const directory = mkdtempSync(join(tmpdir(), 'kube-sideload-plan-'));
afterAll(() => rmSync(directory, { recursive: true, force: true }));

afterEach(async () => {
  expect(smokePods(lab)).toEqual([]);
  expect(await leftOnNode(lab)).toEqual([]);
});

/** Everything that a run could have changed: references on the nodes, and pods in the cluster. */
async function state(): Promise<unknown> {
  return {
    references: await Promise.all(lab.nodes.map(({ name }) => referencesOn(lab, name))),
    pods: kubectl(lab, ['get', 'pods', '-A', '-o', 'name']),
  };
}

describe('a plan', () => {
  it('says what each node lacks, changes nothing, and agrees with what push does', async () => {
    build(lab, 'docker', 'planned:1', 'planned');
    const inputs = { ...reach(lab), images: 'planned:1' };
    await push({ ...reach(lab, [n1.address]), images: 'planned:1' }, { lab });
    const before = await state();
    const outcome = await plan(inputs, { lab });
    expect(await state()).toEqual(before);
    expect(outcome.outputs).toMatchObject({ changed: 'true', 'bytes-sent': '0' });
    expect(outcome.code).toBe(0);
    expect(outcome.log).toMatch(/^n1 .* has it +0 B +none$/m);
    expect(outcome.log).toMatch(/^n2 .* send +up to \d+\.\d MB +none$/m);

    const pushed = await push(inputs, { lab });
    for (const [index, { images }] of outcome.nodes.entries()) {
      expect(pushed.nodes[index]?.images[0]?.bytesSent).toBeLessThanOrEqual(images[0]?.estimatedBytes ?? -1);
    }
    const after = await plan(inputs, { lab });
    expect(after.nodes.map(({ images }) => images[0]?.outcome)).toEqual(['present', 'present', 'present']);
    expect(after.outputs.changed).toBe('false');
  });

  it('is a mode of the action, with the table in the summary, where an alias is sent with its image', async () => {
    build(lab, 'docker', 'planned:2', 'planned twice');
    const inputs = { ...reach(lab), images: 'planned:2', aliases: 'planned:two' };
    const outcome = await runAction({ ...inputs, mode: 'plan' }, { lab });
    expect(outcome.code).toBe(0);
    expect(outcome.summary).toMatch(/^## kube-sideload: a push would start$/m);
    expect(outcome.summary).toMatch(
      /^\| n3 \| linux\/amd64 \| containerd [^|]+ \| docker\.io\/library\/planned:two \| send \| up to /m,
    );
    expect(outcome.summary).toMatch(/planned:2 \| send \| sent once, by another name \|/);
    expect(outcome.log).not.toContain('Send what is missing');
  });

  it('has all nodes and all reasons at once, as push has before a byte moves', async () => {
    const image = await archive(directory, {
      reference: 'docker.io/library/planned:3',
      layers: [{ fillBytes: 90_000_000 }],
    });
    const inputs = { ...reach(lab), images: 'planned:3', archive: image.file, 'connect-timeout': '3s' };
    await stop(n2, 'sshd');
    await withSmallDisk(n3, async () => {
      for (const run of [plan, push]) {
        const outcome = await run(inputs, { lab });
        expect(outcome.code).toBe(1);
        expect(outcome.nodes.map(({ findings }) => findings.map(({ code }) => code))).toEqual([
          [],
          ['SSH_UNREACHABLE'],
          ['SANDBOX_IMAGE_MISSING', 'DISK_FULL'],
        ]);
        expect(outcome.log).toMatch(
          /^n3 +error +DISK_FULL +the layers alone are 92\.\d MB; .* free on \/var\/lib\/containerd$/m,
        );
        expect(outcome.log).toContain(
          '2 of 3 nodes failed: n2 [SSH_UNREACHABLE], n3 [SANDBOX_IMAGE_MISSING, DISK_FULL]',
        );
        expect(outcome.log).toContain('also [DISK_FULL]: ');
        expect(outcome.outputs['bytes-sent']).toBe('0');
      }
    }).finally(() => start(n2, 'sshd'));
    expect(await referencesOn(lab, 'n1')).not.toContain('docker.io/library/planned:3');
  });
});

describe('what a kubelet is told about images', () => {
  it('is read: an image that was imported is refused by AlwaysVerify, as the kubelet itself shows', async () => {
    build(lab, 'docker', 'verified:1', 'verified');
    const inputs = { ...reach(lab, [n1.address]), images: 'verified:1' };
    await push(inputs, { lab });
    await withKubelet(n1, 'imagePullCredentialsVerificationPolicy: AlwaysVerify\n', async () => {
      const held = await push(inputs, { lab });
      expect(held.nodes[0]?.findings).toMatchObject([{ severity: 'warning', code: 'IMAGE_CREDENTIALS_POLICY' }]);
      expect(held.nodes[0]?.error?.code).toBe('SMOKE_IMAGE_NEVER_PULL');
      expect(held.nodes[0]?.error?.message).toMatch(
        /and it is there still: the kubelet’s \S+, AlwaysVerify, keeps pods/,
      );

      build(lab, 'docker', 'verified:1', 'verified anew');
      const sent = await push(inputs, { lab });
      expect(sent.nodes[0]?.error?.code).toBe('IMAGE_CREDENTIALS_POLICY');
      expect(sent.outputs['bytes-sent']).toBe('0');
    });
  });

  it('is read: a threshold of its image collection that the disk has passed is a warning', async () => {
    build(lab, 'docker', 'collected:1', 'collected');
    const inputs = { ...reach(lab, [n1.address]), images: 'collected:1' };
    await withKubelet(n1, 'imageGCHighThresholdPercent: 1\nimageGCLowThresholdPercent: 0\n', async () => {
      const outcome = await plan(inputs, { lab });
      expect(outcome.log).toMatch(/^\S+ +warning +IMAGE_GC_LIKELY .* removes unused images from 1 % on$/m);
      expect(outcome.code).toBe(0);
    });
  });
});

it('a sandbox image that is missing stops the job, and is sent along when asked', async () => {
  build(lab, 'docker', 'sandboxed:1', 'sandboxed');
  const kept = join('/tmp', 'pause.tar');
  const inputs = { ...reach(lab, [n1.address]), images: 'sandboxed:1' };
  await run(n1, ['ctr', '-n', 'k8s.io', 'images', 'export', kept, PAUSE]);
  const pause = join(directory, 'pause.tar');
  writeFileSync(pause, readFileSync(join(n1.root, kept)));
  await run(n1, ['rm', kept]);
  await run(n1, ['ctr', '-n', 'k8s.io', 'images', 'rm', '--sync', PAUSE]);
  const refused = await push(inputs, { lab });
  expect(refused.nodes[0]?.error?.code).toBe('SANDBOX_IMAGE_MISSING');
  expect(refused.log).toContain('set `sandbox-image: send`');
  expect(refused.outputs['bytes-sent']).toBe('0');

  const asked = { ...inputs, 'sandbox-image': 'send' };
  const unknown = await push(asked, { lab });
  expect(unknown.nodes[0]?.error?.code).toBe('SANDBOX_IMAGE_MISSING');
  expect(unknown.log).toMatch(/registry\.k8s\.io\/pause:3\.10, which nodes lack, cannot be sent along: /);
  expect(unknown.nodes[0]?.error?.hint).toMatch(/^Pull it on the runner .* is set, and found it nowhere/);

  onRunner(lab, 'skopeo', ['copy', '--quiet', `oci-archive:${pause}`, `docker-daemon:${PAUSE}`]);
  const two = { ...asked, ...reach(lab, [n1.address, n2.address]) };
  const planned = await plan(two, { lab });
  expect(planned.nodes.map(({ images, findings }) => [images.map(image => image.reference), findings])).toEqual([
    [['docker.io/library/sandboxed:1', PAUSE], []],
    [['docker.io/library/sandboxed:1'], []],
  ]);
  expect(planned.log).toMatch(/ registry\.k8s\.io\/pause:3\.10 +send +\S.* none$/m);
  expect(await referencesOn(lab, 'n1')).not.toContain(PAUSE);
  const healed = await push(two, { lab });
  expect(healed.nodes[0]?.images.map(({ outcome, smoke }) => [outcome, smoke])).toEqual([
    ['sent', 'Running'],
    ['sent', undefined],
  ]);
  expect(healed.code).toBe(0);
  expect(await referencesOn(lab, 'n1')).toContain(PAUSE);

  // An archive without it: an engine has it.
  await run(n1, ['ctr', '-n', 'k8s.io', 'images', 'rm', '--sync', PAUSE]);
  const image = await archive(directory, { reference: 'docker.io/library/sandboxed:2' });
  const archived = { ...asked, images: 'sandboxed:2', archive: image.file };
  expect((await push(archived, { lab })).nodes[0]?.images.map(({ outcome }) => outcome)).toEqual(['sent', 'sent']);
});

/** Puts an empty disk of 64 MB in place of the one that a node's containerd keeps its images on. */
async function withSmallDisk(node: LabNode, body: () => Promise<void>): Promise<void> {
  const place = '/var/lib/containerd';
  await stop(node, 'containerd');
  await run(node, ['mount', '-t', 'tmpfs', '-o', 'size=64m', 'small', place]);
  try {
    await start(node, 'containerd');
    await body();
  } finally {
    await stop(node, 'containerd');
    await run(node, ['umount', place]);
    await start(node, 'containerd');
  }
}

/** Restarts a node's kubelet with more in its configuration. */
async function withKubelet(node: LabNode, lines: string, body: () => Promise<void>): Promise<void> {
  const file = join(node.root, 'var/lib/kubelet/config.yaml');
  const before = readFileSync(file, 'utf8');
  const keys = lines.split('\n').flatMap(line => line.split(':')[0] || []);
  const kept = before.split('\n').filter(line => !keys.some(key => line.startsWith(`${key}:`)));
  await stop(node, 'kubelet');
  writeFileSync(file, kept.join('\n'));
  appendFileSync(file, lines);
  try {
    await start(node, 'kubelet');
    await body();
  } finally {
    await stop(node, 'kubelet');
    writeFileSync(file, before);
    await start(node, 'kubelet');
    kubectl(lab, ['wait', 'node', node.name, '--for=condition=Ready', '--timeout=60s']);
  }
}

async function run(node: LabNode, argv: readonly string[]): Promise<void> {
  const { code, stderr } = await enter(node, [...argv]);
  expect(stderr).toBe('');
  expect(code).toBe(0);
}

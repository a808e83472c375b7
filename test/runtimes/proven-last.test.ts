import { createHash } from 'node:crypto';
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, describe, expect, inject, it } from 'vitest';
import { enter, type Image, type LabNode, makeImage } from '../lab/index.ts';
import { check, crictl, type Inputs, leftOnNode, type Outcome, plan, prune, push, reach } from '../shipped.ts';

const lab = inject('lab');
const nodes = ['containerd', 'crio', 'docker'].map(kind => {
  const node = lab.nodes.find(one => one.kind === kind);
  if (node === undefined) throw new Error(`the lab has no ${kind}`);
  return node;
});
const [containerd, crio, docker] = nodes as [LabNode, LabNode, LabNode];

const directory = mkdtempSync(join(tmpdir(), 'kube-sideload-last-'));
afterAll(() => rmSync(directory, { recursive: true, force: true }));
afterEach(async () => {
  expect(await leftOnNode(lab)).toEqual([]);
});

const APP = 'docker.io/library/last:1';
const OTHER = 'docker.io/library/last:other';

function image(name: string, reference = APP): Promise<Image> {
  return makeImage({
    file: join(directory, `${name}.tar`),
    reference,
    layers: [{ files: { 'etc/release': `last ${name}` } }],
    command: ['/bin/sh', '-c', 'sleep 60'],
  });
}

function inputs(some: readonly LabNode[], more: Inputs = {}): Inputs {
  return {
    ...reach(
      lab,
      some.map(({ address, name }) => `${address}=${name}`),
    ),
    ...more,
  };
}

/** A push that is held still as soon as its log says something so many times, while somebody changes the nodes. */
async function pushMeanwhile(given: Inputs, line: RegExp, times: number, change: () => Promise<unknown>) {
  let seen = 0;
  let changing: Promise<unknown> | undefined;
  const outcome = await push(given, {
    lab,
    onLine: (text, pid) => {
      if (!line.test(text)) return;
      seen += 1;
      if (seen !== times) return;
      process.kill(pid, 'SIGSTOP');
      changing = change().finally(() => process.kill(pid, 'SIGCONT'));
    },
  });
  await (changing ?? expect.unreachable('nothing was changed'));
  return outcome;
}

const VERDICT = /✔/;
const everywhere = (change: (node: LabNode) => Promise<void>) => () => Promise.all(nodes.map(change));

async function must(node: LabNode, argv: readonly string[]): Promise<void> {
  const { code, stderr } = await enter(node, argv);
  expect(code, stderr).toBe(0);
}

/** Gives the name to another image, as a person does. */
async function move(node: LabNode): Promise<void> {
  const words = {
    containerd: ['ctr', '-n', 'k8s.io', 'images', 'tag', '--force', OTHER, APP],
    crio: ['podman', 'tag', OTHER, APP],
    docker: ['docker', 'tag', OTHER, APP],
  };
  await must(node, words[node.runtime]);
}

/** Takes the name away, also while a container uses the image. */
async function remove(node: LabNode, reference = APP): Promise<void> {
  const words = {
    containerd: ['ctr', '-n', 'k8s.io', 'images', 'rm', reference],
    crio: ['podman', 'untag', reference, reference],
    docker: ['docker', 'image', 'rm', '--force', reference],
  };
  await must(node, words[node.runtime]);
}

/** What the CRI has under the name; `undefined` for nothing. */
async function idOn(node: LabNode, reference = APP): Promise<string | undefined> {
  const { status } = JSON.parse(await crictl(lab, node, ['inspecti', '-o', 'json', reference]).catch(() => '{}')) as {
    status?: { id: string };
  };
  return status === undefined ? undefined : `sha256:${status.id.replace('sha256:', '')}`;
}

function recordOn(node: LabNode): string {
  const lines = readFileSync(join(node.root, 'var/lib/kube-sideload/images'), 'utf8').split('\n');
  return lines.filter(line => line.startsWith(`${APP} `)).join('\n');
}

function errorsOf({ nodes: reports }: Outcome) {
  return reports.map(({ error }) => error?.code);
}

describe('a job whose smoke pods have passed', () => {
  const old = image('old');
  const fresh = image('fresh');
  const other = image('other', OTHER);

  it('fails, and says what is there and what should be, when the name is moved on the nodes before it ends', async () => {
    const placed = await push(inputs(nodes, { archive: (await old).file, smoke: 'none' }), { lab });
    expect(placed.code, placed.log).toBe(0);
    expect(placed.log).toContain('done: all 3 nodes hold what CI built');
    expect(placed.outputs).toMatchObject({
      images: APP,
      'image-ids': JSON.stringify({ [APP]: { 'linux/amd64': (await old).id } }),
    });
    expect((await push(inputs(nodes, { archive: (await other).file, smoke: 'none' }), { lab })).code).toBe(0);

    const given = inputs(nodes, {
      archive: (await fresh).file,
      'report-json': join(directory, 'moved.json'),
      'report-dotenv': join(directory, 'moved.env'),
    });
    const outcome = await pushMeanwhile(given, VERDICT, nodes.length, everywhere(move));
    expect(errorsOf(outcome), outcome.log).toEqual(nodes.map(() => 'CHANGED_SINCE'));
    for (const { error } of outcome.nodes) {
      expect(error?.message).toBe(`${APP}: crictl reports image ID ${(await other).id}, CI built ${(await fresh).id}`);
    }
    // `docker tag` leaves the image nameless that it takes the name from.
    await must(docker, ['docker', 'image', 'prune', '--force']);
    // What somebody has put there since is not overwritten, and is said.
    expect(await Promise.all(nodes.map(node => idOn(node)))).toEqual(Array(3).fill((await other).id));
    expect(outcome.nodes.map(({ images }) => images.map(one => [one.outcome, one.isHeld, one.drift]))).toEqual(
      nodes.map(() => [['changed', false, 'other-image']]),
    );
    expect(outcome.log).toContain(`${APP} is not put back: it names ${(await other).id}`);
    expect(outcome.code).toBe(1);
    expect(outcome.log).not.toContain('hold what CI built');
    expect(outcome.outputs).toMatchObject({ images: '', 'image-ids': '{}', changed: 'true' });
    expect(JSON.parse(readFileSync(join(directory, 'moved.json'), 'utf8'))).toMatchObject({
      held: {},
      images: { [APP]: { 'linux/amd64': (await fresh).id } },
    });
    expect(readFileSync(join(directory, 'moved.env'), 'utf8')).toMatch(/^KUBE_SIDELOAD_IMAGE_COUNT=0$/m);
  });

  it('fails when the image is removed before it ends, and all nodes get back what they had, their record too', async () => {
    const placed = await push(inputs(nodes, { archive: (await old).file, smoke: 'none' }), { lab });
    expect(placed.code, placed.log).toBe(0);
    const before = nodes.map(recordOn);
    const given = inputs(nodes, { archive: (await fresh).file, 'report-junit': join(directory, 'removed.xml') });
    // Not on the first one, which is put back with the others.
    const outcome = await pushMeanwhile(given, VERDICT, nodes.length, () =>
      Promise.all(nodes.slice(1).map(node => remove(node))),
    );
    // As does `docker image rm --force` with one that a container uses.
    await must(docker, ['docker', 'image', 'prune', '--force']);
    expect(errorsOf(outcome), outcome.log).toEqual([undefined, 'CHANGED_SINCE', 'CHANGED_SINCE']);
    expect(outcome.nodes[1]?.error?.message).toBe(
      `${APP}: the runtime does not have it; it should be ${(await fresh).id}`,
    );
    expect(await Promise.all(nodes.map(node => idOn(node)))).toEqual(Array(3).fill((await old).id));
    expect(nodes.map(recordOn)).toEqual(before);
    expect(outcome.nodes.flatMap(({ images }) => images.map(one => [one.outcome, one.isHeld]))).toEqual(
      nodes.map(() => ['restored', false]),
    );
    expect(outcome.outputs).toMatchObject({ images: '', 'image-ids': '{}', changed: 'false' });
    expect(readFileSync(join(directory, 'removed.xml'), 'utf8')).toMatch(
      /tests="3" failures="2" errors="0" skipped="1"/,
    );
  });

  it('fails when a pin is taken away before it ends', async () => {
    const pinning = [containerd, crio];
    const given = inputs(pinning, { archive: (await fresh).file, pin: 'true' });
    const outcome = await pushMeanwhile(given, VERDICT, pinning.length, async () => {
      await must(containerd, ['ctr', '-n', 'k8s.io', 'images', 'label', APP, 'io.cri-containerd.pinned=']);
      await must(crio, ['sh', '-c', 'rm -f /etc/crio/crio.conf.d/*kube-sideload*; pkill -HUP -x crio']);
      await expect
        .poll(async () => await crictl(lab, crio, ['inspecti', '-o', 'json', APP]), { timeout: 20_000 })
        .toMatch(/"pinned": *false/);
    });
    expect(errorsOf(outcome), outcome.log).toEqual(['CHANGED_SINCE', 'CHANGED_SINCE']);
    expect(outcome.nodes[0]?.error?.message).toBe(`${APP}: it was pinned, and is not any more`);
    expect(outcome.outputs.images).toBe('');
    expect(await Promise.all(pinning.map(node => idOn(node)))).toEqual(Array(2).fill((await old).id));
  });

  it('fails when the image goes while old releases are removed, and what is proven stays on the other nodes', async () => {
    const some = [containerd, crio];
    const releases = await Promise.all(['1', '2'].map(tag => image(`kept ${tag}`, `docker.io/library/kept:${tag}`)));
    const [first = expect.unreachable(), second = expect.unreachable()] = releases;
    const keeping = { smoke: 'none', keep: '1' } as const;
    expect((await push(inputs(some, { archive: first.file, ...keeping }), { lab })).code).toBe(0);
    const real = (await enter(containerd, ['sh', '-c', 'command -v ctr'])).stdout.trim();
    // Somebody tidies up a little more, at the same moment.
    const tidy = `#!/bin/sh\ncase "$*" in *' rm '*kept:1*) ${real} -n k8s.io images rm ${second.reference} ;; esac\nexec ${real} "$@"\n`;
    await must(containerd, ['sh', '-c', 'printf %s "$0" >/usr/local/sbin/ctr; chmod 755 /usr/local/sbin/ctr', tidy]);
    const outcome = await push(inputs(some, { archive: second.file, ...keeping }), { lab }).finally(() =>
      enter(containerd, ['rm', '-f', '/usr/local/sbin/ctr']),
    );
    expect(errorsOf(outcome), outcome.log).toEqual(['CHANGED_SINCE', undefined]);
    expect(outcome.log).not.toContain('Put back what the references named');
    expect(outcome.log).toContain('nothing is put back, as what was there before may be gone');
    expect(await Promise.all(some.map(node => idOn(node, second.reference)))).toEqual([undefined, second.id]);
    expect(outcome.outputs).toMatchObject({ images: '', changed: 'true' });
    await remove(crio, second.reference);
  });
});

describe('a node', () => {
  it('at two addresses is one node, which is found before anything moves, in every mode', async () => {
    const twin = `${containerd.address.replace(/\.\d+$/, '')}.201`;
    await must(containerd, ['ip', 'address', 'add', `${twin}/24`, 'dev', 'eth0']);
    try {
      const known = readFileSync(lab.knownHostsFile, 'utf8');
      const hosts = join(directory, 'known_hosts');
      writeFileSync(hosts, known + known.replaceAll(containerd.address, twin));
      const given = inputs([], {
        nodes: `${containerd.address}\n${crio.address}\ndeploy@${twin}`,
        'ssh-known-hosts-file': hosts,
        smoke: 'none',
      });
      const { file } = await image('twin', 'docker.io/library/twin:1');
      const says = `${containerd.address}, ${twin} are addresses of one machine`;
      for (const run of [plan, push]) {
        const outcome = await run({ ...given, archive: file }, { lab });
        expect(errorsOf(outcome), outcome.log).toEqual([undefined, undefined, 'INPUT_INVALID']);
        expect(outcome.nodes[2]?.error?.message).toBe(says);
        expect(outcome.outputs).toMatchObject({ images: '', 'bytes-sent': '0' });
      }
      const compared = await check({ ...given, archive: file }, { lab });
      expect(errorsOf(compared)).toEqual(['DRIFT', 'DRIFT', 'INPUT_INVALID']);
      const pruned = await prune({ ...given, keep: '1' }, { lab });
      expect(errorsOf(pruned)).toEqual([undefined, undefined, 'INPUT_INVALID']);
      expect(pruned.log).not.toContain('Remove old releases');
    } finally {
      await must(containerd, ['ip', 'address', 'del', `${twin}/24`, 'dev', 'eth0']);
    }
  });
});

describe('a plan', () => {
  it('names no image as held, and leaves the cache of the runner as it is, or absent', async () => {
    const built = await image('planned', 'docker.io/library/planned-last:1');
    const cache = join(directory, 'cache');
    const given = inputs([containerd], { archive: built.file, 'cache-dir': cache, smoke: 'none' });
    const state = () =>
      existsSync(cache) &&
      readdirSync(cache).map(name => [
        name,
        statSync(join(cache, name)).mtimeMs,
        createHash('sha256')
          .update(readFileSync(join(cache, name)))
          .digest('hex'),
      ]);
    const planned = await plan(given, { lab });
    expect(planned.code, planned.log).toBe(0);
    expect(planned.outputs).toMatchObject({ images: '', 'image-ids': '{}', changed: 'true' });
    expect(state()).toBe(false);
    expect((await push(given, { lab })).code).toBe(0);
    const before = state();
    expect(before).not.toEqual([]);
    writeFileSync(join(cache, `${'0'.repeat(64)}.${'1'.repeat(64)}.none`), '');
    const seeded = state();
    const again = await plan({ ...given, 'cache-size': '1B' }, { lab });
    expect(again.outputs).toMatchObject({ images: '', changed: 'false' });
    expect((await check(given, { lab })).outputs.images).toBe('docker.io/library/planned-last:1');
    expect(state()).toEqual(seeded);
  });

  it('and a push to a node that lets nobody in name no image', async () => {
    const { file } = await image('nobody', 'docker.io/library/nobody:1');
    for (const run of [plan, push]) {
      const outcome = await run(inputs([containerd], { archive: file, smoke: 'none', 'ssh-user': 'nobody-here' }), {
        lab,
      });
      expect(errorsOf(outcome)).toEqual(['SSH_AUTH_FAILED']);
      expect(outcome.outputs).toMatchObject({ images: '', 'image-ids': '{}' });
    }
  });
});

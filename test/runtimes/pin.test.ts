import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, inject, it } from 'vitest';
import { enter, type Image, type LabNode, makeImage, start, stop } from '../lab/index.ts';
import {
  check,
  crictl,
  type Inputs,
  leftOnNode,
  type Outcome,
  plan,
  prune,
  push,
  reach,
  runAction,
  runPost,
} from '../shipped.ts';

const lab = inject('lab');
const nodesOf = (...kinds: readonly string[]) =>
  kinds.map(kind => {
    const node = lab.nodes.find(one => one.kind === kind);
    if (node === undefined) throw new Error(`the lab has no ${kind}`);
    return node;
  });
const pinning = nodesOf('containerd', 'containerd-1.7', 'crio');
const [containerd = expect.unreachable(), , crio = expect.unreachable()] = pinning;
const others = nodesOf('containerd-1.6', 'docker');

const REFERENCE = 'docker.io/library/pinned:1';
const DROP_IN = '/etc/crio/crio.conf.d/99-kube-sideload.conf';

const directory = mkdtempSync(join(tmpdir(), 'kube-sideload-pin-'));
afterAll(() => rmSync(directory, { recursive: true, force: true }));

function image(name: string, reference = REFERENCE, command?: readonly string[]): Promise<Image> {
  return makeImage({
    file: join(directory, `${name}.tar`),
    reference,
    layers: [{ files: { 'etc/release': `pinned ${name}` } }],
    dockerManifest: true,
    ...(command !== undefined && { command }),
  });
}

function inputs({ file }: Pick<Image, 'file'>, more: Inputs = {}, nodes = pinning): Inputs {
  const { kubeconfig: _none, ...own } = reach(
    lab,
    nodes.map(({ address, name }) => `${address}=${name}`),
  );
  return { ...own, archive: file, smoke: 'none', ...more };
}

async function place(one: Image, more: Inputs = {}): Promise<void> {
  const outcome = await push(inputs(one, more), { lab });
  expect(outcome.code, outcome.log).toBe(0);
}

/** The CRI's own word, which is what the kubelet asks before it removes images. */
async function isPinned(node: LabNode, reference = REFERENCE): Promise<boolean> {
  const { status } = JSON.parse(await crictl(lab, node, ['inspecti', '-o', 'json', reference])) as {
    status: { pinned?: boolean };
  };
  return status.pinned === true;
}

const pins = (nodes = pinning) => Promise.all(nodes.map(node => isPinned(node)));

async function idsOf(): Promise<readonly string[]> {
  const answers = await Promise.all(pinning.map(node => crictl(lab, node, ['inspecti', '-o', 'json', REFERENCE])));
  return answers.map(answer => {
    const { status } = JSON.parse(answer) as { status: { id: string } };
    return `sha256:${status.id.replace('sha256:', '')}`;
  });
}

/** Puts the words in place of a program of the node, for commands that the pattern matches. */
async function replaceProgram(node: LabNode, program: string, pattern: string, words: string) {
  const file = `/usr/local/bin/${program}`;
  const script = `#!/bin/sh\ncase "$*" in ${pattern}) ${words} ;; esac\nexec /usr/bin/${program} "$@"\n`;
  await enter(node, ['sh', '-c', `printf '%s' "$0" >${file}; chmod 755 ${file}`, script]);
  return () => enter(node, ['rm', '-f', file]);
}

/** By the gate of every node; a kubelet that removes the sandbox sooner than the program ends makes it another code. */
function expectRefused({ nodes, log }: Outcome): void {
  for (const { error } of nodes) expect(error?.code, log).toMatch(/^SMOKE_/);
}

async function reloadCrio(): Promise<void> {
  await enter(crio, ['sh', '-c', 'kill -HUP $(pgrep -x crio)']);
}

/** A list of somebody else, in a file that CRI-O reads before or after ours. */
async function otherList(name: string, list: string): Promise<() => Promise<void>> {
  const file = `/etc/crio/crio.conf.d/${name}`;
  await enter(crio, [
    'sh',
    '-c',
    `printf '[crio.image]\\n# pinned_images = ["none"]\\npinned_images = [\\n  ${list}\\n]\\n' >${file}`,
  ]);
  await reloadCrio();
  return async () => {
    await enter(crio, ['rm', '-f', file]);
    await reloadCrio();
  };
}

let first: Image;
let second: Image;
let broken: Image;

beforeAll(async () => {
  first = await image('first');
  second = await image('second');
  broken = await image('broken', REFERENCE, ['/bin/sh', '-c', 'exit 3']);
});
beforeEach(async () => {
  await place(first);
  expect(await pins()).toEqual([false, false, false]);
});
afterEach(async () => {
  expect(await leftOnNode(lab)).toEqual([]);
});

describe('images that are pinned', () => {
  it('are so where the runtime can, and where it cannot that is said before anything moves', async () => {
    const all = [...pinning, ...others];
    const planned = await plan(inputs(second, { pin: 'true' }, all), { lab });
    expect(planned.nodes.map(({ findings }) => findings.map(({ code, severity }) => [code, severity]))).toEqual([
      [],
      [],
      [],
      [['PIN_UNSUPPORTED', 'warning']],
      [['PIN_UNSUPPORTED', 'warning']],
    ]);
    const outcome = await push(inputs(second, { pin: 'true' }, all), { lab });
    expect(outcome.code, outcome.log).toBe(0);
    expect(await pins(all)).toEqual([true, true, true, false, false]);
    expect(outcome.log).toContain('containerd 1.6.20');
    expect(outcome.log).toContain('cri-dockerd has no pinning');
  });

  it('stay so when they are pushed again, when another image gets their name, and when the runtime starts anew', async () => {
    await place(first, { pin: 'true' });
    expect(await pins()).toEqual([true, true, true]);
    await place(second, { pin: 'true', 'ssh-user': 'deploy' });
    expect(await pins()).toEqual([true, true, true]);
    await place(second, { pin: 'true', 'ssh-user': 'deploy' });
    for (const node of pinning) {
      const service = node === crio ? 'crio' : 'containerd';
      await stop(node, service);
      await start(node, service);
    }
    expect(await pins()).toEqual([true, true, true]);
    expect(await idsOf()).toEqual(pinning.map(() => second.id));
  });

  it('are so no longer after a push that does not pin, also of the same image', async () => {
    await place(second, { pin: 'true' });
    await place(second, { 'ssh-user': 'deploy' });
    await expect.poll(() => pins(), { timeout: 5000 }).toEqual([false, false, false]);
    expect((await enter(crio, ['ls', DROP_IN])).code).not.toBe(0);
  });

  it('are let go before they are removed', async () => {
    const newest = await image('newest', 'docker.io/library/pinned:2');
    await place(first, { pin: 'true' });
    await place(newest, { pin: 'true' });
    const outcome = await prune({ ...inputs(first), archive: '', keep: '1', images: 'pinned' }, { lab });
    expect(outcome.code, outcome.log).toBe(0);
    expect(outcome.nodes.map(({ retention }) => retention?.map(({ fate }) => fate))).toEqual(
      pinning.map(() => ['removed', 'kept']),
    );
    const { stdout } = await enter(crio, ['cat', DROP_IN]);
    expect(stdout).not.toContain(REFERENCE);
    expect(stdout).toContain('"docker.io/library/pinned:2"');
    await place(newest);
    await prune({ ...inputs(first), archive: '', keep: '1', images: 'pinned' }, { lab });
  });

  it('are missed by `check` when somebody has imported them again without the pin', async () => {
    await place(first, { pin: 'true' });
    await enter(containerd, ['ctr', '-n', 'k8s.io', 'images', 'label', REFERENCE, 'io.cri-containerd.pinned=']);
    await expect.poll(() => isPinned(containerd)).toBe(false);
    const outcome = await check(inputs(first), { lab });
    expect(outcome.nodes.map(({ images }) => images.map(({ drift }) => drift))).toEqual([
      ['not-pinned'],
      [undefined],
      [undefined],
    ]);
    expect(outcome.code).toBe(1);
  });
});

describe('a failure puts back', () => {
  it('what was not pinned as such', async () => {
    const outcome = await push(inputs(broken, { pin: 'true', smoke: 'cri' }), { lab });
    expectRefused(outcome);
    expect(await idsOf()).toEqual(pinning.map(() => first.id));
    await expect.poll(() => pins(), { timeout: 5000 }).toEqual([false, false, false]);
    // Nothing of it moves: what is there is pinned, and fails.
    const again = await push(inputs(first, { pin: 'true', smoke: 'cri', 'smoke-command': '/bin/false' }), { lab });
    expect(again.code).toBe(1);
    await expect.poll(() => pins(), { timeout: 5000 }).toEqual([false, false, false]);
  });

  it('what was pinned with its pin, whether the push pins or not', async () => {
    await place(first, { pin: 'true' });
    for (const pin of ['true', 'false']) {
      const outcome = await push(inputs(broken, { pin, smoke: 'cri' }), { lab });
      expectRefused(outcome);
      expect(await idsOf()).toEqual(pinning.map(() => first.id));
      await expect.poll(() => pins(), { timeout: 5000 }).toEqual([true, true, true]);
    }
  });

  it('also by the post step of a job that was killed', async () => {
    const killed = inputs(broken, { pin: 'true', smoke: 'cri' });
    const outcome = await runAction(killed, {
      lab,
      onLine: (line, pid) => {
        if (line === '::group::Start smoke pods') process.kill(pid, 'SIGKILL');
      },
    });
    expect(await pins()).toEqual([true, true, true]);
    const post = await runPost(outcome, killed, { lab });
    expect(post.log).not.toContain('::warning');
    await expect.poll(() => pins(), { timeout: 5000 }).toEqual([false, false, false]);
    expect(await idsOf()).toEqual(pinning.map(() => first.id));
  });
});

describe('a node that does not pin fails, and all go back', () => {
  it('when its runtime refuses', async () => {
    const undo = await replaceProgram(containerd, 'ctr', '*\\ label\\ *', "echo 'no, says the test' >&2; exit 1");
    try {
      const outcome = await push(inputs(second, { pin: 'true' }), { lab });
      expect(outcome.nodes.map(({ error }) => error?.code)).toEqual(['PIN_FAILED', undefined, undefined]);
      expect(outcome.log).toContain('no, says the test');
    } finally {
      await undo();
    }
    expect(await idsOf()).toEqual(pinning.map(() => first.id));
    await expect.poll(() => pins(), { timeout: 5000 }).toEqual([false, false, false]);
  });

  it('when somebody else’s configuration has the last word', async () => {
    const undo = await otherList('99-z.conf', '"docker.io/library/other:1"');
    try {
      const outcome = await push(inputs(second, { pin: 'true' }), { lab });
      expect(outcome.nodes.map(({ error }) => error?.code)).toEqual([undefined, undefined, 'PIN_FAILED']);
      expect(outcome.nodes[2]?.error?.hint).toContain('/etc/crio/crio.conf.d');
    } finally {
      await undo();
    }
    expect(await idsOf()).toEqual(pinning.map(() => first.id));
    await expect.poll(() => pins(), { timeout: 5000 }).toEqual([false, false, false]);
  });
});

it('pins of somebody else stay, beside ours and after them', async () => {
  const foreign = await image('foreign', 'docker.io/library/pinned-by-hand:1');
  await place(foreign);
  const undo = await otherList('10-other.conf', '"docker.io/library/pinned-by-hand:*", # by hand');
  await enter(containerd, [
    'ctr',
    '-n',
    'k8s.io',
    'images',
    'label',
    foreign.reference,
    'io.cri-containerd.pinned=pinned',
  ]);
  const hold = () => Promise.all([containerd, crio].map(node => isPinned(node, foreign.reference)));
  try {
    await expect.poll(hold, { timeout: 5000 }).toEqual([true, true]);
    await place(second, { pin: 'true' });
    expect(await hold()).toEqual([true, true]);
    // Not ours, so a push that does not pin leaves it.
    await place(foreign);
    await place(second);
    expect(await hold()).toEqual([true, true]);
    await expect.poll(() => pins(), { timeout: 5000 }).toEqual([false, false, false]);
  } finally {
    await undo();
  }
});

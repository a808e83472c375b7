import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, inject, it } from 'vitest';
import {
  enter,
  enterMust,
  type LabNode,
  powerOff,
  powerOn,
  restartApiServer,
  setClock,
  setLink,
  setRate,
  start,
  stop,
} from '../lab/index.ts';
import { nodeNamed } from '../shipped.ts';
import { randomOf } from './random.ts';
import { count, type End, endure, type Fault } from './story.ts';

const lab = inject('lab');
const containerd = nodeNamed(lab, 'n1');
const crio = nodeNamed(lab, 'n2');
const directory = mkdtempSync(join(tmpdir(), 'kube-sideload-faults-'));

afterAll(() => {
  rmSync(directory, { recursive: true, force: true });
  const { injected, truthful, leftovers } = count;
  console.log(`faults: ${injected} injected, ${truthful} jobs told the truth, ${leftovers} leftovers found`);
});

/** Compressed about 12 MB: with {@link SLOW} it travels for two to three seconds. */
const BYTES = 24_000_000;
const SLOW = '40mbit';

const STAGES = {
  connecting: /^::group::Open the images/,
  checking: /^::group::Check what/,
  sending: /^::group::Send what/,
  'moving references': /^::group::Move the references/,
  'smoke pods run': /^::group::Start smoke pods/,
};

function meets(fault: Fault): Promise<void> {
  return endure(lab, directory, fault);
}

/** In the middle of sending to a node whose link is slow. */
async function meetsWhileSending(node: LabNode, fault: Omit<Fault, 'at' | 'node' | 'bytes'>): Promise<void> {
  await setRate(node, SLOW);
  try {
    await meets({ afterMs: 1000, ...fault, at: STAGES.sending, node: node.name, bytes: BYTES });
  } finally {
    await setRate(node, undefined);
  }
}

async function cut(node: LabNode): Promise<() => Promise<void>> {
  await setLink(node, 'down');
  return () => setLink(node, 'up');
}

/** Ends sshd and with it all that is logged in. */
async function killSshd(node: LabNode): Promise<() => Promise<void>> {
  await stop(node, 'sshd');
  await enter(node, ['pkill', '-KILL', '-f', '^sshd']);
  return () => start(node, 'sshd');
}

async function losePower(node: LabNode): Promise<() => Promise<void>> {
  await powerOff(node);
  return () => powerOn(node);
}

const CONTENT = '/var/lib/containerd/io.containerd.content.v1.content';

/** What containerd has, on a disk of its own that has room for 4 MB more; the disk that it is asked about is another. */
const SMALL_STORE = `mkdir -p /run/small
mount -t tmpfs -o size=$(($(du -sk ${CONTENT} | cut -f1) + 4096))k tmpfs /run/small
cp -a ${CONTENT}/. /run/small/
mount --bind /run/small ${CONTENT}`;

const SERVICE = { containerd: 'containerd', crio: 'crio', docker: 'dockerd' } as const;

async function restartRuntime(node: LabNode): Promise<() => Promise<void>> {
  const service = SERVICE[node.runtime];
  await stop(node, service);
  await start(node, service);
  return async () => {};
}

/** As a slow machine does when it starts again: it can be logged in to long before its runtime is there. */
async function restartSlowly(node: LabNode): Promise<() => Promise<void>> {
  const startSshd = await killSshd(node);
  await stop(node, SERVICE[node.runtime]);
  await startSshd();
  return () => start(node, SERVICE[node.runtime]);
}

const LOST: readonly End[] = ['ok', 'SSH_LOST', 'SSH_UNREACHABLE'];
const INTERRUPTED: readonly End[] = ['ok', 'REMOTE_COMMAND_FAILED', 'RUNTIME_LOST', 'RUNTIME_NOT_RUNNING'];

describe('on the way to a node', () => {
  it.for(lab.nodes.map(node => [node.kind, node] as const))('a link that is cut for two seconds (%s)', ([, node]) =>
    meetsWhileSending(node, { inject: () => cut(node), mendAfterMs: 2000, ends: LOST }),
  );

  it.for(lab.nodes.map(node => [node.kind, node] as const))('sshd is killed and comes back (%s)', ([, node]) =>
    meetsWhileSending(node, { inject: () => killSshd(node), mendAfterMs: 500, ends: LOST }),
  );
});

describe('on a node', () => {
  it.for(lab.nodes.map(node => [node.kind, node] as const))('the power fails during an import (%s)', ([, node]) =>
    meetsWhileSending(node, { inject: () => losePower(node), mendAfterMs: 500, ends: [...LOST, ...INTERRUPTED] }),
  );

  /** With a job that has nothing more to send: what it leaves is taken away by whoever waits for the node. */
  it.for(lab.nodes.map(node => [node.kind, node] as const))(
    'the power fails when the image has arrived (%s)',
    ([, node]) =>
      meets({
        at: STAGES['moving references'],
        inject: () => losePower(node),
        mendAfterMs: 2000,
        node: node.name,
        ends: [...LOST, ...INTERRUPTED],
      }),
  );

  it.for(lab.nodes.map(node => [node.kind, node] as const))(
    'the runtime starts later than sshd when the power is back (%s)',
    ([, node]) =>
      meetsWhileSending(node, {
        inject: () => restartSlowly(node),
        mendAfterMs: 4000,
        inputs: { retries: '5' },
        ends: ['ok'],
      }),
  );

  it.for(lab.nodes.map(node => [node.kind, node] as const))(
    'the runtime is restarted during an import (%s)',
    ([, node]) => meetsWhileSending(node, { inject: () => restartRuntime(node), ends: ['ok'] }),
  );

  it.for(lab.nodes.map(node => [node.kind, node] as const))(
    'the runtime is restarted while smoke pods start (%s)',
    ([, node]) =>
      meets({
        at: STAGES['smoke pods run'],
        afterMs: 300,
        inject: () => restartRuntime(node),
        node: node.name,
        // Docker ends its containers when it is ended.
        ends: node.runtime === 'docker' ? ['ok', 'SMOKE_CRASHED'] : ['ok'],
      }),
  );

  it('the disk of the runtime fills up during an import', () =>
    meets({
      inject: async () => {
        await enterMust(containerd, ['sh', '-euc', SMALL_STORE]);
        return () => enterMust(containerd, ['umount', CONTENT, '/run/small']);
      },
      bytes: BYTES,
      node: containerd.name,
      ends: ['DISK_FULL'],
    }));

  /** As scripts see it; the runtimes, kubelets and the API server keep the machine's (test/lab/clock.ts). */
  it.for(lab.nodes.map(({ kind }, index) => [kind, index] as const))(
    'the clock is 20 years ahead, and 5 behind on the next node (%s)',
    ([, index]) => {
      const [ahead, behind] = [0, 1].map(offset => lab.nodes[(index + offset) % lab.nodes.length]);
      return meets({
        inject: async () => {
          await setClock(ahead ?? expect.unreachable(), 20);
          await setClock(behind ?? expect.unreachable(), -5);
          return () => Promise.all(lab.nodes.map(node => setClock(node, 0)));
        },
        ends: ['ok'],
      });
    },
  );

  it('the kubelet stops before the smoke pod is there', () =>
    meets({
      at: STAGES['moving references'],
      inject: async () => {
        await stop(crio, 'kubelet');
        return () => start(crio, 'kubelet');
      },
      inputs: { 'smoke-timeout': '10s' },
      node: crio.name,
      ends: ['SMOKE_TIMEOUT', 'SMOKE_NODE_NOT_READY'],
    }));
});

describe('on the runner', () => {
  it('the disk is full', () => {
    const small = join(directory, 'small');
    return meets({
      bytes: BYTES,
      inject: async () => {
        mkdirSync(small, { recursive: true });
        execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=4m', 'tmpfs', small]);
        return async () => execFileSync('umount', [small]);
      },
      env: { XDG_CACHE_HOME: small },
      ends: ['DISK_FULL'],
    });
  });

  it.for([
    ['ahead', 20],
    ['behind', -5],
  ] as const)('the clock is years %s', ([, years]) => {
    const file = join(directory, 'clock.mjs');
    const ms = years * 365 * 24 * 3600 * 1000;
    writeFileSync(
      file,
      `const Real = Date; globalThis.Date = class extends Real {
        constructor(...args) { args.length === 0 ? super(Real.now() + ${ms}) : super(...args); }
        static now() { return Real.now() + ${ms}; }
      };\n`,
    );
    return meets({ inject: async () => async () => {}, env: { NODE_OPTIONS: `--import=${file}` }, ends: ['ok'] });
  });

  describe.for(['SIGTERM', 'SIGINT', 'SIGKILL'] as const)('the job gets %s', signal => {
    it.for(Object.entries(STAGES))('while %s', ([, at]) =>
      meets({
        at,
        inject: async ({ pid }) => {
          process.kill(pid, signal);
          return async () => {};
        },
        bytes: BYTES,
        ends: signal === 'SIGKILL' ? ['killed'] : ['CANCELLED'],
      }),
    );
  });
});

it('the API server is restarted during the watch', () =>
  meets({
    at: STAGES['smoke pods run'],
    afterMs: 300,
    inject: async () => {
      await restartApiServer(lab.control ?? expect.unreachable());
      return async () => {};
    },
    ends: ['ok'],
  }));

/** `FAULTS` says how many, `FAULTS_SEED` which; the seed of a run is in its log. */
describe('at random points of a transfer', () => {
  const seed = Number(process.env.FAULTS_SEED ?? Date.now() % 1_000_000);
  const faults = Number(process.env.FAULTS ?? 6);
  console.log(`random faults: FAULTS=${faults} FAULTS_SEED=${seed}`);
  const random = randomOf(seed);
  const kinds = {
    'cut link': cut,
    'killed sshd': killSshd,
    'lost power': losePower,
    'restarted runtime': restartRuntime,
  };
  const drawn = Array.from({ length: faults }, () => {
    const [name, strike] = Object.entries(kinds)[Math.floor(random() * 4)] ?? expect.unreachable();
    const node = lab.nodes[Math.floor(random() * lab.nodes.length)] ?? expect.unreachable();
    return {
      name: `${name} of ${node.kind}`,
      strike,
      node,
      afterMs: Math.floor(random() * 3500),
      downMs: Math.floor(random() * 3000),
      delta: String(random() < 0.5),
    };
  });
  it.for(drawn)('$name after $afterMs ms, for $downMs ms, with delta $delta', one => {
    const { strike, node, afterMs, downMs: mendAfterMs, delta } = one;
    const ends = [...LOST, ...INTERRUPTED];
    return meetsWhileSending(node, { inject: () => strike(node), afterMs, mendAfterMs, inputs: { delta }, ends });
  });
});

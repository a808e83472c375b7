/**
 * A fault from beginning to end: a release that every node has, a job for the next one that meets the fault, what the
 * job and the nodes say then, and the job after it.
 */
import { setTimeout as delay } from 'node:timers/promises';
import { expect } from 'vitest';
import type { ErrorCode } from '../../src/errors.ts';
import { criImageId, smokePods } from '../cluster/kubernetes.ts';
import { archive } from '../engines.ts';
import type { Image, Lab } from '../lab/index.ts';
import { type ActionOutcome, type Inputs, leftOnNode, reach, runAction, runPost } from '../shipped.ts';

const REFERENCE = 'docker.io/library/faulty:1';

/** How a job may end: well, by a signal that it could not catch, or with an error. */
export type End = ErrorCode | 'ok' | 'killed';

export interface Fault {
  /** The first line of the log that this matches is when it happens; left out, it is there before the job begins. */
  readonly at?: RegExp;
  /** How long after that line, in milliseconds. */
  readonly afterMs?: number;
  /** Breaks something. What it gives mends it again. */
  readonly inject: (job: { readonly pid: number }) => Promise<() => Promise<unknown>>;
  /** It is mended so many milliseconds later, while the job goes on; left out, when the job has ended. */
  readonly mendAfterMs?: number;
  /** How the job may end. Any other end is not the truth. */
  readonly ends: readonly End[];
  /** The node with the fault: no other one may have an error. */
  readonly node?: string;
  /** What the changed layer has, before compression. */
  readonly bytes?: number;
  readonly inputs?: Inputs;
  readonly env?: Readonly<Record<string, string>>;
}

/** What the suite says in the end. */
export const count = { injected: 0, truthful: 0, leftovers: 0 };

/** What every node holds, once there was a job. */
let placed: Image | undefined;
let releases = 0;
/** Leftovers that were found already, of earlier faults. */
const known = new Set<string>();

function release(directory: string, bytes: number): Promise<Image> {
  releases += 1;
  return archive(directory, {
    reference: REFERENCE,
    layers: [
      { fillBytes: 200_000, seed: 'base' },
      { fillBytes: bytes, seed: `release ${process.pid} ${releases}` },
    ],
  });
}

function idsOn(lab: Lab): Promise<readonly string[]> {
  return Promise.all(lab.nodes.map(node => criImageId(lab, node, REFERENCE)));
}

/** Puts a release on all nodes, without a fault. */
async function place(lab: Lab, image: Image): Promise<void> {
  const outcome = await runAction({ ...reach(lab), archive: image.file }, { lab });
  expect(
    outcome.nodes.map(node => [node.node, node.error?.message]),
    outcome.log,
  ).toEqual(lab.nodes.map(node => [node.name, undefined]));
  expect(outcome.code, outcome.log).toBe(0);
  expect(outcome.leftOnRunner).toEqual([]);
  expect(await idsOn(lab)).toEqual(lab.nodes.map(() => image.id));
  placed = image;
}

/** Plays the whole story. Fails when the job does not tell the truth, or when anything stays behind. */
export async function endure(lab: Lab, directory: string, fault: Fault): Promise<void> {
  if (placed === undefined) {
    await place(lab, await release(directory, 200_000));
  }
  const before = placed?.id;
  placed = undefined;
  const next = await release(directory, fault.bytes ?? 200_000);
  const inputs = { ...reach(lab), archive: next.file, ...fault.inputs };
  const outcome = await meet(lab, inputs, fault);
  if (outcome.signal !== null) {
    const post = await runPost(outcome, inputs, { lab, ...(fault.env && { env: fault.env }) });
    expect(post.log).not.toContain('::warning');
    expect(post.leftOnRunner).toEqual([]);
  } else {
    expect(outcome.leftOnRunner, outcome.log).toEqual([]);
  }
  const ids = await idsOn(lab);
  const end = endOf(outcome);
  expect(fault.ends, `${end}\n${outcome.log}`).toContain(end);
  if (end === 'ok') {
    expect(ids, outcome.log).toEqual(lab.nodes.map(() => next.id));
  } else if (end === 'killed') {
    expect(new Set(ids).size, `some nodes have another release than others\n${outcome.log}`).toBe(1);
  } else {
    const faulty = outcome.nodes.filter(({ error }) => error !== undefined).map(({ node }) => node);
    expect(
      faulty.filter(name => fault.node !== undefined && name !== fault.node),
      outcome.log,
    ).toEqual([]);
    expect(ids, outcome.log).toEqual(lab.nodes.map(() => before));
  }
  count.truthful += 1;
  console.log(`fault ${count.injected}: ${end}`);

  await place(lab, next);
  const left = [...smokePods(lab), ...(await leftOnNode(lab))].filter(one => !known.has(one));
  for (const one of left) known.add(one);
  count.leftovers += left.length;
  expect(left).toEqual([]);
}

/** Runs the job, and has the fault happen to it once. */
async function meet(lab: Lab, inputs: Inputs, { at, afterMs = 0, inject, mendAfterMs, env }: Fault) {
  let mend: Promise<() => Promise<unknown>> | undefined;
  let mended: Promise<unknown> | undefined;
  const strike = (pid: number) => {
    mend = inject({ pid });
    count.injected += 1;
    mended = mendAfterMs === undefined ? undefined : Promise.all([mend, delay(mendAfterMs)]).then(([undo]) => undo());
    mended?.catch(() => {}); // awaited below
  };
  if (at === undefined) {
    strike(0);
    await mend;
  }
  let striking: Promise<void> | undefined;
  try {
    return await runAction(inputs, {
      lab,
      ...(env && { env }),
      onLine: (line, pid) => {
        if (at?.test(line) && striking === undefined) {
          striking = delay(afterMs).then(() => strike(pid));
        }
      },
    });
  } finally {
    await striking;
    await (mended ?? (await mend)?.());
    expect(mend, 'the fault has not happened').toBeDefined();
  }
}

function endOf(outcome: ActionOutcome): End {
  if (outcome.signal !== null) {
    return 'killed';
  }
  if (outcome.code === 0) {
    return 'ok';
  }
  const [, code] = /\[([A-Z]+(?:_[A-Z]+)*)\]/.exec(outcome.log) ?? [];
  return (code ?? 'INTERNAL') as ErrorCode;
}

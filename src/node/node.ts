import { SideloadError, toSideloadError } from '../errors.ts';
import type { BlobDescriptor, PlatformImage } from '../image/image.ts';
import { formatPlatform } from '../image/platform.ts';
import { normalise } from '../image/reference.ts';
import {
  type ErrorReport,
  errorReport,
  type Finding,
  type ImageReport,
  type NodeReport,
  type RetentionReport,
} from '../report/report.ts';
import { formatBytes } from '../report/units.ts';
import type { Kept } from '../runtime/kept.ts';
import type { NodeSettings } from '../settings.ts';
import type { NodeObject } from '../smoke/objects.ts';
import type { SshConnection } from '../ssh/connect.ts';
import type { MachineFacts, NodeFacts } from './facts.ts';
import type { RecordEntry } from './record.ts';
import type { MissingRight } from './rights.ts';
import type { NameFault } from './short-names.ts';

/** An image on its way to one node. */
export interface NodeImage {
  readonly reference: string;
  /** What pods write for it; on nodes with CRI-O a short name may be another reference than elsewhere. */
  readonly spelling: string;
  readonly image: PlatformImage;
  /** What sandboxes are made of, sent along: it gets no smoke pod. */
  readonly isSandbox: boolean;
  /** The name under which it arrives; `undefined` when the node holds it already. */
  readonly stage: string | undefined;
  /** By layer, the blob that the node has for it; `undefined` for one that has to be sent. */
  held: readonly (BlobDescriptor | undefined)[];
  /** Whether it is to be sent in one piece, since what the node says of its layers has turned out wrong. */
  isWhole: boolean;
  /** What is to be sent: about this when the layers lie on the runner as they are sent, else this at most. */
  estimate: { readonly bytes: number; readonly isExact: boolean };
  /** Whether its reference may have moved in this run. */
  hasMoved: boolean;
  /** When the node was last seen to hold it under its reference, as it should be. */
  seenAtMs?: number | undefined;
  /** Whether the CRI said, once the references had moved, that the image is pinned. */
  isPinned: boolean;
  outcome: ImageReport['outcome'];
  bytesSent: number;
  /** The kubelet's verdict in a few words. */
  smoke: string | undefined;
  /** What went wrong with this image; the node has it too. */
  error?: SideloadError | undefined;
}

/** An image as a node was seen to hold it. */
export interface SeenImage {
  readonly reference: string;
  /** What pods write for it. */
  readonly spelling: string;
  /** What it should be. */
  readonly imageId: string;
  /** How it differs from that; `undefined` when it does not. */
  readonly drift: ImageReport['drift'];
  readonly error: ErrorReport | undefined;
}

/** A node and how far this run got with it. */
export interface Node {
  readonly settings: NodeSettings;
  readonly startedAtMs: number;
  /** When the last thing was done on it, or became known of it. */
  endedAtMs: number;
  connection: SshConnection | undefined;
  /** Known also of a node whose runtime cannot be used. */
  machine: MachineFacts | undefined;
  facts: NodeFacts | undefined;
  /** What the cluster says of it; `undefined` when that may not be read, or is not asked. */
  object: NodeObject | 'absent' | undefined;
  /** What sudo does not let the user do. */
  missing: readonly MissingRight[];
  images: readonly NodeImage[];
  /** What is wrong with names that pods write short. */
  nameFaults: readonly NameFault[];
  /** The stage references of this run that may lie on the node, and the IDs of their images. */
  readonly staged: Map<string, string>;
  /** Runs that have died with locks or kept names on the node, as this one has found when it took theirs. */
  readonly lostRuns: Set<string>;
  /** What this run has kept on the node, of references that may have moved. */
  kept: readonly Kept[];
  /** Whether this run may have pinned images on the node. */
  hasPinned: boolean;
  /** What this run has written into the node's record, and the lines that it took the place of. */
  noted: { readonly added: readonly RecordEntry[]; readonly replaced: readonly RecordEntry[] } | undefined;
  /** The references that this run is known to have locked on the node, and when it asked last by the runner’s clock. */
  lock: { readonly references: readonly string[]; readonly askedAtMs: number } | undefined;
  findings: readonly Finding[];
  /** What was seen of each image when the node was looked at last; empty before that. */
  seen: readonly SeenImage[];
  /** What became of what we had put there before; `undefined` when that was not looked at. */
  retention: readonly RetentionReport[] | undefined;
  /** The first error; nothing more is tried on the node after it. */
  error: SideloadError | undefined;
  /** What went wrong there besides, such as when it was put in order after the first error. */
  otherErrors: readonly SideloadError[];
}

export function newNode(settings: NodeSettings): Node {
  const now = Date.now();
  return {
    settings,
    startedAtMs: now,
    endedAtMs: now,
    connection: undefined,
    machine: undefined,
    facts: undefined,
    object: undefined,
    missing: [],
    images: [],
    nameFaults: [],
    staged: new Map(),
    lostRuns: new Set(),
    kept: [],
    hasPinned: false,
    noted: undefined,
    lock: undefined,
    findings: [],
    seen: [],
    retention: undefined,
    error: undefined,
    otherErrors: [],
  };
}

/** Notes an error of a node; after the first one what is another fault than those before. */
export function noteError(node: Node, error: SideloadError): void {
  if (node.error === undefined) {
    node.error = error;
  } else if (
    [node.error, ...node.otherErrors].every(({ code, message }) => code !== error.code || message !== error.message)
  ) {
    node.otherErrors = [...node.otherErrors, error];
  }
}

/** A node that has been connected to and probed. */
export interface ReadyNode {
  readonly connection: SshConnection;
  readonly facts: NodeFacts;
}

export function ready({ settings, connection, facts }: Node): ReadyNode {
  if (connection === undefined || facts === undefined) {
    throw new SideloadError('INTERNAL', 'the node is not connected', { node: settings.label });
  }
  return { connection, facts };
}

/** The name of the node in the cluster: what the user says, else what its kubelet says. */
export function kubernetesName(node: Pick<Node, 'settings' | 'machine'>): string | undefined {
  return node.settings.kubernetesName ?? node.machine?.kubernetesName;
}

/**
 * Does something on all nodes that are well, side by side; what goes wrong on one is noted there and stops no other.
 * @param parallel how many nodes at a time, in their order
 */
export async function onEach(
  nodes: readonly Node[],
  act: (node: Node) => Promise<void>,
  parallel = Number.POSITIVE_INFINITY,
): Promise<void> {
  const waiting = nodes.values();
  const workers = Array.from({ length: Math.min(parallel, nodes.length) }, async () => {
    for (const node of waiting) {
      if (node.error !== undefined) {
        continue;
      }
      try {
        await act(node);
      } catch (thrown) {
        node.error = toSideloadError(thrown, node.settings.label);
      }
      node.endedAtMs = Date.now();
    }
  });
  await Promise.all(workers);
}

/** What goes wrong with one image is noted with it: a node has several. */
export async function notingError(node: Node, image: NodeImage, act: () => Promise<void>): Promise<void> {
  try {
    await act();
  } catch (thrown) {
    image.error = toSideloadError(thrown, node.settings.label);
    throw image.error;
  }
}

/** Whether the cluster says that a node belongs to its control plane (Kubernetes: well-known labels). */
export function isControlPlane({ object }: Node): boolean {
  const labels = object === undefined || object === 'absent' ? undefined : object.metadata.labels;
  return labels !== undefined && CONTROL_PLANE_LABELS.some(label => label in labels);
}

const CONTROL_PLANE_LABELS = ['node-role.kubernetes.io/control-plane', 'node-role.kubernetes.io/master'];

/** Names that share a stage reference are sent once, with the last of them. */
function isSent({ images }: Node, { reference, stage }: Pick<NodeImage, 'reference' | 'stage'>): boolean {
  return stage !== undefined && images.findLast(image => image.stage === stage)?.reference === reference;
}

/** The reference, and what pods write for it where the node's runtime has made it of that. */
export function nameOf({ reference, spelling }: Pick<NodeImage, 'reference' | 'spelling'>): string {
  return normalise(spelling) === reference ? reference : `${reference} (${spelling} there)`;
}

/** What the node has of an image, in words. */
export function describeImage({ reference, spelling, image, stage, held }: NodeImage): string {
  const name = nameOf({ reference, spelling });
  if (stage === undefined) {
    return `has ${name}`;
  }
  const there = held.filter(blob => blob !== undefined).length;
  return `needs ${name}${there === 0 ? '' : `, and has ${there} of its ${image.layers.length} layers`}`;
}

export function nodeReport(node: Node): NodeReport {
  const { settings, machine, facts, images, findings, seen, retention, error, otherErrors } = node;
  return {
    node: settings.label,
    address: `${settings.host}:${settings.port}`,
    kubernetesName: kubernetesName(node),
    platform: machine === undefined ? undefined : formatPlatform(machine.platform),
    runtime: facts === undefined ? undefined : `${facts.runtime.name} ${facts.runtime.version}`,
    images: images.length > 0 ? images.map(image => imageReport(node, image)) : seen.map(checkReport),
    bytesSent: images.reduce((sum, image) => sum + image.bytesSent, 0),
    startedAt: new Date(node.startedAtMs).toISOString(),
    endedAt: new Date(node.endedAtMs).toISOString(),
    durationMs: Math.max(0, node.endedAtMs - node.startedAtMs),
    findings,
    retention,
    error: error === undefined ? undefined : errorReport(error),
    ...(otherErrors.length > 0 && { otherErrors: otherErrors.map(errorReport) }),
  };
}

function imageReport(node: Node, image: NodeImage): ImageReport {
  const { reference, spelling, isSandbox, stage, estimate, outcome, bytesSent, smoke, error } = image;
  const last = node.seen.find(one => one.reference === reference);
  return {
    reference,
    ...(spelling !== reference && { spelling }),
    imageId: image.image.imageId,
    ...(isSandbox && { isSandbox }),
    outcome,
    // What was put back since is not what was seen.
    isHeld: last !== undefined && last.drift === undefined && outcome !== 'restored',
    estimatedBytes: isSent(node, { reference, stage }) ? estimate.bytes : 0,
    isEstimateExact: estimate.isExact,
    bytesSent,
    smoke,
    drift: last?.drift,
    error: error === undefined ? undefined : errorReport(error),
  };
}

/** Of a check, which has no images of its own. */
function checkReport({ reference, spelling, imageId, drift, error }: SeenImage): ImageReport {
  const isHeld = drift === undefined;
  return {
    reference,
    ...(spelling !== reference && { spelling }),
    imageId,
    outcome: isHeld ? 'present' : 'none',
    isHeld,
    estimatedBytes: 0,
    isEstimateExact: true,
    bytesSent: 0,
    drift,
    error,
  };
}

/** Enough of a digest to tell images apart; the log has the whole of it once, with the image. */
export function shortId(imageId: string): string {
  return imageId.slice(0, 'sha256:'.length + 12);
}

export function describeNode({ facts, settings: { label }, connection }: Node): string {
  if (facts === undefined) {
    return `${label}: unknown`;
  }
  const { runtime, criSocket, criSocketOrigin, distribution, platform, privilege, disk } = facts;
  const as = connection?.becomesRootBy === 'password' ? 'root by sudo with a password' : privilege;
  return [
    `${label}: ${runtime.name} ${runtime.version} at ${criSocket} (from: ${criSocketOrigin})`,
    ...(distribution === 'unknown' ? [] : [`laid out as ${distribution}`]),
    formatPlatform(platform),
    privilege === 'user'
      ? 'as a user who may load images by podman and ask for them'
      : `as ${as}${facts.isNarrow ? ' for some commands' : ''}`,
    `${formatBytes(disk.freeBytes)} free on ${disk.path}`,
  ].join(', ');
}

import { SideloadError, toSideloadError } from '../errors.ts';
import type { PlatformImage } from '../image/image.ts';
import { formatPlatform } from '../image/platform.ts';
import { layersBytes } from '../plan.ts';
import { errorReport, type Finding, type ImageReport, type NodeReport } from '../report/report.ts';
import type { NodeSettings } from '../settings.ts';
import type { NodeObject } from '../smoke/objects.ts';
import type { SshConnection } from '../ssh/connect.ts';
import type { MachineFacts, NodeFacts } from './facts.ts';

/** An image on its way to one node. */
export interface NodeImage {
  readonly reference: string;
  readonly image: PlatformImage;
  /** The name under which it arrives; `undefined` when the node holds it already. */
  readonly stage: string | undefined;
  outcome: ImageReport['outcome'];
  bytesSent: number;
  /** The kubelet's verdict in a few words. */
  smoke: string | undefined;
  /** What went wrong with this image; the node has it too. */
  error?: SideloadError | undefined;
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
  images: readonly NodeImage[];
  /** Whether stage references may lie on the node. */
  isStaged: boolean;
  findings: readonly Finding[];
  /** The first error; nothing more is tried on the node after it. */
  error: SideloadError | undefined;
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
    images: [],
    isStaged: false,
    findings: [],
    error: undefined,
  };
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

/** Does something on all nodes that are well, side by side; what goes wrong on one is noted there and stops no other. */
export async function onEach(nodes: readonly Node[], act: (node: Node) => Promise<void>): Promise<void> {
  await Promise.all(
    nodes.map(async node => {
      if (node.error !== undefined) {
        return;
      }
      try {
        await act(node);
      } catch (thrown) {
        node.error = toSideloadError(thrown, node.settings.label);
      }
      node.endedAtMs = Date.now();
    }),
  );
}

/** Names that share a stage reference are sent once, with the last of them. */
function isSent({ images }: Node, { reference, stage }: Pick<NodeImage, 'reference' | 'stage'>): boolean {
  return stage !== undefined && images.findLast(image => image.stage === stage)?.reference === reference;
}

export function nodeReport(node: Node): NodeReport {
  const { settings, machine, facts, images, findings, error } = node;
  return {
    node: settings.label,
    address: `${settings.host}:${settings.port}`,
    kubernetesName: kubernetesName(node),
    platform: machine === undefined ? undefined : formatPlatform(machine.platform),
    runtime: facts === undefined ? undefined : `${facts.runtime.name} ${facts.runtime.version}`,
    images: images.map(({ reference, image, stage, outcome, bytesSent, smoke, error: fault }) => ({
      reference,
      imageId: image.imageId,
      outcome,
      estimatedBytes: isSent(node, { reference, stage }) ? layersBytes([image]) : 0,
      bytesSent,
      smoke,
      error: fault === undefined ? undefined : errorReport(fault),
    })),
    bytesSent: images.reduce((sum, image) => sum + image.bytesSent, 0),
    startedAt: new Date(node.startedAtMs).toISOString(),
    endedAt: new Date(node.endedAtMs).toISOString(),
    durationMs: Math.max(0, node.endedAtMs - node.startedAtMs),
    findings,
    error: error === undefined ? undefined : errorReport(error),
  };
}

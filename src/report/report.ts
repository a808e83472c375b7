import type { ErrorCode, SideloadError } from '../errors.ts';

/** What became of one image on one node. */
export interface ImageReport {
  readonly reference: string;
  /** Config digest that CI built for the node's platform. */
  readonly imageId: string;
  /** `present`: the node held it already; `sent`: it was sent and verified; `none`: it did not get that far. */
  readonly outcome: 'present' | 'sent' | 'none';
  /**
   * What the layers that the node lacks amount to; 0 when it held the image already, or when the image is sent with
   * another of its names.
   */
  readonly estimatedBytes: number;
  /** Whether that is about what would be sent, or the most that it can be, as the layers are in the source. */
  readonly isEstimateExact: boolean;
  readonly bytesSent: number;
  /** The kubelet's verdict, such as `Running`; `undefined` when no smoke pod was asked to start. */
  readonly smoke: string | undefined;
}

export interface ErrorReport {
  readonly code: ErrorCode;
  readonly message: string;
  readonly hint: string;
}

/** Something that would go wrong on a node, or might, found before anything was sent. */
export interface Finding extends ErrorReport {
  /** The node as the user named it, or the Kubernetes name of one that is not in the list. */
  readonly node: string;
  /** An error stops the job, on all nodes. */
  readonly severity: 'error' | 'warning';
}

/** What became of one node. */
export interface NodeReport {
  /** The node as the user named it. */
  readonly node: string;
  readonly address: string;
  readonly kubernetesName: string | undefined;
  readonly platform: string | undefined;
  readonly runtime: string | undefined;
  readonly images: readonly ImageReport[];
  readonly bytesSent: number;
  readonly durationMs: number;
  readonly findings: readonly Finding[];
  readonly error: ErrorReport | undefined;
}

/** The record of a run, complete before the job fails. */
export interface Report {
  readonly run: string;
  /** With `plan` the record is of what would be done. */
  readonly mode: 'push' | 'plan';
  /** Image ID by platform, by reference. */
  readonly images: Readonly<Record<string, Readonly<Record<string, string>>>>;
  readonly nodes: readonly NodeReport[];
  /** About nodes of the cluster that are not in the list. */
  readonly findings: readonly Finding[];
  /** Whether any node's references moved, or would move. */
  readonly changed: boolean;
  /** What stopped the run as a whole, when it was no node's own fault. */
  readonly error: ErrorReport | undefined;
}

export function errorReport({ code, message, hint }: SideloadError): ErrorReport {
  return { code, message, hint };
}

export function bytesSent(report: Report): number {
  return report.nodes.reduce((sum, node) => sum + node.bytesSent, 0);
}

export function succeeded(report: Report): boolean {
  return report.error === undefined && report.nodes.length > 0 && report.nodes.every(node => node.error === undefined);
}

/** What was found on any node before anything was sent, those of the list first. */
export function allFindings(report: Report): readonly Finding[] {
  return [...report.nodes.flatMap(node => node.findings), ...report.findings];
}

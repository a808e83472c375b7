import type { ProgramName } from './programs.ts';
import type { Service } from './services.ts';
import type { RuntimeName, TreeFile } from './state.ts';

/** A container runtime that a node can have. Another one is a file in runtimes/, and rows of `kinds.ts` that have it. */
export interface Runtime {
  readonly name: RuntimeName;
  /** Directories that must be on a disk. */
  readonly data: readonly string[];
  /** Where it answers the kubelet, as its users write it. */
  readonly criSocket: string;
  readonly files: Readonly<Record<string, string | TreeFile>>;
  /** Those of `engines` that are its own, or come with it. */
  readonly tools: readonly Engine[];
  /** What its packages don't bring: for a program of `programs.ts`, the files that it is, and where they go. */
  readonly programs?: Readonly<Partial<Record<ProgramName, Readonly<Record<string, string>>>>>;
  /** Started in this order, each when the one before it answers. */
  readonly services: readonly Service[];
  /** Imports an image archive from stdin (`makeImage` with `dockerManifest`) by the runtime's own tool. */
  readonly importImage: (reference: string) => readonly string[];
}

/** Programs of a root filesystem by which somebody could tell which runtime a node has. */
export const engines = {
  containerd: ['/usr/bin/containerd', '/usr/bin/containerd-shim-runc-v2', '/usr/bin/ctr'],
  crun: ['/usr/bin/crun', '/usr/bin/conmon'],
  docker: ['/usr/bin/docker', '/usr/sbin/dockerd'],
  podman: ['/usr/bin/podman', '/usr/bin/skopeo', '/usr/bin/umoci'],
} as const;

export type Engine = keyof typeof engines;

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
  /** What its packages don't bring: for a program of `programs.ts`, the files that it is, and where they go. */
  readonly programs?: Readonly<Partial<Record<ProgramName, Readonly<Record<string, string>>>>>;
  /** Started in this order, each when the one before it answers. */
  readonly services: readonly Service[];
  /** Imports an image archive from stdin (`makeImage` with `dockerManifest`) by the runtime's own tool. */
  readonly importImage: (reference: string) => readonly string[];
}

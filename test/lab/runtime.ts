import type { Service } from './services.ts';
import type { LabNode, TreeFile } from './state.ts';

/** A container runtime that a node can have. Another one is a file in runtimes/ and a row in `node.ts`. */
export interface Runtime {
  readonly name: LabNode['runtime'];
  /** Directories below /var/lib that must be on a disk. */
  readonly data: readonly string[];
  readonly criSocket: string;
  readonly files: Readonly<Record<string, string | TreeFile>>;
  /** Started in this order, each when the one before it answers. */
  readonly services: readonly Service[];
  /** Imports an OCI archive from stdin. */
  readonly importImage: readonly string[];
}

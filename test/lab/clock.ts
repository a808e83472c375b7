import { rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { LabNode } from './state.ts';

/**
 * Puts the clock of a node off by years, or right again (0). Nodes share the kernel's wall clock, which no namespace
 * has of its own (time_namespaces(7)), so it is `date` that is off: all that scripts on nodes ask for the time. The
 * runtimes, their clients and the kubelet keep the machine's.
 */
export async function setClock(node: LabNode, years: number): Promise<void> {
  const file = join(node.root, 'usr', 'local', 'bin', 'date');
  if (years === 0) await rm(file, { force: true });
  else await writeFile(file, `#!/bin/sh\nexec /usr/bin/date --date='${years} years' "$@"\n`, { mode: 0o755 });
}

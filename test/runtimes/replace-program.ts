import { enter, type LabNode } from '../lab/index.ts';

/** A program of a node that does something else for commands that the pattern matches. */
export async function replaceProgram(
  node: LabNode,
  program: string,
  pattern: string,
  words: string,
): Promise<() => Promise<unknown>> {
  const real = (await enter(node, ['sh', '-c', `command -v ${program}`])).stdout.trim();
  const script = `#!/bin/sh\ncase "$*" in ${pattern}) ${words} ;; esac\nexec ${real} "$@"\n`;
  const file = `/usr/local/sbin/${program}`;
  await enter(node, ['sh', '-c', `printf '%s' "$0" >${file}; chmod 755 ${file}`, script]);
  return () => enter(node, ['rm', '-f', file]);
}

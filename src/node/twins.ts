import { SideloadError } from '../errors.ts';
import { listOf } from '../report/report.ts';
import type { Node } from './node.ts';

type Entry = Pick<Node, 'settings' | 'machine'>;

/**
 * Entries of the list that have something in common which each node has for itself: for each of them but the first one, an
 * error that names them all. Pure.
 * @param keyOf what nodes must not share; `undefined` for what is not known of one
 */
export function twins<T extends Entry>(
  nodes: readonly T[],
  keyOf: (node: T) => string | undefined,
  what: (key: string) => string,
): ReadonlyMap<T, SideloadError> {
  const groups = new Map<string, T[]>();
  for (const node of nodes) {
    const key = keyOf(node);
    if (key !== undefined) {
      groups.set(key, [...(groups.get(key) ?? []), node]);
    }
  }
  return new Map(
    [...groups].flatMap(([key, group]) => {
      const message = `${listOf(group.map(({ settings }) => settings.label))} are ${what(key)}`;
      const hint = 'Keep one of these entries: what is done to a node is done once.';
      return group
        .slice(1)
        .map(node => [node, new SideloadError('INPUT_INVALID', message, { node: node.settings.label, hint })] as const);
    }),
  );
}

/** Several addresses of one machine: a run would take turns with itself there, and end its own imports. */
export function sameMachines<T extends Entry>(nodes: readonly T[]): ReadonlyMap<T, SideloadError> {
  return twins(
    nodes,
    ({ machine }) => machine?.identity,
    () => 'addresses of one machine',
  );
}

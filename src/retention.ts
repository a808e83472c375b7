import { repositoryOf } from './image/reference.ts';
import type { RecordEntry } from './node/record.ts';
import type { UsedImages } from './runtime/containers.ts';
import type { HeldImage } from './runtime/runtime.ts';

/**
 * What becomes of a reference that we have put on a node. `changed` and `gone` are no longer ours: somebody has given
 * the name to another image, or taken it away; they lose their line in the record and nothing else.
 */
export type Fate = 'kept' | 'in-use' | 'changed' | 'gone' | 'remove';

/**
 * Decides what may go. A release is an image ID with all its references in one repository; the newest `keep` releases of
 * each repository stay, and so does whatever a container was made from.
 * @param entries in the order in which they were put there
 * @param held what the node has under each of their references now
 */
export function decide(
  entries: readonly RecordEntry[],
  held: ReadonlyMap<string, HeldImage | undefined>,
  used: UsedImages,
  keep: number,
): readonly { readonly entry: RecordEntry; readonly fate: Fate }[] {
  const releases = new Map<string, Set<string>>();
  const isOurs = ({ reference, imageId }: RecordEntry) => held.get(reference)?.imageId === imageId;
  for (const entry of entries.toReversed().filter(isOurs)) {
    const newest = releases.get(repositoryOf(entry.reference)) ?? new Set();
    if (newest.size < keep) newest.add(entry.imageId);
    releases.set(repositoryOf(entry.reference), newest);
  }
  return entries.map(entry => {
    const { reference, imageId } = entry;
    if (held.get(reference) === undefined) return { entry, fate: 'gone' };
    if (!isOurs(entry)) return { entry, fate: 'changed' };
    if (releases.get(repositoryOf(reference))?.has(imageId)) return { entry, fate: 'kept' };
    return { entry, fate: used.names.has(reference) || used.ids.has(imageId) ? 'in-use' : 'remove' };
  });
}

import { formatReference, normalise, parseReference, type Reference } from './reference.ts';

/*
 * What a pod's `image` is looked up by, and what lies near it. All of it is pure: these sentences are hints, and no
 * decision is made by them. containerd's rule is `normalise`; CRI-O's are in short-names.ts.
 */

/** At most so many near misses are told: the rest only hides them. */
const TOLD_MAX = 3;

/**
 * Why a pod may not find an image that somebody believes to be there: what the runtime (or an archive) has under names
 * near the one that the pod asks for, best first; empty when nothing comes near or the very name is there.
 * @param requested as the pod writes it
 * @param present the names that are there, as they are written there
 * @param holder who has them, as in `the node`
 */
export function describeNames(requested: string, present: readonly string[], holder = 'the node'): readonly string[] {
  const full = normalise(requested);
  if (present.includes(full)) return [];
  const wanted = parseReference(full);
  const near = present
    .map(name => ({ name, rank: nearness(wanted, full, name) }))
    .filter(({ rank }) => rank !== undefined)
    .toSorted((a, b) => (a.rank ?? 0) - (b.rank ?? 0));
  return near
    .slice(0, TOLD_MAX)
    .map(({ name, rank }) =>
      rank === 0
        ? `${holder} has ${name} under that short name, where a pod does not find it; it must be ${full}`
        : `${holder} has ${name}, the pod asks for ${full}`,
    );
}

/**
 * How near a name is: 0 the same in another spelling, 1 another registry (podman's `localhost/` for what was built by
 * a short name), 2 another path before the same last part, 3 another tag or digest.
 */
function nearness(wanted: Reference, full: string, name: string): number | undefined {
  const there = parsed(name);
  if (there === undefined) return undefined;
  if (formatReference(there) === full) return 0;
  const sameTag = there.tag === wanted.tag && there.digest === wanted.digest;
  if (sameTag && pathOf(there) === pathOf(wanted)) return 1;
  if (sameTag && lastOf(there) === lastOf(wanted)) return 2;
  return there.registry === wanted.registry && there.repository === wanted.repository ? 3 : undefined;
}

/** A node may hold names that are none for us; they are near nothing. */
function parsed(name: string): Reference | undefined {
  try {
    return parseReference(normalise(name));
  } catch {
    return undefined;
  }
}

/** The repository without what Docker puts before the short names of its own registry. */
function pathOf({ repository }: Reference): string {
  return repository.replace(/^library\//, '');
}

function lastOf({ repository }: Reference): string {
  return repository.slice(repository.lastIndexOf('/') + 1);
}

/**
 * What becomes of a digest in a reference on a node.
 *
 * - `kept`: the manifest that is sent is the one with this digest; every runtime finds the name and proves it.
 * - `name only`: the manifest that is sent has another digest, because layers are compressed anew, or the digest is
 *   that of an index. containerd looks the whole reference up as a name and finds it; containers-storage (CRI-O,
 *   podman) refuses a name whose digest is not that of the manifest.
 * - `none`: the reference has no digest.
 */
export function digestFate(reference: string, sentManifest: string): 'none' | 'kept' | 'name only' {
  const { digest } = parseReference(reference);
  if (digest === undefined) return 'none';
  return digest === sentManifest ? 'kept' : 'name only';
}

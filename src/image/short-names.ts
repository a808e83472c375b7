import { formatReference, normalise, parseReference } from './reference.ts';

/** What of registries.conf(5) and crio.conf(5) decides about short names. */
export interface ShortNameRules {
  /** `unqualified-search-registries`, in their order. */
  readonly searchRegistries: readonly string[];
  /** `short-name-mode`; permissive when nothing is set. */
  readonly mode?: 'enforcing' | 'permissive' | 'disabled';
  /** `[aliases]`: a repository as it is written short, with the one that it means. */
  readonly aliases?: Readonly<Record<string, string>>;
}

/** Which names CRI-O looks for, in this order, or why it looks for none. */
export type ShortNameAnswer =
  | { readonly short: boolean; readonly candidates: readonly string[] }
  | { readonly short: true; readonly candidates: readonly []; readonly refused: string };

/**
 * The full names under which CRI-O looks for what a pod writes (cri-o: CandidatesForPotentiallyShortImageName;
 * containers/image: pkg/shortnames, Resolve). A name is short unless its first part has a dot or a colon or is
 * `localhost`. A short one goes through the aliases, else to every search registry; there is no `localhost/` among
 * them, which only `podman run` adds. In enforcing mode more than one candidate is none: CRI-O cannot ask anybody, and
 * the pod shows `ImageInspectError`. Of a tag and a digest only the digest stays.
 * @throws SideloadError INPUT_INVALID when `text` is no reference
 */
export function crioCandidates(text: string, rules: ShortNameRules): ShortNameAnswer {
  const { registry, repository, tag, digest } = parseReference(text);
  const rest = digest === undefined ? { tag: tag ?? 'latest' } : { digest };
  if (registry !== undefined && (/[.:]/.test(registry) || registry === 'localhost')) {
    return { short: false, candidates: [normalise(text)] };
  }
  const path = registry === undefined ? repository : `${registry}/${repository}`;
  const alias = rules.aliases?.[path];
  if (alias !== undefined) {
    const { registry: aliased, repository: meant } = parseReference(alias);
    const name = { ...(aliased === undefined ? {} : { registry: aliased }), repository: meant, ...rest };
    return { short: true, candidates: [formatReference(name)] };
  }
  const candidates = rules.searchRegistries.map(search =>
    normalise(`${search}/${formatReference({ repository: path, ...rest })}`),
  );
  if (candidates.length === 0) {
    return { short: true, candidates: [], refused: 'it is short, and there are no unqualified-search-registries' };
  }
  if (rules.mode === 'enforcing' && candidates.length > 1) {
    const meant = candidates.join(' or ');
    return {
      short: true,
      candidates: [],
      refused: `it is short, it could be ${meant}, and short-name-mode is enforcing`,
    };
  }
  return { short: true, candidates };
}

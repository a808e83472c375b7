import { formatReference, normalise, parseReference } from './reference.ts';

/** What of registries.conf(5) and crio.conf(5) decides about short names. */
export interface ShortNameRules {
  /** `unqualified-search-registries`, in their order. */
  readonly searchRegistries: readonly string[];
  /** Permissive when nothing is set. */
  readonly mode?: 'enforcing' | 'permissive' | 'disabled';
  /** `[aliases]`: a repository as it is written short, with the one that it means; an empty one means none. */
  readonly aliases?: ReadonlyMap<string, string>;
}

/** Which names CRI-O looks for, in this order, or why it looks for none. */
export type ShortNameAnswer =
  | { readonly short: boolean; readonly candidates: readonly string[]; readonly refused?: undefined }
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
  if (!isShort(text)) {
    return { short: false, candidates: [normalise(text)] };
  }
  const path = registry === undefined ? repository : `${registry}/${repository}`;
  const alias = rules.aliases?.get(path) ?? '';
  const meant = alias === '' ? rules.searchRegistries.map(search => `${search}/${path}`) : [alias];
  const candidates = meant.map(name => fullName(name, rest));
  const wrong = meant.filter((_, index) => candidates[index] === undefined);
  if (wrong.length > 0) {
    return refused(`it would be ${wrong.join(' or ')}, which is no name of an image`);
  }
  if (candidates.length === 0) {
    return refused('it is short, and there are no unqualified-search-registries');
  }
  if (rules.mode === 'enforcing' && candidates.length > 1) {
    return refused(`it is short, it could be ${candidates.join(' or ')}, and short-name-mode is enforcing`);
  }
  return { short: true, candidates: candidates.filter(name => name !== undefined) };
}

/**
 * Whether containers/image takes a name for a short one (pkg/shortnames: parseUnnormalizedShortName). Docker's and containerd's
 * rule is another: a first part with an uppercase letter is a registry for them.
 * @throws SideloadError INPUT_INVALID when `text` is no reference
 */
export function isShort(text: string): boolean {
  const { registry } = parseReference(text);
  return registry === undefined || !(/[.:]/.test(registry) || registry === 'localhost');
}

/** `undefined` for what is no reference: both parts come from a node's files. */
function fullName(name: string, rest: { readonly tag: string } | { readonly digest: string }): string | undefined {
  try {
    const { registry, repository, tag, digest } = parseReference(name);
    if (tag !== undefined || digest !== undefined) return undefined;
    return normalise(formatReference({ ...(registry === undefined ? {} : { registry }), repository, ...rest }));
  } catch {
    return undefined;
  }
}

function refused(why: string): ShortNameAnswer {
  return { short: true, candidates: [], refused: why };
}

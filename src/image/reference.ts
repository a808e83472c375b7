import { SideloadError } from '../errors.ts';

/** An image reference as it was written, in its parts; `registry` is absent when none was written. */
export interface Reference {
  readonly registry?: string;
  readonly repository: string;
  readonly tag?: string;
  readonly digest?: string;
}

// The grammar of github.com/distribution/reference (regexp.go), which docker, podman and containerd share.
const DOMAIN_COMPONENT = '(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])';
const REGISTRY = new RegExp(`^(?:${DOMAIN_COMPONENT}(?:\\.${DOMAIN_COMPONENT})*|\\[[a-fA-F0-9:]+\\])(?::[0-9]+)?$`);
const PATH_COMPONENT = '[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*';
const REPOSITORY = new RegExp(`^${PATH_COMPONENT}(?:/${PATH_COMPONENT})*$`);
const TAG = /^[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}$/;
// The grammar allows other algorithms; no runtime stores images by them.
const DIGEST = /^sha256:[0-9a-f]{64}$/;
const NAME_MAX_LENGTH = 255;
/** Of name, tag and digest, with what stands between them. */
const TEXT_MAX_LENGTH = NAME_MAX_LENGTH + 1 + 128 + 1 + 71;

const DEFAULT_REGISTRY = 'docker.io';
const LEGACY_REGISTRY = 'index.docker.io';

/**
 * Takes an image reference apart, by the grammar of distribution/reference.
 * @throws SideloadError INPUT_INVALID, saying what is wrong with it.
 */
export function parseReference(text: string): Reference {
  const refuse = (why: string): never => {
    throw new SideloadError(
      'INPUT_INVALID',
      `${JSON.stringify(text.slice(0, TEXT_MAX_LENGTH))} is not an image reference: ${why}`,
      {
        hint: 'Write it as for `docker pull`, as in `app:1.2` or `registry.example/team/app:1.2`.',
      },
    );
  };
  if (text === '') refuse('it is empty');
  if (text.length > TEXT_MAX_LENGTH) refuse(`it is longer than ${TEXT_MAX_LENGTH} characters`);
  const stray = /[^A-Za-z0-9_.:/@[\]-]/u.exec(text);
  if (stray !== null) refuse(`the character ${JSON.stringify(stray[0])} cannot be part of one`);

  const at = text.indexOf('@');
  const digest = at < 0 ? undefined : text.slice(at + 1);
  const named = at < 0 ? text : text.slice(0, at);
  // A colon after the last slash starts the tag; one before it belongs to the port of the registry.
  const colon = named.indexOf(':', named.lastIndexOf('/') + 1);
  const tag = colon < 0 ? undefined : named.slice(colon + 1);
  const name = colon < 0 ? named : named.slice(0, colon);
  const slash = registryEnd(name);
  const registry = slash < 0 ? undefined : name.slice(0, slash);
  const repository = name.slice(slash + 1);

  if (digest !== undefined && !DIGEST.test(digest)) refuse('the digest is not sha256: and 64 hexadecimal digits');
  if (tag !== undefined && !TAG.test(tag)) refuse(`the tag ${JSON.stringify(tag)} is not valid`);
  if (registry !== undefined && !REGISTRY.test(registry)) {
    refuse(`the registry ${JSON.stringify(registry)} is not a host name`);
  }
  if (repository !== repository.toLowerCase()) refuse('the repository must be lowercase');
  if (!REPOSITORY.test(repository)) refuse(`the repository ${JSON.stringify(repository)} is not valid`);
  if (name.length > NAME_MAX_LENGTH) refuse(`the name is longer than ${NAME_MAX_LENGTH} characters`);
  // Docker takes it for an image ID (distribution/reference: ParseNormalizedNamed).
  if (/^[0-9a-f]{64}$/.test(name)) refuse('64 hexadecimal digits are an image ID, not a name');
  return {
    ...(registry === undefined ? {} : { registry }),
    repository,
    ...(tag === undefined ? {} : { tag }),
    ...(digest === undefined ? {} : { digest }),
  };
}

/**
 * Index of the slash that ends the registry, or -1: the first component is a registry when it has a dot, a colon or
 * an uppercase letter, or is `localhost` (distribution/reference: splitDockerDomain).
 */
function registryEnd(name: string): number {
  const slash = name.indexOf('/');
  const first = name.slice(0, Math.max(slash, 0));
  return slash >= 0 && (/[.:A-Z]/.test(first) || first === 'localhost') ? slash : -1;
}

/** The reference in one string, as it was written. */
export function formatReference({ registry, repository, tag, digest }: Reference): string {
  const name = registry === undefined ? repository : `${registry}/${repository}`;
  return `${name}${tag === undefined ? '' : `:${tag}`}${digest === undefined ? '' : `@${digest}`}`;
}

/**
 * The full name under which CRI on containerd looks up what a pod writes, Docker style: `app` becomes
 * `docker.io/library/app:latest`, and of a tag and a digest only the digest stays (containerd: ParseDockerRef).
 * @throws SideloadError INPUT_INVALID, as {@link parseReference}.
 */
export function normalise(text: string): string {
  const { registry: written = DEFAULT_REGISTRY, repository, tag, digest } = parseReference(text);
  const registry = written === LEGACY_REGISTRY ? DEFAULT_REGISTRY : written;
  const official = registry === DEFAULT_REGISTRY && !repository.includes('/');
  return formatReference({
    registry,
    repository: official ? `library/${repository}` : repository,
    ...(digest === undefined ? { tag: tag ?? 'latest' } : { digest }),
  });
}

/** The full name of an image without tag and digest. */
export function repositoryOf(reference: string): string {
  return reference.replace(/@.*$/, '').replace(/:[^/:]*$/, '');
}

/** What an image is built for, in Go's names (OCI image-spec, image index: platform). */
export interface Platform {
  readonly os: string;
  readonly architecture: string;
  readonly variant?: string;
}

const BY_MACHINE: Readonly<Record<string, Omit<Platform, 'os'>>> = {
  x86_64: { architecture: 'amd64' },
  amd64: { architecture: 'amd64' },
  i386: { architecture: '386' },
  i486: { architecture: '386' },
  i586: { architecture: '386' },
  i686: { architecture: '386' },
  aarch64: { architecture: 'arm64', variant: 'v8' },
  arm64: { architecture: 'arm64', variant: 'v8' },
  armv8l: { architecture: 'arm', variant: 'v8' },
  armv7l: { architecture: 'arm', variant: 'v7' },
  armv6l: { architecture: 'arm', variant: 'v6' },
  armv5tel: { architecture: 'arm', variant: 'v5' },
  armv5tejl: { architecture: 'arm', variant: 'v5' },
  ppc64le: { architecture: 'ppc64le' },
  s390x: { architecture: 's390x' },
  riscv64: { architecture: 'riscv64' },
  loongarch64: { architecture: 'loong64' },
};

/** The platform of a Linux machine by what `uname -m` prints there, or undefined for one that we do not know. */
export function fromUname(machine: string): Platform | undefined {
  const known = Object.hasOwn(BY_MACHINE, machine) ? BY_MACHINE[machine] : undefined;
  return known === undefined ? undefined : { os: 'linux', ...known };
}

/** Whether a text can be a part of a platform: Go's and containerd's are such, and logs and tables show them as they are. */
export function isPlatformWord(text: string): boolean {
  return /^[A-Za-z0-9][A-Za-z0-9._-]{0,31}$/.test(text);
}

/** As in `linux/arm64/v8`. */
export function formatPlatform({ os, architecture, variant }: Platform): string {
  return variant === undefined ? `${os}/${architecture}` : `${os}/${architecture}/${variant}`;
}

/** What {@link formatPlatform} has written. */
export function parsePlatform(text: string): Platform {
  const [os = '', architecture = '', variant] = text.split('/');
  return { os, architecture, ...(variant !== undefined && { variant }) };
}

/**
 * Whether a node runs an image, by the rules of containerd's `platforms` package: no variant means v1 on amd64,
 * v8 on arm64 and v7 on arm, and a node runs what is built for its own variant and for lower ones.
 */
export function matches(image: Platform, node: Platform): boolean {
  return image.os === node.os && image.architecture === node.architecture && variantOrder(image) <= variantOrder(node);
}

/** Of several candidates the one that fits the node best (the highest variant that it runs), or undefined. */
export function bestMatch<T extends { readonly platform: Platform }>(
  candidates: readonly T[],
  node: Platform,
): T | undefined {
  return candidates
    .filter(candidate => matches(candidate.platform, node))
    .reduce<T | undefined>(
      (best, next) => (best === undefined || variantOrder(next.platform) > variantOrder(best.platform) ? next : best),
      undefined,
    );
}

const DEFAULT_VARIANT: Readonly<Record<string, string>> = { amd64: 'v1', arm64: 'v8', arm: 'v7' };

/** Variants as numbers that compare: `v7` is 7, `8` is 8, `v8.2` is 8.2; an unknown word is above every node. */
function variantOrder({ architecture, variant }: Platform): number {
  const text = variant === undefined || variant === '' ? (DEFAULT_VARIANT[architecture] ?? 'v0') : variant;
  const number = /^v?(\d+(?:\.\d+)?)$/.exec(text)?.[1];
  return number === undefined ? Number.POSITIVE_INFINITY : Number(number);
}

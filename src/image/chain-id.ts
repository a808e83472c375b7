import { type Digest, digestOf } from './digest.ts';

/**
 * What each layer is called together with all that lie below it (OCI image-spec, config: layer ChainID): equal chains
 * unpack to equal file systems.
 * @param diffIds lowest first, as in the image's config
 */
export function chainIds(diffIds: readonly Digest[]): readonly Digest[] {
  const chain: Digest[] = [];
  for (const diffId of diffIds) {
    const below = chain.at(-1);
    chain.push(below === undefined ? diffId : digestOf(`${below} ${diffId}`));
  }
  return chain;
}

import { SideloadError } from '../errors.ts';
import { parseConfig } from './config.ts';
import { digestFromHex, digestOf } from './digest.ts';
import { type ArchiveEntries, findFile, missingFrom, readMetadata } from './entries.ts';
import { asList, asObject, asText, parseJson } from './json.ts';
import type { LayerContent } from './layer.ts';
import type { VariantContent } from './oci-archive.ts';

/** One entry of `manifest.json`. */
export interface DockerImage {
  /** As they are written there, as in `app:1`; none for an image that was saved by its ID. */
  readonly names: readonly string[];
  readonly variant: VariantContent;
}

/**
 * Reads what `manifest.json` describes: the format of `docker save`, which podman, kaniko, ggcr, Bazel and Nix write
 * too (moby: image/spec, "Combined Image JSON + Filesystem Changeset Format").
 * @throws SideloadError ARCHIVE_INVALID, ARCHIVE_INCOMPLETE, ARCHIVE_CORRUPT
 */
export async function readDockerArchive(entries: ArchiveEntries): Promise<readonly DockerImage[]> {
  const file = findFile(entries, 'manifest.json');
  if (file === undefined) return [];
  const what = `manifest.json in ${entries.label}`;
  const manifests = parseJson(await readMetadata(entries.label, 'manifest.json', file), what);
  if (!Array.isArray(manifests)) throw new SideloadError('ARCHIVE_INVALID', `${what} is not a list of images`);
  const images: DockerImage[] = [];
  for (const manifest of manifests.map(asObject)) {
    const names = asList(manifest.RepoTags).flatMap(tag => asText(tag) ?? []);
    images.push({ names, variant: await readVariant(entries, asText(manifest.Config), asList(manifest.Layers)) });
  }
  return images;
}

async function readVariant(
  entries: ArchiveEntries,
  configName: string | undefined,
  layerNames: readonly unknown[],
): Promise<VariantContent> {
  const { label } = entries;
  if (configName === undefined) {
    throw new SideloadError('ARCHIVE_INVALID', `manifest.json in ${label} names no config for an image`);
  }
  const configFile = findFile(entries, configName);
  if (configFile === undefined) throw missingFrom(entries, `the image config ${configName}`);
  const config = await readMetadata(label, configName, configFile);
  const imageId = digestOf(config);
  // `HEX.json` (docker, podman), `blobs/sha256/HEX` (docker 25 and later), `sha256:HEX` (kaniko, ggcr).
  const claimed = digestFromHex(/([0-9a-f]{64})(?:\.json)?$/.exec(configName)?.[1] ?? '');
  if (claimed !== undefined && claimed !== imageId) {
    throw new SideloadError('ARCHIVE_CORRUPT', `the image config in ${label} should be ${claimed} and is ${imageId}`);
  }
  const { platform, diffIds } = parseConfig(config, `the image config ${configName} in ${label}`);
  if (layerNames.length !== diffIds.length) {
    throw new SideloadError(
      'ARCHIVE_INVALID',
      `manifest.json in ${label} names ${layerNames.length} layers, and the config of the image ${diffIds.length}`,
    );
  }
  const layers = diffIds.map((diffId, index): LayerContent => {
    const name = String(layerNames[index]);
    const file = findFile(entries, name);
    if (file === undefined) throw missingFrom(entries, `the layer ${name} (${diffId})`);
    return { diffId, name: `${name} in ${label}`, file };
  });
  return { platform, imageId, config, layers };
}

import { SideloadError } from '../errors.ts';
import { type ImageConfig, parseConfig } from './config.ts';
import { type Digest, digestFromHex, digestOf } from './digest.ts';
import { type ArchiveEntries, findFile, type MetadataReader, missingFrom } from './entries.ts';
import { asList, asObject, asText, type JsonObject, parseJson, shownName } from './json.ts';
import type { LayerContent } from './layer.ts';
import type { VariantContent } from './oci-archive.ts';

/** Images in one archive: hundreds are saved together, and no more. */
const IMAGES_MAX = 10_000;

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
export async function readDockerArchive(
  entries: ArchiveEntries,
  read: MetadataReader,
): Promise<readonly DockerImage[]> {
  const file = findFile(entries, 'manifest.json');
  if (file === undefined) return [];
  const what = `manifest.json in ${entries.label}`;
  const manifests = parseJson(await read('manifest.json', file), what);
  if (!Array.isArray(manifests)) throw new SideloadError('ARCHIVE_INVALID', `${what} is not a list of images`);
  if (manifests.length > IMAGES_MAX) {
    throw new SideloadError('ARCHIVE_INVALID', `${what} names ${manifests.length} images, more than ${IMAGES_MAX}`);
  }
  const images: DockerImage[] = [];
  const configs = new Map<Buffer, ParsedConfig>();
  for (const manifest of manifests.map(asObject)) {
    const names = asList(manifest.RepoTags).flatMap(tag => asText(tag) ?? []);
    images.push({ names, variant: await readVariant({ entries, read, configs }, manifest) });
  }
  return images;
}

type ParsedConfig = ImageConfig & { readonly imageId: Digest };

interface Reading {
  readonly entries: ArchiveEntries;
  readonly read: MetadataReader;
  /** What was understood already, by its bytes: those of one file are read once. */
  readonly configs: Map<Buffer, ParsedConfig>;
}

async function readVariant({ entries, read, configs }: Reading, manifest: JsonObject): Promise<VariantContent> {
  const { label } = entries;
  const configName = asText(manifest.Config);
  const layerNames = asList(manifest.Layers);
  if (configName === undefined) {
    throw new SideloadError('ARCHIVE_INVALID', `manifest.json in ${label} names no config for an image`);
  }
  const configFile = findFile(entries, configName);
  if (configFile === undefined) throw missingFrom(entries, `the image config ${shownName(configName)}`);
  const config = await read(configName, configFile);
  const known = configs.get(config);
  const imageId = known?.imageId ?? digestOf(config);
  // What is not the config that its name says is damaged, whatever can be read of it:
  // `HEX.json` (docker, podman), `blobs/sha256/HEX` (docker 25 and later), `sha256:HEX` (kaniko, ggcr).
  const claimed = digestFromHex(/([0-9a-f]{64})(?:\.json)?$/.exec(configName)?.[1] ?? '');
  if (claimed !== undefined && claimed !== imageId) {
    throw new SideloadError('ARCHIVE_CORRUPT', `the image config in ${label} should be ${claimed} and is ${imageId}`);
  }
  const what = `the image config ${shownName(configName)} in ${label}`;
  const parsed = known ?? { ...parseConfig(config, what), imageId };
  configs.set(config, parsed);
  const { platform, user, diffIds } = parsed;
  if (layerNames.length !== diffIds.length) {
    throw new SideloadError(
      'ARCHIVE_INVALID',
      `manifest.json in ${label} names ${layerNames.length} layers, and the config of the image ${diffIds.length}`,
    );
  }
  const layers = diffIds.map((diffId, index): LayerContent => {
    const name = asText(layerNames[index]) ?? '';
    const file = findFile(entries, name);
    if (file === undefined) throw missingFrom(entries, `the layer ${shownName(name)} (${diffId})`);
    return { diffId, name: `${shownName(name)} in ${label}`, file };
  });
  return { platform, imageId, config, user, layers };
}

import { asObject } from '../image/json.ts';
import { FROM_NODE, readYaml } from '../yaml.ts';

/** What the kubelet's configuration (kubelet.config.k8s.io/v1beta1) says about images; defaults where it says nothing. */
export interface KubeletFacts {
  /** How full the disk of the images may get, in percent, before unused images are removed; 100 is never. */
  readonly imageGcHighThresholdPercent: number;
  /** `imagePullCredentialsVerificationPolicy`, as it is written there. */
  readonly credentialPolicy: string;
  /** `preloadedImagesVerificationAllowlist`: names without tags, or `registry.example/path/*`. */
  readonly credentialAllowlist: readonly string[];
}

const DEFAULTS: KubeletFacts = {
  imageGcHighThresholdPercent: 85,
  credentialPolicy: 'NeverVerifyPreloadedImages',
  credentialAllowlist: [],
};

/**
 * Reads the configuration file and its drop-ins, YAML or JSON, one document after the other: the last one that sets
 * something counts. What cannot be read, or is longer or deeper than any of them, is left at
 * its default: the kubelet itself would not run with it.
 * @param gcThreshold value of the flag `--image-gc-high-threshold`, which goes before the files; empty when not given
 */
export function parseKubelet(text: string, gcThreshold: string): KubeletFacts {
  const settings = Object.fromEntries(
    readYaml(text, FROM_NODE).flatMap(({ value }) => Object.entries(asObject(value))),
  );
  const {
    imageGCHighThresholdPercent: percent,
    imagePullCredentialsVerificationPolicy: policy,
    preloadedImagesVerificationAllowlist: allowlist,
  } = settings;
  const threshold = /^\d{1,3}$/.test(gcThreshold) ? Number(gcThreshold) : percent;
  return {
    imageGcHighThresholdPercent: typeof threshold === 'number' ? threshold : DEFAULTS.imageGcHighThresholdPercent,
    credentialPolicy: typeof policy === 'string' && policy !== '' ? policy : DEFAULTS.credentialPolicy,
    credentialAllowlist: Array.isArray(allowlist)
      ? allowlist.filter(name => typeof name === 'string')
      : DEFAULTS.credentialAllowlist,
  };
}

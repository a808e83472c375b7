import { expect, it } from 'vitest';
import { type KubeletFacts, parseKubelet } from '../../../src/node/kubelet.ts';

const DEFAULTS: KubeletFacts = {
  imageGcHighThresholdPercent: 85,
  credentialPolicy: 'NeverVerifyPreloadedImages',
  credentialAllowlist: [],
};

it.each<[what: string, text: string, flag: string, expected: Partial<KubeletFacts>]>([
  ['nothing', '', '', {}],
  ['YAML', 'kind: KubeletConfiguration\nimageGCHighThresholdPercent: 90\n', '', { imageGcHighThresholdPercent: 90 }],
  [
    'JSON in one line',
    '{"kind":"KubeletConfiguration","imageGCHighThresholdPercent":100}',
    '',
    { imageGcHighThresholdPercent: 100 },
  ],
  [
    'drop-ins, of which the last counts',
    'imageGCHighThresholdPercent: 70\n\n---\nimageGCHighThresholdPercent: 75\n---\nkind: KubeletConfiguration\n',
    '',
    { imageGcHighThresholdPercent: 75 },
  ],
  ['the flag before the file', 'imageGCHighThresholdPercent: 70', '60', { imageGcHighThresholdPercent: 60 }],
  ['a policy', 'imagePullCredentialsVerificationPolicy: AlwaysVerify', '', { credentialPolicy: 'AlwaysVerify' }],
  [
    'a policy with a list',
    'imagePullCredentialsVerificationPolicy: NeverVerifyAllowlistedImages\npreloadedImagesVerificationAllowlist:\n- docker.io/library/app\n- registry.example/team/*\n',
    '',
    {
      credentialPolicy: 'NeverVerifyAllowlistedImages',
      credentialAllowlist: ['docker.io/library/app', 'registry.example/team/*'],
    },
  ],
  ['a file that is broken', 'a: [\n', '', {}],
  [
    'a file beside one that is broken',
    'a: [\n---\nimageGCHighThresholdPercent: 75\n',
    '',
    { imageGcHighThresholdPercent: 75 },
  ],
  ['a text', 'hello', '', {}],
])('the kubelet’s configuration: %s', (_what, text, flag, expected) => {
  expect(parseKubelet(text, flag)).toEqual({ ...DEFAULTS, ...expected });
});

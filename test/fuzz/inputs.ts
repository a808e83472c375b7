import type { FileHandle } from 'node:fs/promises';
import ssh2 from 'ssh2';
import { parseExpected } from '../../src/expected.ts';
import { readArchive } from '../../src/image/archive.ts';
import { digestOf } from '../../src/image/digest.ts';
import { type ArchiveEntries, type ArchiveFile, memoryFile } from '../../src/image/entries.ts';
import { normalise } from '../../src/image/reference.ts';
import { FILE_KINDS, readRules } from '../../src/image/registries-conf.ts';
import type { ReadableSource, Scratch } from '../../src/image/scratch.ts';
import { selectImages } from '../../src/image/selection.ts';
import { parseInspection } from '../../src/image/sources/inspection.ts';
import { scanTarFile } from '../../src/image/tar-file.ts';
import { readTarStream } from '../../src/image/tar-pipe.ts';
import { type InputName, parseInputs } from '../../src/inputs.ts';
import { parseFacts, parseMachine } from '../../src/node/facts.ts';
import { parseCriSocket, parseInventory, parseJump, parseNode } from '../../src/node/inventory.ts';
import { parseKubelet } from '../../src/node/kubelet.ts';
import { readAnswers } from '../../src/node/lock.ts';
import { readRecord } from '../../src/node/record.ts';
import { parseShard } from '../../src/node/shard.ts';
import { usedImages } from '../../src/runtime/containers.ts';
import { runtimeOf } from '../../src/runtime/detect.ts';
import { parseKept } from '../../src/runtime/kept.ts';
import { parsePodManifest } from '../../src/smoke/manifest.ts';
import { parsePrivateKey } from '../../src/ssh/key.ts';
import { lookup, parseKnownHosts } from '../../src/ssh/known-hosts.ts';
import { KEYS } from '../ssh/server.ts';
import { dockerArchive, named, ociArchive, sampleImage, sampleLayer, tarBytes } from '../unit/image/archives.ts';

/** A parser, and inputs that it takes. */
export interface Subject {
  readonly name: string;
  readonly inputs: readonly Buffer[];
  run(input: Buffer): unknown;
  /** Of the processor; a second unless it says so. */
  readonly mayTakeMs?: number;
  /** Puts right what a changed input would otherwise be refused for at once. */
  repair?(input: Buffer<ArrayBuffer>): Buffer<ArrayBuffer>;
}

const never = new AbortController().signal;
const NAME = 'docker.io/library/app:1';
const hex = 'ab'.repeat(32);
const id = `sha256:${hex}` as const;

function ofText(name: string, inputs: readonly string[], run: (text: string) => unknown): Subject {
  return { name, inputs: inputs.map(text => Buffer.from(text)), run: input => run(input.toString('utf8')) };
}

const INVENTORY = `nodes:
  - root@10.0.0.11:2222=worker-1
  - host: fd00::12
    name: worker-2
    user: ci
    port: 22
    jump: [bastion.example, "ci@10.0.0.1:2200"]
    sudo: doas
    cri-socket: unix:///run/containerd/containerd.sock
  - &other { host: worker-3, user: ci }
settings:
  ssh-user: root
  connect-timeout: 10s
  retries: 3
  known: [a, b]
`;
const MANIFEST = `apiVersion: apps/v1
kind: Deployment
metadata: { name: app, labels: &labels { app: app } }
spec:
  template:
    metadata: { labels: *labels }
    spec:
      containers:
        - name: app
          image: app:1
          args: ["-c", 'echo "hello"']
          env: [{ name: A, value: |
            text
            of lines }]
`;
const KUBELET = `kind: KubeletConfiguration
imageGCHighThresholdPercent: 80
imagePullCredentialsVerificationPolicy: NeverVerifyAllowlistedImages
preloadedImagesVerificationAllowlist:
- docker.io/library/app
---
{"kind":"KubeletConfiguration","imageGCHighThresholdPercent":100}
`;

const REGISTRIES = `unqualified-search-registries = ["docker.io", 'registry.example:5000']
short-name-mode = "enforcing"
[aliases]
"app" = "docker.io/team/app"
[[registry]]
location = "mirror.example"
[crio.image]
short_name_mode = "disabled"
`;

const layer = await sampleLayer('base', 'hello');
const image = sampleImage([layer]);
const docker = await tarBytes(dockerArchive([[['app:1'], image]], 'podman'));
const oci = await tarBytes(ociArchive([{ image, annotations: named(NAME) }]));

/** An archive in memory. */
function archiveOf(files: Readonly<Record<string, Buffer>>): ArchiveEntries {
  const entries = Object.entries(files).map(([name, bytes]): [string, ArchiveFile] => [name, memoryFile(bytes)]);
  return { files: new Map(entries), links: new Map(), label: 'the archive', sizeBytes: 0, ended: true };
}

async function select(entries: ArchiveEntries): Promise<unknown> {
  const images = await readArchive(entries, () => {}, never);
  return [selectImages(images, [], entries.label), selectImages(images, ['app:1'], entries.label)];
}

const blobName = (bytes: Buffer) => `blobs/sha256/${digestOf(bytes).slice(7)}`;
const descriptor = (bytes: Buffer, mediaType = '') => ({ mediaType, digest: digestOf(bytes), size: bytes.length });
const json = (value: unknown) => Buffer.from(JSON.stringify(value));
const manifestOf = (config: Buffer) =>
  json({
    schemaVersion: 2,
    config: descriptor(config, 'application/vnd.oci.image.config.v1+json'),
    layers: [descriptor(layer.tar)],
  });
const indexOf = (manifest: Buffer) => json({ manifests: [{ ...descriptor(manifest), annotations: named(NAME) }] });
/** The archive around a changed part of it, whose digests are right again. */
const ociAround = ({
  config = image.config,
  manifest = manifestOf(config),
  index = indexOf(manifest),
}: {
  readonly config?: Buffer;
  readonly manifest?: Buffer;
  readonly index?: Buffer;
}) =>
  archiveOf({
    'index.json': index,
    [blobName(manifest)]: manifest,
    [blobName(config)]: config,
    [blobName(layer.tar)]: layer.tar,
  });

/** Headers with the right sums. */
function withChecksums(tar: Buffer<ArrayBuffer>): Buffer<ArrayBuffer> {
  for (let offset = 0; offset + 512 <= tar.length; offset += 512) {
    const header = tar.subarray(offset, offset + 512);
    if (header.toString('latin1', 257, 262) !== 'ustar') continue;
    header.fill(' ', 148, 156);
    const sum = header.reduce((total, byte) => total + byte, 0);
    header.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148, 'latin1');
  }
  return tar;
}

const inMemory = (bytes: Buffer) =>
  ({
    stat: async () => ({ size: bytes.length }),
    read: async (into: Buffer, start: number, length: number, position: number) => ({
      bytesRead: bytes.copy(into, start, position, position + length),
    }),
  }) as unknown as FileHandle;

const nowhere = {
  find: async () => undefined,
  write: async (open: () => ReadableSource) => {
    const chunks: Buffer[] = [];
    for await (const chunk of open()) chunks.push(chunk);
    const digest = digestOf(Buffer.concat(chunks));
    return { digest, compression: 'none', blob: { digest, sizeBytes: 0, compression: 'none' } };
  },
} as unknown as Scratch;

async function* inChunks(bytes: Buffer): AsyncGenerator<Buffer> {
  for (let offset = 0; offset < bytes.length; offset += 3000) yield bytes.subarray(offset, offset + 3000);
}

const PROBE = {
  uid: '0',
  'as-root': 'sudo -n',
  machine: 'x86_64',
  'kubernetes-name': 'worker-1',
  'kubelet-configuration': KUBELET,
  socket: '/run/containerd/containerd.sock',
  'socket-origin': 'kubelet command line',
  'socket-state': 'present',
  crictl: '/usr/local/bin/crictl',
  'cri-version': 'Version:  0.1.0\nRuntimeName:  containerd\nRuntimeVersion:  v2.1.4',
  ctr: '/usr/bin/ctr',
  'client-version': 'Client:\n  Version:  2.1.4\n\nServer:\n  Version:  v2.1.4',
  'import-help': '   --platform value\n   --local',
  staged: 'kube-sideload.invalid/t4y1q2abcdef:0',
  politeness: 'nice -n 10',
  'image-root': '/var/lib/containerd',
  disk: '/dev/vda1  103081248 61234567  41830297      60% /var/lib/containerd',
  'sandbox-image': 'registry.k8s.io/pause:3.10',
  'sandbox-state': 'held',
};

/** Sections as one text, so that their borders move, too. */
const joined = (sections: Readonly<Record<string, string>>) =>
  Object.entries(sections)
    .map(([name, text]) => `@@ ${name}\n${text}\n`)
    .join('');
const sectionsOf = (text: string) =>
  new Map(
    text.split('@@ ').map(part => {
      const newline = part.indexOf('\n');
      return [part.slice(0, Math.max(newline, 0)), part.slice(newline + 1).trim()] as const;
    }),
  );

const HELD = {
  'cri 0': `{"status":{"id":"${id}","repoTags":["app:1"],"pinned":true},"info":{"imageSpec":{"os":"linux"}}}`,
  'config 0': `{"os":"linux","architecture":"amd64","id":"${hex}"}`,
  'config-digest 0': id,
  'check 0': `${NAME} application/vnd.oci.image.manifest.v1+json ${id} complete (2/2) 1.0 MiB/1.0 MiB true`,
  'image 0': `[{"Id":"${id}","Os":"linux","Architecture":"amd64"}]`,
  'loaded 0': hex,
  content: `${id}\t1.2MB\t2 hours\tcontainerd.io/uncompressed=${id}`,
  snapshots: `${id} Committed`,
  layers: `"diff-digest":"${id}","diff-size":1427456,"compression":4}`,
  chains: `["${id}","${id}"]\n["${id}"]`,
};
const CONTAINERS = {
  cri: `{"containers":[{"image":{"image":"${id}","userSpecifiedImage":"app:1"},"imageRef":"docker://${id}"}]}`,
  ctr: 'CONTAINER    IMAGE    RUNTIME\none    docker.io/library/by-ctr:1    io.containerd.runc.v2',
  docker: `by-docker:1\n${id}`,
  podman: `${hex} docker.io/library/by-podman:1`,
};
const INSPECTION = JSON.stringify([
  {
    Id: id,
    Os: 'linux',
    Architecture: 'amd64',
    Size: 5,
    Config: { User: '1000' },
    RootFS: { Layers: [id] },
    GraphDriver: { Name: 'overlay2', Data: { UpperDir: '/a/b/diff', LowerDir: '/a/c/diff:/a/d/diff' } },
  },
]);
const EXPECTED = JSON.stringify({
  schemaVersion: 1,
  mode: 'push',
  succeeded: true,
  images: { [NAME]: { 'linux/amd64': id } },
  nodes: [{ node: 'w1', images: [{ reference: NAME }] }],
});

const asked = [{ diffId: id, chainId: id, blob: undefined }] as const;
const { ed25519, rsa, ecdsa } = KEYS;
/** In one round, as those are no work of ours. */
const encrypted = ssh2.utils.generateKeyPairSync('ed25519', {
  passphrase: 'open sesame',
  cipher: 'aes256-ctr',
  rounds: 1,
});
const kept = `kube-sideload.invalid/t4y1q2abcdef/kept/docker.io/443/library/app:1`;

/** Everything that reads what others have written. */
export const SUBJECTS: readonly Subject[] = [
  ofText('inventory', [INVENTORY, '{"nodes": ["a"]}'], text => parseInventory(text, 'i.yaml')),
  ofText('config', [INVENTORY, 'settings: { images: [app:1], smoke: none }'], text =>
    parseInventory(text, 'kube-sideload.yaml', 'config'),
  ),
  ofText('kubelet configuration', [KUBELET], text => parseKubelet(text, '')),
  ofText('pod manifest', [MANIFEST, '{"kind":"Pod","spec":{"containers":[{"name":"a","image":"app:1"}]}}'], text =>
    parsePodManifest(text, 'default'),
  ),
  ofText(
    'known_hosts',
    [
      `worker-1,10.0.0.* ${ed25519.publicKey}\n[*.example.com]:2222,!a?.example.com ${rsa.publicKey}\n`,
      `|1|7lBRLrAW1Zzrsc8TMbVxd0GNHYk=|kAGlVJjIBHAhMB5E+bSxR9ZA2VA= ${ecdsa.publicKey}\n@revoked * ${ed25519.publicKey}\n`,
      `${'*a'.repeat(9)} ${ed25519.publicKey}`,
    ],
    text => {
      const entries = parseKnownHosts(text);
      return [
        lookup(entries, 'worker-1', 22),
        lookup(entries, 'a1.example.com', 2222),
        lookup(entries, 'a'.repeat(60), 22),
      ];
    },
  ),
  ofText(
    'private key',
    [KEYS.user, rsa, ecdsa].map(key => key.privateKey),
    text => parsePrivateKey(text),
  ),
  // As many rounds as are allowed: it is the user's own key.
  { ...ofText('encrypted key', [encrypted.private], text => parsePrivateKey(text, 'open sesame')), mayTakeMs: 30_000 },
  ofText('reference', ['app', 'registry.example:5000/team/app_1-x:v1.2', `localhost/app@${id}`], normalise),
  ofText('node', ['root@10.0.0.11:22=worker-1.local', '[fe80::1%eth0]:22', 'ci@a_b.c'], text => [
    parseNode(text),
    parseJump(text.split(',')),
  ]),
  ofText('socket', ['unix:///run/containerd/containerd.sock'], parseCriSocket),
  ofText('shard', ['2/5'], parseShard),
  ...(
    ['connect-timeout', 'cache-size', 'bandwidth', 'ssh-port', 'retries', 'keep', 'images', 'nodes'] as InputName[]
  ).map(name =>
    ofText(`input ${name}`, ['1h 30m', '90s', '10GB', '12.5MiB/s', '22', 'app:1,app:2\nb'], text =>
      parseInputs(one => (one === name ? text : undefined)),
    ),
  ),
  ofText('record of a push', [EXPECTED], text => parseExpected(text, 'r.json')),
  ofText('inspection', [INSPECTION], parseInspection),
  ofText('probe', [joined(PROBE)], text => [parseMachine(sectionsOf(text), 'w1'), parseFacts(sectionsOf(text), 'w1')]),
  ...(['containerd', 'cri-o', 'docker'] as const).map(name =>
    ofText(`what ${name} holds`, [joined(HELD)], text => {
      const runtime = runtimeOf(name);
      const sections = sectionsOf(text);
      return [runtime.held(sections, [NAME, 'b:1']), runtime.heldLayers(sections, asked)];
    }),
  ),
  ofText('registries.conf', [REGISTRIES, '[registries.search]\nregistries = ["a.example"]\n'], text =>
    readRules(
      FILE_KINDS.map(kind => ({ kind, path: '/etc/x', text })),
      '1.34.0',
    ),
  ),
  ofText('containers', [joined(CONTAINERS)], text => usedImages(sectionsOf(text))),
  ofText(
    'record on a node',
    [joined({ record: `${NAME} ${id} 1764390000 t4y1q2abcdef pinned\nb:1 ${id} 1 x` })],
    text => readRecord(sectionsOf(text)),
  ),
  ofText('locks', [joined({ 'lock 0': 'taken', 'lock 1': 'held t4y1q2abcdef 1764390000' })], text => {
    return readAnswers(sectionsOf(text), [NAME, 'b:1']).refusals.map(({ since }) => since.toISOString());
  }),
  ofText('kept name', [kept], parseKept),
  {
    name: 'OCI index',
    inputs: [indexOf(manifestOf(image.config))],
    run: (index: Buffer) => select(ociAround({ index })),
  },
  { name: 'OCI manifest', inputs: [manifestOf(image.config)], run: manifest => select(ociAround({ manifest })) },
  { name: 'OCI config', inputs: [image.config], run: config => select(ociAround({ config })) },
  {
    name: 'docker manifest',
    inputs: [json([{ Config: 'config.json', RepoTags: ['app:1'], Layers: ['a.tar'] }])],
    run: bytes => select(archiveOf({ 'manifest.json': bytes, 'config.json': image.config, 'a.tar': layer.tar })),
  },
  ...[
    ['tar in a file', (bytes: Buffer) => scanTarFile(inMemory(bytes), '/dev/null', 'the archive', never)] as const,
    [
      'tar in a stream',
      async (bytes: Buffer) => select(await readTarStream(inChunks(bytes), () => {}, 'the archive', nowhere, never)),
    ] as const,
  ].flatMap(([name, run]): readonly Subject[] => [
    { name, inputs: [docker, oci], run },
    { name: `${name}, with sums`, inputs: [docker, oci], run, repair: withChecksums },
  ]),
];

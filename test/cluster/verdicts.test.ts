import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, describe, expect, inject, it } from 'vitest';
import { nodeOf } from '../bundle/node-versions.ts';
import { archive, build, onRunner } from '../engines.ts';
import { enter, restartApiServer, start, stop } from '../lab/index.ts';
import { type Inputs, leftOnNode, type Options, type Outcome, push, reach } from '../shipped.ts';
import { kubectl, kubectlThat, smokePods, withRole } from './kubernetes.ts';

const lab = inject('lab');
const [node] = lab.nodes;
if (node === undefined || lab.control === undefined) throw new Error('the lab has no cluster');
const { control } = lab;
const n1 = reach(lab, [`${node.address}=${node.name}`]);
const directory = mkdtempSync(join(tmpdir(), 'kube-sideload-verdicts-'));
afterAll(() => rmSync(directory, { recursive: true, force: true }));

afterEach(async () => {
  expect(smokePods(lab)).toEqual([]);
  expect(await leftOnNode(lab)).toEqual([]);
});

const COLLECT_GARBAGE = join(import.meta.dirname, '../bundle/preload/collect-garbage.cjs');
const NAME = 'verdicts:1';
const REFERENCE = `docker.io/library/${NAME}`;

/** Pushes an image that sleeps, or does what `command` says, to one node. */
function pushed(inputs: Inputs = {}, command?: string[], options: Options = {}): Promise<Outcome> {
  build(lab, 'docker', NAME, command?.join(' ') ?? 'sleeps', command);
  return push({ ...n1, images: NAME, source: 'docker', ...inputs }, { lab, ...options });
}

function verdict({ code, nodes }: Outcome): readonly unknown[] {
  return [code, nodes[0]?.error?.code, nodes[0]?.images[0]?.smoke];
}

const onNode = (command: string) => `nsenter --target ${node.pid} --all -- ${command}`;

/** A Pod manifest that runs the image, with more of its spec and of its container. */
function manifest(spec: object = {}, container: object = {}): string {
  return JSON.stringify({
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { name: 'mine', labels: { app: 'mine' } },
    spec: { automountServiceAccountToken: false, ...spec, containers: [{ name: 'app', image: NAME, ...container }] },
  });
}

async function withObject(object: object, body: () => Promise<void>): Promise<void> {
  const text = JSON.stringify(object);
  kubectl(lab, ['apply', '-f', '-'], text);
  try {
    await body();
  } finally {
    kubectl(lab, ['delete', '-f', '-'], text);
  }
}

async function withNamespace(name: string, labels: object, body: () => Promise<void>): Promise<void> {
  const namespace = { apiVersion: 'v1', kind: 'Namespace', metadata: { name, labels } };
  kubectl(lab, ['apply', '-f', '-'], JSON.stringify(namespace));
  const account = { apiVersion: 'v1', kind: 'ServiceAccount', metadata: { name: 'default', namespace: name } };
  kubectl(lab, ['apply', '-f', '-'], JSON.stringify(account));
  await body();
}

describe('what the kubelet says of the image', () => {
  it('says since when an image is gone that this run has seen there', async () => {
    const ctr = (args: string) => onNode(`/usr/bin/ctr -n k8s.io images ${args}`);
    const renames = `${ctr(`tag --force ${REFERENCE} localhost/${NAME}`)} && ${ctr(`rm --sync ${REFERENCE}`)}`;
    const outcome = await pushed({ kubectl: kubectlThat(lab, directory, 'renames', renames) });
    expect(verdict(outcome).slice(0, 2)).toEqual([1, 'SMOKE_IMAGE_NEVER_PULL']);
    expect(outcome.log).toMatch(/^ {2}this run saw the image at \S+ at \S+Z, and it is gone since/m);
  });

  it('tells a program for another machine from one that is missing', async () => {
    const program = readFileSync(join(lab.runner.root, 'usr', 'bin', 'busybox'));
    program.writeUInt16LE(183, 18); // ELF: e_machine, EM_AARCH64
    writeFileSync(join(directory, 'program'), program, { mode: 0o755 });
    writeFileSync(join(directory, 'Dockerfile'), 'FROM scratch\nCOPY program /program\nCMD ["/program"]\n');
    onRunner(lab, 'docker', ['build', '--quiet', '--tag', NAME, '.'], directory);
    const outcome = await push({ ...n1, images: NAME, source: 'docker' }, { lab });
    expect(verdict(outcome).slice(0, 2)).toEqual([1, 'SMOKE_EXEC_FORMAT']);
  });
});

describe('what counts', () => {
  it.for([
    ['running', ['/bin/busybox', 'true'], [1, 'SMOKE_ENDED']],
    ['completed', ['/bin/busybox', 'true'], [0, undefined]],
    ['completed', ['/bin/busybox', 'sleep', '1000'], [1, 'SMOKE_TIMEOUT']],
  ] as const)('with smoke-expect: %s, of %j', async ([expected, command, ends], { expect }) => {
    const outcome = await pushed({ 'smoke-expect': expected, 'smoke-timeout': '8s' }, [...command]);
    expect(verdict(outcome).slice(0, 2)).toEqual(ends);
  });
});

describe('a manifest of one’s own', () => {
  const exec = (...command: string[]) => ({ exec: { command }, periodSeconds: 1, failureThreshold: 1 });

  it('is started with the image of the job, as it is, and never pulled', async () => {
    const deployment = JSON.stringify({
      apiVersion: 'apps/v1',
      kind: 'Deployment',
      metadata: { name: 'mine' },
      spec: {
        template: {
          metadata: { labels: { app: 'mine' } },
          spec: {
            automountServiceAccountToken: false,
            initContainers: [{ name: 'setup', image: NAME, command: ['/bin/busybox', 'true'] }],
            containers: [{ name: 'app', image: NAME, readinessProbe: exec('/bin/busybox', 'true') }],
          },
        },
      },
    });
    const outcome = await pushed({ 'smoke-manifest': deployment, 'smoke-expect': 'ready' });
    expect(verdict(outcome)).toEqual([0, undefined, 'Running and ready']);
  });

  it.for<[what: string, inputs: Inputs, code: string, words: RegExp]>([
    [
      'that is not to run as root',
      { 'smoke-manifest': manifest({ securityContext: { runAsNonRoot: true } }) },
      'SMOKE_RUN_AS_NON_ROOT',
      /image will run as root/,
    ],
    [
      'that wants a configmap',
      { 'smoke-manifest': manifest({}, { envFrom: [{ configMapRef: { name: 'absent' } }] }) },
      'SMOKE_CONFIG',
      /configmap "absent" not found/,
    ],
    [
      'that mounts what is not there',
      {
        'smoke-manifest': manifest(
          { volumes: [{ name: 'v', configMap: { name: 'absent' } }] },
          { volumeMounts: [{ name: 'v', mountPath: '/v' }] },
        ),
        'smoke-timeout': '10s',
      },
      'SMOKE_VOLUME',
      /configmap "absent" not found/,
    ],
    [
      'that never gets ready',
      {
        'smoke-manifest': manifest({}, { readinessProbe: exec('/bin/busybox', 'false') }),
        'smoke-expect': 'ready',
        'smoke-timeout': '10s',
      },
      'SMOKE_PROBE',
      /Unhealthy: Readiness probe failed/,
    ],
    [
      'that the kubelet ends for its liveness probe',
      {
        'smoke-manifest': manifest({}, { livenessProbe: exec('/bin/busybox', 'false') }),
        'smoke-expect': 'completed',
      },
      'SMOKE_PROBE',
      /the kubelet ended it: .*[Ll]iveness probe/,
    ],
    [
      'that asks for more than the node has',
      { 'smoke-manifest': manifest({}, { resources: { requests: { cpu: '900' } } }) },
      'SMOKE_REJECTED',
      /OutOfcpu/,
    ],
    [
      'that is for other nodes',
      { 'smoke-manifest': manifest({ nodeSelector: { pool: 'other' } }) },
      'SMOKE_REJECTED',
      /NodeAffinity[\s\S]*Next step: The manifest does not fit the node/,
    ],
  ])('%s', async ([, inputs, code, words], { expect }) => {
    const outcome = await pushed(inputs);
    expect(verdict(outcome).slice(0, 2)).toEqual([1, code]);
    expect(outcome.log).toMatch(words);
  });

  it('that does not tolerate a NoExecute taint is refused, and pods of ours are not', async () => {
    kubectl(lab, ['taint', 'node', node.name, 'smoke=no:NoExecute']);
    try {
      const outcome = await pushed({ 'smoke-manifest': manifest() });
      expect(verdict(outcome).slice(0, 2)).toEqual([1, 'SMOKE_REJECTED']);
      expect(outcome.log).toContain('Taint');
      expect(verdict(await pushed())).toEqual([0, undefined, 'Running']);
    } finally {
      kubectl(lab, ['taint', 'node', node.name, 'smoke-']);
    }
  });

  it('that runs none of the images is an error of the inputs', async () => {
    const outcome = await pushed({ 'smoke-manifest': manifest().replace(NAME, 'localhost/verdicts:1') });
    expect(outcome.log).toContain(`its containers run localhost/verdicts:1, and none of ${REFERENCE}`);
    expect(outcome.log).toContain('[INPUT_INVALID]');
  });
});

describe('a namespace with rules of its own', () => {
  const strict = { 'pod-security.kubernetes.io/enforce': 'restricted' };

  it('of Pod Security restricted takes an image of root as nobody, and says so', async () => {
    await withNamespace('strict', strict, async () => {
      const outcome = await pushed({ namespace: 'strict' });
      expect(outcome.log).toContain('run as user 65534 under Pod Security `restricted`');
      expect(verdict(outcome)).toEqual([0, undefined, 'Running']);
      const image = await pushed({ namespace: 'strict', 'smoke-security': 'image' });
      expect(image.log).toContain('[POD_SECURITY]');
      const root = await pushed({ namespace: 'strict', 'smoke-command': 'sh\n-c\ntest "$(id -u)" = 0' });
      expect(verdict(root).slice(0, 2)).toEqual([1, 'SMOKE_CRASHED']);
      expect(root.log).toMatch(/^ {2}the pod ran as user 65534, .* since the namespace wants it/m);
      expect(root.nodes[0]?.error?.hint).toMatch(/If it is rights that it lacks: name a `namespace`/);
    });
  });

  it('of Pod Security restricted takes an image whose user is a number as it is', async () => {
    await withNamespace('strict', strict, async () => {
      build(lab, 'docker', 'base:1', 'base');
      const file = 'FROM base:1\nUSER 10001\n';
      writeFileSync(join(directory, 'Dockerfile'), file);
      onRunner(lab, 'docker', ['build', '--quiet', '--tag', NAME, '.'], directory);
      const outcome = await push({ ...n1, images: NAME, source: 'docker', namespace: 'strict' }, { lab });
      expect(outcome.log).not.toContain('run as user');
      expect(verdict(outcome)).toEqual([0, undefined, 'Running']);
    });
  });

  it('with a quota takes pods with limits, and none when it is used up', async () => {
    await withNamespace('quota', {}, async () => {
      const quota = (hard: object) => ({
        apiVersion: 'v1',
        kind: 'ResourceQuota',
        metadata: { name: 'q', namespace: 'quota' },
        spec: { hard },
        // What a controller would do, which the lab has not.
        status: { hard, used: Object.fromEntries(Object.keys(hard).map(name => [name, '0'])) },
      });
      const applied = (hard: object) => {
        kubectl(lab, ['apply', '-f', '-'], JSON.stringify(quota(hard)));
        kubectl(lab, ['replace', '--subresource=status', '-f', '-'], JSON.stringify(quota(hard)));
      };
      applied({ 'limits.memory': '1Gi', 'limits.cpu': '2' });
      const fitted = await pushed({ namespace: 'quota' });
      expect(fitted.log).toContain('with limits of 500m CPU and 128Mi');
      expect(verdict(fitted)).toEqual([0, undefined, 'Running']);
      applied({ 'limits.memory': '1Gi', 'limits.cpu': '2', pods: '0' });
      const full = await pushed({ namespace: 'quota' });
      expect(full.log).toContain('[QUOTA_EXCEEDED]');
    });
  });

  it('with a LimitRange takes pods that ask for enough', async () => {
    const range = {
      apiVersion: 'v1',
      kind: 'LimitRange',
      metadata: { name: 'range', namespace: 'default' },
      spec: { limits: [{ type: 'Container', min: { cpu: '50m' } }] },
    };
    await withObject(range, async () => {
      const small = await pushed();
      expect(small.log).toMatch(/minimum cpu usage per Container is 50m[\s\S]*\[QUOTA_EXCEEDED\]/);
      expect(verdict(await pushed({ 'smoke-resources': 'cpu=60m' }))).toEqual([0, undefined, 'Running']);
    });
  });

  it('whose policy says no is named before anything is sent', async () => {
    const policy = (kind: string, spec: object) => ({
      apiVersion: 'admissionregistration.k8s.io/v1',
      kind,
      metadata: { name: 'no-smoke' },
      spec,
    });
    const rules = [{ apiGroups: [''], apiVersions: ['v1'], operations: ['CREATE'], resources: ['pods'] }];
    await withNamespace('policed', {}, async () => {
      const says = policy('ValidatingAdmissionPolicy', {
        failurePolicy: 'Fail',
        matchConstraints: { resourceRules: rules },
        validations: [{ expression: "object.metadata.namespace != 'policed'", message: 'no pods here' }],
      });
      const binds = policy('ValidatingAdmissionPolicyBinding', { policyName: 'no-smoke', validationActions: ['Deny'] });
      await withObject(says, () =>
        withObject(binds, async () => {
          // The API server learns of a policy a moment after it was made.
          await expect
            .poll(async () => (await pushed({ namespace: 'policed', mode: 'plan' })).log, { timeout: 60_000 })
            .toMatch(/denied request: no pods here[\s\S]*\[ADMISSION_DENIED\]/);
        }),
      );
    });
  });

  it('whose webhook is away counts as a cluster that does not answer, and names the webhook', async () => {
    const webhook = {
      apiVersion: 'admissionregistration.k8s.io/v1',
      kind: 'ValidatingWebhookConfiguration',
      metadata: { name: 'away' },
      webhooks: [
        {
          name: 'gate.example.com',
          clientConfig: { url: 'https://127.0.0.1:9/' },
          rules: [{ apiGroups: [''], apiVersions: ['v1'], operations: ['CREATE'], resources: ['pods'] }],
          sideEffects: 'None',
          admissionReviewVersions: ['v1'],
          timeoutSeconds: 2,
          namespaceSelector: { matchLabels: { 'kubernetes.io/metadata.name': 'hooked' } },
        },
      ],
    };
    await withNamespace('hooked', {}, () =>
      withObject(webhook, async () => {
        await expect
          .poll(async () => (await pushed({ namespace: 'hooked', mode: 'plan' })).log, { timeout: 60_000 })
          .toMatch(/The webhook gate.example.com does not answer[\s\S]*\[CLUSTER_UNREACHABLE\]/);
      }),
    );
  });

  it('in which the credentials may not watch is named with that verb', async () => {
    await withRole(lab, 'create,get,list,delete', async kubeconfig => {
      const outcome = await pushed({ namespace: 'smoke', kubeconfig });
      expect(outcome.log).toMatch(/cannot watch resource "pods"[\s\S]*\[CLUSTER_REFUSED\]/);
      expect(outcome.outputs['bytes-sent']).toBe('0');
    });
  });
});

describe('what happens meanwhile', () => {
  it('an API server that is restarted during the watch is waited for', async () => {
    build(lab, 'docker', NAME, 'waits');
    let restarted: Promise<void> | undefined;
    const outcome = await push(
      { ...n1, images: NAME, source: 'docker' },
      {
        lab,
        onLine: line => {
          if (line.endsWith('Start smoke pods')) restarted ??= restartApiServer(control);
        },
      },
    );
    await restarted;
    expect(outcome.log).toContain('the Kubernetes API does not answer, trying again');
    expect(verdict(outcome)).toEqual([0, undefined, 'Running']);
  });

  it('a kubelet that stops, and a node that the cluster gives up, are told with the cluster’s words', async () => {
    const unknown = [{ type: 'Ready', status: 'Unknown', reason: 'NodeStatusUnknown', message: 'no word from it' }];
    const patch = `KUBECONFIG=${lab.kubeconfig} ${lab.bin}/kubectl patch node ${node.name} --subresource=status -p '${JSON.stringify({ status: { conditions: unknown } })}'`;
    await stop(node, 'kubelet');
    // Node 20 lost the time-out to a garbage collection, and waited for ever.
    const forgetful = { node: await nodeOf(20), env: { NODE_OPTIONS: `--require ${COLLECT_GARBAGE}` } };
    try {
      const inputs = { kubectl: kubectlThat(lab, directory, 'unready', patch), 'smoke-timeout': '4s' };
      const outcome = await pushed(inputs, undefined, forgetful);
      expect(verdict(outcome).slice(0, 2)).toEqual([1, 'SMOKE_NODE_NOT_READY']);
      expect(outcome.log).toContain('NodeStatusUnknown: no word from it');
    } finally {
      await start(node, 'kubelet');
      kubectl(lab, ['wait', `node/${node.name}`, '--for=condition=Ready', '--timeout=60s']);
    }
  });

  it('a network plugin that is gone', async () => {
    const away = onNode('mv /usr/lib/cni /usr/lib/cni.away');
    try {
      const outcome = await pushed({ kubectl: kubectlThat(lab, directory, 'plugless', away), 'smoke-timeout': '8s' });
      expect(verdict(outcome).slice(0, 2)).toEqual([1, 'SMOKE_NETWORK']);
    } finally {
      await enter(node, ['mv', '/usr/lib/cni.away', '/usr/lib/cni']);
    }
  });

  it('an eviction', async () => {
    const evict = `(KUBECONFIG=${lab.kubeconfig}; export KUBECONFIG; for i in $(seq 100); do
      name=$(${lab.bin}/kubectl get pods -l app.kubernetes.io/managed-by=kube-sideload -o jsonpath='{.items[0].metadata.name}')
      [ -n "$name" ] && printf '{"apiVersion":"policy/v1","kind":"Eviction","metadata":{"name":"%s"}}' "$name" |
        ${lab.bin}/kubectl create --raw "/api/v1/namespaces/default/pods/$name/eviction" -f - && break; done) &`;
    const outcome = await pushed({
      kubectl: kubectlThat(lab, directory, 'evicts', evict),
      'smoke-expect': 'completed',
    });
    expect(verdict(outcome).slice(0, 2)).toEqual([1, 'SMOKE_EVICTED']);
    expect(outcome.log).toContain('EvictionByEvictionAPI');
  });
});

describe('without a kubectl on the runner', () => {
  it.for(['root', 'deploy'])('that of a control-plane node is used, as %s', async (user, { expect }) => {
    const image = await archive(directory, { reference: REFERENCE, layers: [{ files: { 'etc/user': user } }] });
    const { kubeconfig: _none, ...inputs } = n1;
    const outcome = await push(
      { ...inputs, archive: image.file, kubectl: `ssh://${user}@${control.address}:${control.port}` },
      { env: { PATH: '/nonexistent' } },
    );
    expect(verdict(outcome)).toEqual([0, undefined, 'Running']);
    const { stdout } = await enter(control, ['ps', '-A', '-o', 'args']);
    expect(stdout).not.toContain('--raw');
  });

  it('a node that is none says so', async () => {
    const outcome = await pushed({ ...{ kubeconfig: '' }, kubectl: `ssh://${node.address}` });
    expect(outcome.log).toMatch(/has no kubeconfig: one at [\s\S]*\[KUBECONFIG_INVALID\]/);
  });
});

import { describe, expect, it } from 'vitest';
import { assertUsed, containersOf, parsePodManifest, withSpelling } from '../../../src/smoke/manifest.ts';
import { smokePodManifest } from '../../../src/smoke/pod.ts';

const POD = `
apiVersion: v1
kind: Pod
metadata: { name: mine, namespace: smoke, labels: { app: mine }, annotations: { note: x } }
spec:
  schedulerName: other
  nodeName: elsewhere
  restartPolicy: Always
  tolerations: [{ key: gpu }]
  initContainers: [{ name: setup, image: busybox, imagePullPolicy: Always }]
  containers:
    - { name: app, image: 'app:1', imagePullPolicy: Always }
    - { name: side, image: 'registry.example/side:2' }
`;

describe('a manifest', () => {
  const template = parsePodManifest(POD, 'smoke');

  it('says which containers run which image, by full names', () => {
    expect(containersOf(template, 'docker.io/library/app:1')).toEqual(['app']);
    expect(containersOf(template, 'registry.example/side:2')).toEqual(['side']);
    expect(containersOf(template, 'docker.io/library/app:2')).toEqual([]);
  });

  it('gets another spelling of one of its images, and of no other', () => {
    const images = (spelling: string) =>
      (withSpelling(template, spelling)?.spec.containers as { image: string }[] | undefined)?.map(one => one.image);
    expect(images('docker.io/library/app:1')).toEqual(['docker.io/library/app:1', 'registry.example/side:2']);
    expect(images('app:1')).toEqual(['app:1', 'registry.example/side:2']);
    expect(images('app:2')).toBeUndefined();
  });

  it('keeps what is the user’s, and gets what makes it a smoke pod', () => {
    const pod = smokePodManifest({
      name: 'kube-sideload-x-0',
      nodeName: 'worker-1',
      image: 'docker.io/library/app:1',
      runId: 'x',
      deadlineSeconds: 180,
      template,
      command: [],
      security: { level: 'image' },
      resources: { requests: {}, limits: {} },
    });
    expect(pod).toMatchObject({
      metadata: {
        name: 'kube-sideload-x-0',
        labels: { app: 'mine', 'kube-sideload/run': 'x' },
        annotations: { note: 'x' },
      },
      spec: {
        nodeName: 'worker-1',
        restartPolicy: 'Never',
        activeDeadlineSeconds: 180,
        tolerations: [{ key: 'gpu' }],
        initContainers: [{ name: 'setup', imagePullPolicy: 'Never' }],
        containers: [
          { name: 'app', image: 'app:1', imagePullPolicy: 'Never' },
          { name: 'side', imagePullPolicy: 'Never' },
        ],
      },
    });
    expect(pod).not.toHaveProperty('spec.schedulerName');
    expect(pod).not.toHaveProperty('metadata.namespace');
  });

  it.each([
    ['Deployment', { spec: { template: { spec: { containers: [{ name: 'a', image: 'a' }] } } } }],
    ['PodTemplate', { template: { spec: { containers: [{ name: 'a', image: 'a' }] } } }],
    [
      'CronJob',
      { spec: { jobTemplate: { spec: { template: { spec: { containers: [{ name: 'a', image: 'a' }] } } } } } },
    ],
  ])('may be a %s', (kind, object) => {
    expect(parsePodManifest(JSON.stringify({ kind, ...object }), 'default').containers).toEqual([
      { name: 'a', reference: 'docker.io/library/a:latest', spelling: 'a' },
    ]);
  });

  it.each([
    ['nothing', '', /it is empty/],
    ['a comment', '# none\n', /it is empty/],
    ['two objects', 'kind: Pod\n---\nkind: Pod\n', /it has 2 documents/],
    ['a list', '- kind: Pod\n', /it is not an object/],
    ['broken YAML', 'kind: [Pod\n', /flow/i],
    ['an alias to nothing', 'kind: Pod\nspec: *nothing\n', /alias/i],
    ['a service', 'kind: Service\n', /its kind is "Service", not one of Pod, /],
    ['no kind', 'spec: {}\n', /its kind is null/],
    ['no containers', 'kind: Pod\nspec: {}\n', /it has no `spec.containers`/],
    ['containers that are none', 'kind: Pod\nspec: { containers: all }\n', /it has no `spec.containers`/],
    ['a container without a name', 'kind: Pod\nspec: { containers: [{ image: a }] }\n', /lacks its name/],
    ['a container without an image', 'kind: Pod\nspec: { containers: [{ name: a }] }\n', /lacks its image/],
    ['an image that is none', 'kind: Pod\nspec: { containers: [{ name: a, image: A B }] }\n', /container a: /],
    [
      'another namespace',
      'kind: Pod\nmetadata: { namespace: prod }\nspec: { containers: [{ name: a, image: a }] }\n',
      /its namespace is prod, and that of the smoke pods default/,
    ],
  ])('is refused with %s', (_what, text, message) => {
    expect(() => parsePodManifest(text, 'default')).toThrow(message);
    expect(() => parsePodManifest(text, 'default')).toThrow(expect.objectContaining({ code: 'INPUT_INVALID' }));
  });

  it('is refused when it runs none of the images', () => {
    expect(() => assertUsed(template, ['docker.io/library/app:2'])).toThrow(
      'its containers run docker.io/library/app:1, registry.example/side:2, and none of docker.io/library/app:2',
    );
    expect(() => assertUsed(template, ['x', 'registry.example/side:2'])).not.toThrow();
  });
});

describe('a pod of ours', () => {
  const ours = (changes: Partial<Parameters<typeof smokePodManifest>[0]> = {}) =>
    smokePodManifest({
      name: 'kube-sideload-x-0',
      nodeName: 'worker-1',
      image: 'docker.io/library/app:1',
      runId: 'x',
      deadlineSeconds: 180,
      template: undefined,
      command: [],
      security: { level: 'image' },
      resources: { requests: { cpu: '10m' }, limits: {} },
      ...changes,
    });

  it('runs one container as the image says, whatever taints there are', () => {
    const { spec } = ours() as { spec: object };
    expect(spec).toEqual({
      automountServiceAccountToken: false,
      enableServiceLinks: false,
      dnsPolicy: 'Default',
      tolerations: [{ operator: 'Exists' }],
      containers: [
        {
          name: 'smoke',
          image: 'docker.io/library/app:1',
          imagePullPolicy: 'Never',
          resources: { requests: { cpu: '10m' } },
        },
      ],
      nodeName: 'worker-1',
      restartPolicy: 'Never',
      terminationGracePeriodSeconds: 1,
      activeDeadlineSeconds: 180,
    });
  });

  it('has a command, and all that Pod Security `restricted` wants, when asked', () => {
    const securityContext = {
      runAsNonRoot: true,
      allowPrivilegeEscalation: false,
      capabilities: { drop: ['ALL'] },
      seccompProfile: { type: 'RuntimeDefault' },
    };
    const container = (runAsUser: number | undefined) =>
      ours({ command: ['/bin/true'], security: { level: 'restricted', runAsUser } });
    expect(container(undefined)).toHaveProperty('spec.containers.0.securityContext', securityContext);
    expect(container(65_534)).toHaveProperty('spec.containers.0', {
      ...{ name: 'smoke', image: 'docker.io/library/app:1', imagePullPolicy: 'Never', command: ['/bin/true'] },
      ...{ resources: { requests: { cpu: '10m' } }, securityContext: { ...securityContext, runAsUser: 65_534 } },
    });
  });
});

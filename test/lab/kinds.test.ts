import { createReadStream } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { must, type Outcome, run, until } from './command.ts';
import {
  down,
  enter,
  type Image,
  type Lab,
  type LabNode,
  leftovers,
  makeImage,
  type NodeKindName,
  sshCommand,
  up,
} from './index.ts';
import { kindNames, kinds } from './kinds.ts';

const minute = 60_000;
/** The first `up` of a machine builds what labs are made of. */
const buildMs = 60 * minute;
const name = 'lab-test-kinds';

describe('a lab with a node of each kind', () => {
  let lab: Lab;
  let scratch: string;
  let image: Image;

  beforeAll(async () => {
    lab = await up({ name, nodes: kindNames, log: line => console.log(line) });
    scratch = await mkdtemp(join(tmpdir(), 'lab-test-kinds-'));
    image = await makeImage({
      file: join(scratch, 'app.tar'),
      reference: 'docker.io/library/app:v1',
      dockerManifest: true,
      command: ['/bin/sh', '-c', 'echo hello; trap exit TERM; sleep 1d & wait'],
    });
  }, buildMs);

  afterAll(async () => {
    await down(name);
    if (scratch) await rm(scratch, { recursive: true });
  }, minute);

  const node = (kind: NodeKindName): LabNode => {
    const found = lab.nodes.find(candidate => candidate.kind === kind);
    if (!found) throw new Error(`no node of kind ${kind}`);
    return found;
  };
  const ssh = (kind: NodeKindName, command: string, user = 'root'): Promise<Outcome> =>
    run([...sshCommand(lab, node(kind), user), command]);
  const withTools = (): NodeJS.ProcessEnv => ({
    ...process.env,
    PATH: `${lab.bin}:${process.env.PATH}`,
    KUBECONFIG: lab.kubeconfig,
  });
  const kubectl = (argv: string[], input?: string): Promise<string> =>
    must(['kubectl', ...argv], { env: withTools(), ...(input !== undefined && { input }) });
  /** The host's crictl, so that kinds without one are asked too. `/var/run` would be the host's: it links to `/run`. */
  const crictl = async (kind: NodeKindName, ...argv: string[]): Promise<string> => {
    const socket = `unix://${node(kind).root}${node(kind).criSocket.replace(/^\/var\/run/, '/run')}`;
    const endpoints = ['--runtime-endpoint', socket, '--image-endpoint', socket];
    return must(['crictl', '--config', '/dev/null', ...endpoints, ...argv], { env: withTools() });
  };

  describe.each(kindNames)('%s', kind => {
    test('answers over ssh, and by crictl as the runtime that it is', async () => {
      expect(await ssh(kind, 'id -un')).toMatchObject({ code: 0, stdout: 'root\n' });
      const called = { containerd: 'containerd', crio: 'cri-o', docker: 'docker' }[node(kind).runtime];
      const version = await crictl(kind, 'version');
      expect(version).toMatch(new RegExp(`^RuntimeName: +${called}$`, 'm'));
      const suite = /^containerd-(1\.\d)$/.exec(kind)?.[1];
      if (suite !== undefined)
        expect(version).toMatch(new RegExp(`^RuntimeVersion: +${suite.replace('.', '\\.')}`, 'm'));
    });

    test('has no programs of other runtimes', async () => {
      const has = { containerd: ['ctr'], crio: ['podman', 'skopeo'], docker: ['ctr', 'docker'] }[node(kind).runtime];
      const path = '/usr/sbin:/usr/bin';
      const found = await ssh(kind, `PATH=${path}; for name in ctr docker podman skopeo; do command -v $name; done; :`);
      const names = found.stdout.split('\n').map(line => line.split('/').pop());
      const elsewhere = /^(k3s|rke2|k0s|microk8s)-/.test(kind);
      expect(names.filter(Boolean)).toEqual(elsewhere ? [] : has);
    });

    test(
      'runs a pod that never pulls once the runtime’s own tool has imported the image',
      async () => {
        const { runtime } = kinds[kind];
        const imported = await enter(node(kind), runtime.importImage(image.reference), {
          input: createReadStream(image.file),
        });
        expect(imported).toMatchObject({ code: 0 });
        const { status } = JSON.parse(await crictl(kind, 'inspecti', '-o', 'json', image.reference));
        // CRI-O says IDs without their algorithm.
        expect(`sha256:${status.id.replace(/^sha256:/, '')}`).toBe(image.id);

        const pod = kind.replace('.', '-');
        await kubectl(
          ['create', '-f', '-'],
          JSON.stringify({
            apiVersion: 'v1',
            kind: 'Pod',
            metadata: { name: pod },
            spec: {
              nodeName: node(kind).name,
              automountServiceAccountToken: false,
              terminationGracePeriodSeconds: 0,
              containers: [{ name: 'app', image: image.reference, imagePullPolicy: 'Never' }],
            },
          }),
        );
        await until(`pod ${pod} to run`, minute, async () =>
          (await kubectl(['get', 'pod', pod, '-o', 'jsonpath={.status.phase}'])).includes('Running'),
        );
        // Not by exec: cri-dockerd 0.4.0 names its streams to the kubelet by a URL without a scheme.
        expect(await kubectl(['logs', pod])).toBe('hello\n');
      },
      2 * minute,
    );
  });

  /** The process that is the kubelet, and its command line. */
  const kubeletOf = async (kind: NodeKindName): Promise<string> =>
    (await ssh(kind, 'ps -eo comm=,args= | grep -e --node-ip= | grep -v grep')).stdout.trim();

  test('says where the runtime is on the kubelet’s command line, or in its configuration, as asked', async () => {
    const flag = '--container-runtime-endpoint=';
    expect(await kubeletOf('containerd')).not.toContain(flag);
    expect(await kubeletOf('containerd-flag')).toContain(`${flag}unix:///run/containerd/containerd.sock`);
    expect(await kubeletOf('rhcos-layout')).toContain(`${flag}/var/run/crio/crio.sock`);
    expect((await ssh('containerd-flag', 'cat /var/lib/kubelet/config.yaml')).stdout).not.toContain('Endpoint');
    expect((await ssh('containerd-moved', 'cat /var/lib/kubelet/config.yaml')).stdout).toContain(
      'containerRuntimeEndpoint: unix:///srv/containerd/cri.sock\n',
    );
    expect((await ssh('containerd-moved', 'ls /run/containerd/containerd.sock')).code).toBe(2);
  });

  test('unpacks for another snapshotter, and discards what it has unpacked', async () => {
    // containerd 2's `crictl info` does not say which snapshotter it has.
    expect(await crictl('containerd-native', 'imagefsinfo')).toContain('/io.containerd.snapshotter.v1.native"');
    const contents = async (kind: NodeKindName) =>
      (await ssh(kind, 'ctr -n k8s.io content ls -q')).stdout.trim().split('\n');
    expect(await contents('containerd')).toContain(image.layers[0]?.digest);
    expect(await contents('containerd-discard')).not.toContain(image.layers[0]?.digest);
  });

  test('resolves a short name nowhere, or strictly, on CRI-O', async () => {
    await expect(crictl('crio', 'inspecti', 'app:v1')).rejects.toThrow('no unqualified-search registries are defined');
    await expect(crictl('crio-enforcing', 'inspecti', 'app:v1')).rejects.toThrow('short name mode is enforcing');
  });

  test('shares the store of CRI-O with root’s podman and skopeo', async () => {
    expect((await ssh('crio', 'podman images --quiet --no-trunc docker.io/library/app:v1')).stdout).toBe(
      `${image.id}\n`,
    );
    const inspected = await ssh('crio', `skopeo inspect --format '{{.Digest}}' containers-storage:${image.reference}`);
    expect(inspected.stdout).toBe(`${image.manifestDigest}\n`);
  });

  test('has the containerd that dockerd uses at the usual place, without a CRI', async () => {
    expect((await ssh('docker', 'ctr version')).code).toBe(0);
    const socket = 'unix:///run/containerd/containerd.sock';
    expect(await ssh('docker', `crictl --runtime-endpoint ${socket} version`)).toMatchObject({ code: 1 });
  });

  test('lays k3s out: one program, outside sudo’s path, and no process called kubelet', async () => {
    expect((await ssh('k3s-layout', 'k3s ctr images ls -q')).stdout).toContain(image.reference);
    expect((await ssh('k3s-layout', 'ctr images ls -q')).stdout).toContain(image.reference);
    expect((await ssh('k3s-layout', 'k3s crictl inspecti app:v1')).code).toBe(0);
    expect((await ssh('k3s-layout', 'k3s kubectl get node -o name')).stdout).toContain(node('k3s-layout').name);
    expect((await ssh('k3s-layout', 'sudo -n k3s ctr version', 'deploy')).stderr).toContain('command not found');
    expect((await ssh('k3s-layout', 'sudo -n /usr/local/bin/k3s ctr version', 'deploy')).code).toBe(0);
    expect(await kubeletOf('k3s-layout')).toMatch(/^k3s-agent /);
  });

  test('lays RKE2 out: programs in a directory of its own, and a kubelet with a directory of configurations', async () => {
    const ctr = '/var/lib/rancher/rke2/bin/ctr -a /run/k3s/containerd/containerd.sock -n k8s.io';
    expect((await ssh('rke2-layout', `${ctr} images ls -q`)).stdout).toContain(image.reference);
    expect((await ssh('rke2-layout', 'command -v ctr crictl kubectl')).stdout).toBe('');
    expect(await kubeletOf('rke2-layout')).toMatch(/^kubelet .*--config-dir=\S+kubelet\.conf\.d /);
  });

  test('lays k0s out: one program, no crictl, and a kubelet', async () => {
    expect((await ssh('k0s-layout', 'k0s ctr images ls -q')).stdout).toContain(image.reference);
    expect((await ssh('k0s-layout', 'k0s kubectl get node -o name')).stdout).toContain(node('k0s-layout').name);
    expect((await ssh('k0s-layout', 'command -v ctr crictl kubectl')).stdout).toBe('');
    expect(await kubeletOf('k0s-layout')).toMatch(/^kubelet /);
  });

  test('lays MicroK8s out: wrappers in /snap/bin for root alone, and everything in kubelite', async () => {
    expect((await ssh('microk8s-layout', 'microk8s ctr images ls -q')).stdout).toContain(image.reference);
    expect((await ssh('microk8s-layout', 'microk8s ctr images ls -q', 'deploy')).stderr).toContain('Insufficient');
    expect((await ssh('microk8s-layout', 'sudo -n microk8s ctr images ls -q', 'deploy')).code).toBe(0);
    expect(await kubeletOf('microk8s-layout')).toMatch(/^kubelite /);
  });

  test('lays RHCOS out: core with sudo, a /usr that nobody writes to, and no package manager', async () => {
    expect(await ssh('rhcos-layout', 'sudo -n id -un', 'core')).toMatchObject({ code: 0, stdout: 'root\n' });
    expect((await ssh('rhcos-layout', 'touch /usr/bin/mine')).stderr).toContain('Read-only file system');
    expect((await ssh('rhcos-layout', 'command -v apt-get dpkg')).stdout).toBe('');
  });

  test('lets core hand an image on from its own podman to root’s', async () => {
    const reference = 'docker.io/library/handed:v1';
    const handed = await makeImage({ file: join(scratch, 'handed.tar'), reference, dockerManifest: true });
    const load = run([...sshCommand(lab, node('rhcos-layout'), 'core'), 'podman load'], {
      input: createReadStream(handed.file),
    });
    expect(await load).toMatchObject({ code: 0, stdout: `Loaded image: ${reference}\n` });
    await expect(crictl('rhcos-layout', 'inspecti', '-o', 'json', reference)).rejects.toThrow('no such image');
    expect(await ssh('rhcos-layout', `podman image scp ${reference} root@localhost::`, 'core')).toMatchObject({
      code: 0,
    });
    const { status } = JSON.parse(await crictl('rhcos-layout', 'inspecti', '-o', 'json', reference));
    expect(`sha256:${status.id}`).toBe(handed.id);
  });

  test(
    'goes without a trace',
    async () => {
      await down(name);
      expect(await leftovers(name)).toEqual([]);
    },
    minute,
  );
});

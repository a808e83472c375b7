import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { createReadStream } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { createServer } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { must, run, until } from './command.ts';
import {
  down,
  enter,
  type Lab,
  type LabNode,
  leftovers,
  load,
  makeImage,
  setLink,
  setRate,
  sshCommand,
  start,
  stop,
  up,
} from './index.ts';
import { answers } from './services.ts';

const minute = 60_000;
/** The first `up` of a machine builds what labs are made of. */
const buildMs = 60 * minute;

describe('a lab of two nodes', () => {
  let lab: Lab;
  let scratch: string;

  beforeAll(async () => {
    lab = await up({ name: 'lab-test', nodes: 2, log: line => console.log(line) });
    scratch = await mkdtemp(join(tmpdir(), 'lab-test-'));
  }, buildMs);

  afterAll(async () => {
    await down('lab-test');
    if (scratch) await rm(scratch, { recursive: true });
  }, minute);

  const node = (index: number): LabNode => {
    const found = lab.nodes[index];
    if (!found) throw new Error(`no node ${index}`);
    return found;
  };
  const ssh = (index: number, user: string, ...command: string[]) =>
    run([...sshCommand(lab, node(index), user), ...command]);
  const withTools = (): NodeJS.ProcessEnv => ({
    ...process.env,
    PATH: `${lab.bin}:${process.env.PATH}`,
    KUBECONFIG: lab.kubeconfig,
  });
  const kubectl = (argv: string[], input?: string): Promise<string> =>
    must(['kubectl', ...argv], { env: withTools(), ...(input !== undefined && { input }) });

  /** Creates a pod as the product's smoke pod is: on one node, and never pulling. */
  const createPod = (name: string, image: string): Promise<string> =>
    kubectl(
      ['create', '-f', '-'],
      JSON.stringify({
        apiVersion: 'v1',
        kind: 'Pod',
        metadata: { name },
        spec: {
          nodeName: node(0).name,
          automountServiceAccountToken: false,
          terminationGracePeriodSeconds: 0,
          containers: [{ name: 'app', image, imagePullPolicy: 'Never' }],
        },
      }),
    );
  const podState = async (name: string, wanted: string): Promise<string> =>
    until(`pod ${name} to be ${wanted}`, minute, async () => {
      const state = await kubectl([
        'get',
        'pod',
        name,
        '-o',
        'jsonpath={.status.phase} {.status.containerStatuses[*].state.waiting.reason}',
      ]);
      return state.includes(wanted) && state;
    });

  test('lets its key in over ssh under the host keys that it names', async () => {
    for (const index of [0, 1]) {
      const { code, stdout } = await ssh(index, 'root', 'hostname; id -un');
      expect({ code, stdout }).toEqual({ code: 0, stdout: `n${index + 1}\nroot\n` });
    }
  });

  test('has an account for each way to be root, and one for none', async () => {
    expect(await ssh(0, 'deploy', 'sudo -n id -un')).toMatchObject({ code: 0, stdout: 'root\n' });
    expect(await ssh(0, 'nosudo', 'sudo -n id -un')).toMatchObject({ code: 1 });
    expect(await ssh(0, 'prompted', 'sudo -n id -un')).toMatchObject({ code: 1 });
    expect(await ssh(0, 'prompted', 'echo swordfish | sudo -S id -un')).toMatchObject({ code: 0, stdout: 'root\n' });
  });

  test('shows one kubelet on each node, and no other node’s processes', async () => {
    for (const index of [0, 1])
      expect((await ssh(index, 'root', 'pgrep kubelet')).stdout.trim().split('\n')).toHaveLength(1);
  });

  test(
    'lets a pod run only when its image is there',
    async () => {
      await createPod('missing', 'docker.io/library/missing:v1');
      expect(await podState('missing', 'ErrImageNeverPull')).toBe('Pending ErrImageNeverPull');

      const image = await makeImage({
        file: join(scratch, 'app.tar'),
        reference: 'docker.io/library/app:v1',
        layers: [{ files: { 'etc/greeting': 'hello' } }],
      });
      const imported = await enter(node(0), ['ctr', '-n', 'k8s.io', 'images', 'import', '-'], {
        input: createReadStream(image.file),
      });
      expect(imported.code).toBe(0);
      const inspected = JSON.parse((await enter(node(0), ['crictl', 'inspecti', 'app:v1'])).stdout);
      expect(inspected.status).toMatchObject({ id: image.id, repoTags: ['docker.io/library/app:v1'] });
      await createPod('present', 'app:v1');
      await podState('present', 'Running');
      expect(await kubectl(['exec', 'present', '--', 'cat', '/etc/greeting'])).toBe('hello');
    },
    2 * minute,
  );

  test('says of an image of another architecture what it claims', async () => {
    const image = await makeImage({
      file: join(scratch, 'arm.tar'),
      reference: 'docker.io/library/arm:v1',
      architecture: 'arm64',
    });
    const { stdout } = await run(['skopeo', 'inspect', '--config', `oci-archive:${image.file}`], { env: withTools() });
    expect(JSON.parse(stdout)).toMatchObject({ architecture: 'arm64' });
  });

  test('streams out of a real Docker engine and a real podman', async () => {
    const image = await makeImage({ file: join(scratch, 'built.tar'), reference: 'docker.io/library/built:v1' });
    for (const [engine, transport] of [
      ['docker', 'docker-daemon:built:v1'],
      ['podman', 'containers-storage:docker.io/library/built:v1'],
    ] as const) {
      await must(['skopeo', 'copy', '--quiet', `oci-archive:${image.file}`, transport], { env: withTools() });
      const listed = await must(['sh', '-c', `${engine} save docker.io/library/built:v1 | tar -tf -`], {
        env: withTools(),
      });
      expect(listed.split('\n')).toContain('manifest.json');
    }
  });

  test('hands on exit codes and ends with the signal that its caller sends', async () => {
    expect(await run(['docker', 'inspect', 'nothing'], { env: withTools() })).toMatchObject({ code: 1 });
    const child = spawn('docker', ['events'], { env: withTools(), stdio: 'ignore' });
    const ended = once(child, 'exit');
    await until('docker events', 10_000, async () =>
      (await must(['readlink', `/proc/${child.pid}/exe`])).includes('docker'),
    );
    child.kill('SIGKILL');
    expect(await ended).toEqual([null, 'SIGKILL']);
  });

  test('lets the engine push to a port of this process on loopback', async () => {
    const image = await makeImage({ file: join(scratch, 'pushed.tar'), reference: 'docker.io/library/pushed:v1' });
    const registry = createServer();
    registry.listen(0, '127.0.0.1');
    await once(registry, 'listening');
    const { port } = registry.address() as { port: number };
    const target = `127.0.0.1:${port}/pushed:v1`;
    await must(['skopeo', 'copy', '--quiet', `oci-archive:${image.file}`, `docker-daemon:${target}`], {
      env: withTools(),
    });
    const push = spawn('docker', ['push', target], { env: withTools(), stdio: 'ignore' });
    const [request] = await once(registry, 'request', { signal: AbortSignal.timeout(10_000) });
    expect(request.url).toBe('/v2/');
    const ended = once(push, 'exit');
    push.kill('SIGTERM');
    await ended;
    registry.close();
    registry.closeAllConnections();
  });

  test(
    'stops and starts a node’s services one by one',
    async () => {
      await stop(node(1), 'sshd');
      expect((await ssh(1, 'root', 'true')).code).toBe(255);
      await start(node(1), 'sshd');
      expect((await ssh(1, 'root', 'true')).code).toBe(0);

      await stop(node(1), 'containerd');
      expect((await enter(node(1), ['crictl', 'images'])).code).toBe(1);
      await start(node(1), 'containerd');
      await until('the CRI', 20_000, async () => (await enter(node(1), ['crictl', 'images'])).code === 0);

      await stop(node(1), 'kubelet');
      expect((await enter(node(1), ['pgrep', 'kubelet'])).stdout).toBe('');
      await start(node(1), 'kubelet');
      expect((await enter(node(1), ['pgrep', 'kubelet'])).code).toBe(0);
    },
    minute,
  );

  test('cuts a node’s link and mends it', async () => {
    await setLink(node(1), 'down');
    await expect(answers(node(1).address, node(1).port, 300)).rejects.toThrow();
    await setLink(node(1), 'up');
    await until('the link', 10_000, () => answers(node(1).address, node(1).port, 300));
  });

  test('bounds the rate of a node’s link', async () => {
    const sendMs = async (): Promise<number> => {
      const start = performance.now();
      await must([...sshCommand(lab, node(1)), 'cat >/dev/null'], { input: Buffer.alloc(5_000_000, 7) });
      return performance.now() - start;
    };
    await setRate(node(1), '20mbit');
    const bound = await sendMs();
    await setRate(node(1), undefined);
    const free = await sendMs();
    // 5 MB take 2 s at 20 Mbit/s.
    expect(bound).toBeGreaterThan(1_500);
    expect(free).toBeLessThan(bound);
  });

  test(
    'stands beside another lab, which goes without a trace of it or in it',
    async () => {
      const other = await up({ name: 'lab-test-2', nodes: 1, cluster: false });
      expect(other.nodes[0]?.address).not.toBe(node(0).address);
      expect(await run([...sshCommand(other, other.nodes[0] ?? node(0)), 'hostname'])).toMatchObject({
        code: 0,
        stdout: 'n1\n',
      });
      await down('lab-test-2');
      expect(await leftovers('lab-test-2')).toEqual([]);
      expect((await ssh(0, 'root', 'true')).code).toBe(0);
    },
    minute,
  );

  test(
    'goes without a trace, also when a node’s first process was killed',
    async () => {
      process.kill(node(0).pid, 'SIGKILL');
      await down('lab-test');
      expect(await leftovers('lab-test')).toEqual([]);
      expect(await load('lab-test')).toBeUndefined();
    },
    minute,
  );
});

describe('an `up` that is killed', () => {
  const name = 'lab-test-killed';
  afterAll(() => down(name), minute);

  const upUntil = async (what: string): Promise<void> => {
    const child = spawn(process.execPath, [join(import.meta.dirname, 'lab.ts'), 'up', '--name', name], {
      stdio: 'ignore',
    });
    await until(what, minute, async () => (await leftovers(name)).some(line => line.startsWith(what)), { everyMs: 5 });
    const ended = once(child, 'exit');
    child.kill('SIGKILL');
    await ended;
  };

  test.each(['files', 'link', 'cgroup', 'process', 'mount namespace'])(
    'once it has made a %s leaves nothing behind after `down`',
    async what => {
      await upUntil(what);
      await down(name);
      expect(await leftovers(name)).toEqual([]);
    },
    minute,
  );

  test(
    'is no hindrance to the next `up`',
    async () => {
      await upUntil('mount namespace');
      const lab = await up({ name, nodes: 1, cluster: false });
      expect(await run([...sshCommand(lab, lab.nodes[0] as LabNode), 'true'])).toMatchObject({ code: 0 });
    },
    minute,
  );
});

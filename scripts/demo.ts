/**
 * `npm run demo`: the main job, visibly. Raises a node and a Kubernetes, builds an image with the runner's docker, shows
 * that the kubelet says ErrImageNeverPull, pushes with the shipped bundle, and shows Running. `--keep` leaves the lab up.
 */
import { execFileSync, spawnSync } from 'node:child_process';
import { copyFileSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { down, up } from '../test/lab/index.ts';

const NAME = 'demo';
const IMAGE = 'hello:1';
const WAIT_SECONDS = 60;
const cli = join(resolve(import.meta.dirname, '..'), 'dist', 'cli', 'index.js');

function say(text: string): void {
  console.log(`\n\u001b[1m# ${text}\u001b[0m`);
}

const lab = await up({ name: NAME, nodes: 1, log: line => console.log(`  ${line}`) });
const directory = mkdtempSync(join(tmpdir(), 'kube-sideload-demo-'));
try {
  const node = lab.nodes[0];
  if (node === undefined || lab.kubeconfig === undefined) {
    throw new Error('the lab came up without a node or a cluster');
  }
  const env = { ...process.env, PATH: `${lab.bin}:${process.env.PATH}`, KUBECONFIG: lab.kubeconfig };
  const run = (program: string, args: readonly string[], input?: string) => {
    console.log(`$ ${[program, ...args].join(' ')}`);
    execFileSync(program, args, {
      env,
      cwd: directory,
      input,
      stdio: [input === undefined ? 'ignore' : 'pipe', 'inherit', 'inherit'],
    });
  };
  const waitFor = (path: string, value: string) =>
    run('kubectl', ['wait', 'pod/hello', `--for=jsonpath=${path}=${value}`, `--timeout=${WAIT_SECONDS}s`]);
  const pod = JSON.stringify({
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { name: 'hello' },
    spec: {
      nodeName: node.name,
      automountServiceAccountToken: false,
      terminationGracePeriodSeconds: 1,
      containers: [{ name: 'hello', image: IMAGE, imagePullPolicy: 'Never' }],
    },
  });

  say(`A CI job builds ${IMAGE} with docker, on a runner that is no node of the cluster`);
  copyFileSync(join(node.root, 'usr', 'bin', 'busybox'), join(directory, 'busybox'));
  writeFileSync(
    join(directory, 'Dockerfile'),
    'FROM scratch\nCOPY busybox /bin/busybox\nCMD ["/bin/busybox", "sh", "-c", "echo hello from the node; exec /bin/busybox sleep 3600"]\n',
  );
  run('docker', ['build', '--quiet', '--tag', IMAGE, '.']);

  say('There is no registry: the kubelet does not have the image');
  run('kubectl', ['apply', '-f', '-'], pod);
  waitFor('{.status.containerStatuses[0].state.waiting.reason}', 'ErrImageNeverPull');
  run('kubectl', ['get', 'pod', 'hello', '-o', 'wide']);
  run('kubectl', ['delete', 'pod', 'hello', '--wait']);

  say('kube-sideload pushes it, and asks the kubelet');
  const inputs = [
    '--images',
    IMAGE,
    '--nodes',
    `${node.address}=${node.name}`,
    '--ssh-private-key-file',
    lab.privateKeyFile,
    '--ssh-known-hosts-file',
    lab.knownHostsFile,
  ];
  console.log(`$ kube-sideload push ${inputs.join(' ')}`);
  const pushed = spawnSync(process.execPath, [cli, 'push', ...inputs], { env, stdio: ['ignore', 'ignore', 'inherit'] });
  if (pushed.status !== 0) {
    throw new Error(`kube-sideload ended with exit code ${pushed.status}`);
  }

  say('The same pod runs');
  run('kubectl', ['apply', '-f', '-'], pod);
  waitFor('{.status.phase}', 'Running');
  run('kubectl', ['get', 'pod', 'hello', '-o', 'wide']);
  run('kubectl', ['logs', 'hello']);
  run('kubectl', ['delete', 'pod', 'hello', '--wait']);
} finally {
  rmSync(directory, { recursive: true, force: true });
  if (process.argv.includes('--keep')) {
    console.log(`\nThe lab stays up; \`npm run lab -- down --name ${NAME}\` takes it down.`);
  } else {
    await down(NAME);
  }
}

import { randomBytes } from 'node:crypto';
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { request } from 'node:https';
import { join } from 'node:path';
import type { Binaries } from './binaries.ts';
import { must, until } from './command.ts';
import { authorize, type LabKey, type SshIdentity } from './keys.ts';
import { type KubeletIdentity, kubeconfig } from './kubelet.ts';
import { raise } from './machine.ts';
import { controlAddress, type Network, plug } from './network.ts';
import { machineDirectoryUpper, sshd, sshPort } from './node.ts';
import { type Service, startService, stopService } from './services.ts';
import type { LabHost } from './state.ts';

/** A lab's Kubernetes before any of it runs: who may log in, and where. */
export interface Cluster {
  readonly server: string;
  /** The API server's own certificate, PEM; clients trust it alone. */
  readonly authority: string;
  readonly adminToken: string;
  /** The token of node N, at N - 1. */
  readonly nodeTokens: readonly string[];
  readonly directory: string;
}

/** Makes the certificate, the tokens and the administrator's kubeconfig. */
export async function planCluster(directory: string, network: Network, nodes: number): Promise<Cluster> {
  await mkdir(directory, { recursive: true, mode: 0o700 });
  const address = `${network.prefix}.${controlAddress}`;
  const at = (name: string): string => join(directory, name);
  await Promise.all([
    must([
      'openssl',
      'req',
      '-x509',
      '-newkey',
      'ec',
      '-pkeyopt',
      'ec_paramgen_curve:P-256',
      '-nodes',
      '-days',
      '365',
      '-subj',
      '/CN=kube-apiserver',
      '-addext',
      `subjectAltName=IP:${address},IP:127.0.0.1,IP:10.96.0.1,DNS:control,DNS:kubernetes,DNS:kubernetes.default.svc`,
      '-keyout',
      at('server.key'),
      '-out',
      at('server.crt'),
    ]),
    must(['openssl', 'genpkey', '-algorithm', 'RSA', '-pkeyopt', 'rsa_keygen_bits:2048', '-out', at('accounts.key')]),
  ]);
  await must(['openssl', 'pkey', '-in', at('accounts.key'), '-pubout', '-out', at('accounts.pub')]);
  const token = (): string => randomBytes(16).toString('hex');
  const adminToken = token();
  const nodeTokens = Array.from({ length: nodes }, token);
  const rows = [
    `${adminToken},admin,admin,system:masters`,
    ...nodeTokens.map((nodeToken, index) => `${nodeToken},system:node:n${index + 1},n${index + 1},system:nodes`),
  ];
  await writeFile(at('tokens.csv'), `${rows.join('\n')}\n`, { mode: 0o600 });
  const cluster = {
    server: `https://${address}:6443`,
    authority: await readFile(at('server.crt'), 'utf8'),
    adminToken,
    nodeTokens,
    directory,
  };
  await writeFile(kubeconfigFile(cluster), kubeconfig(adminIdentity(cluster)), { mode: 0o600 });
  return cluster;
}

export function kubeconfigFile(cluster: Cluster): string {
  return join(cluster.directory, 'admin.conf');
}

export function nodeIdentity(cluster: Cluster, number: number): KubeletIdentity {
  const token = cluster.nodeTokens[number - 1];
  if (token === undefined) throw new Error(`the cluster was not made for node ${number}`);
  return { server: cluster.server, authority: cluster.authority, token };
}

export function adminIdentity(cluster: Cluster): KubeletIdentity {
  return { server: cluster.server, authority: cluster.authority, token: cluster.adminToken };
}

export interface ControlSpec {
  readonly lab: string;
  readonly rootfs: string;
  readonly binaries: Binaries;
  readonly key: LabKey;
  readonly identity: SshIdentity;
  readonly network: Network;
  readonly hosts: string;
  readonly cluster: Cluster;
}

/** Raises the control plane: sshd, etcd and kube-apiserver. Returns when the API is ready. */
export async function raiseControl(spec: ControlSpec): Promise<LabHost> {
  const name = 'control';
  const pki = '/etc/kubernetes/pki';
  await authorize(machineDirectoryUpper(spec.lab, name), spec.key);
  const machine = await raise({
    lab: spec.lab,
    name,
    rootfs: spec.rootfs,
    isolated: true,
    data: ['/var/lib/etcd'],
    binds: [
      { source: spec.binaries.kubeApiserver, target: '/usr/local/bin/kube-apiserver', mode: 'ro' },
      { source: spec.cluster.directory, target: pki, mode: 'ro' },
    ],
    files: {
      ...spec.identity.files,
      '/etc/hosts': spec.hosts,
      '/etc/kubernetes/admin.conf': { text: kubeconfig(adminIdentity(spec.cluster)), mode: 0o600 },
      '/root/.kube/config': { text: kubeconfig(adminIdentity(spec.cluster)), mode: 0o600 },
    },
  });
  const address = await plug(machine, spec.network, controlAddress);
  const control: LabHost = { ...machine, address, port: sshPort };
  await Promise.all([
    startService(control, sshd(control)),
    startService(control, etcd).then(() => startService(control, kubeApiserver(address, pki))),
  ]);
  await until('the API server', 60_000, async () => (await call(spec.cluster, 'GET', '/readyz')).status === 200);
  return control;
}

/** Stops the API server, and starts it again once it has ended. Returns when it answers. */
export async function restartApiServer(control: LabHost): Promise<void> {
  const service = kubeApiserver(control.address, '/etc/kubernetes/pki');
  await stopService(control, service.name);
  await startService(control, service);
}

/** No fsync: nobody needs this data after a power cut. */
const etcd: Service = {
  name: 'etcd',
  argv: ['etcd', '--data-dir=/var/lib/etcd', '--unsafe-no-fsync', '--log-level=warn'],
};

function kubeApiserver(address: string, pki: string): Service {
  return {
    name: 'kube-apiserver',
    listen: { address, port: 6443 },
    readyWithinMs: 60_000,
    argv: [
      'kube-apiserver',
      '--etcd-servers=http://127.0.0.1:2379',
      '--bind-address=0.0.0.0',
      `--advertise-address=${address}`,
      `--tls-cert-file=${pki}/server.crt`,
      `--tls-private-key-file=${pki}/server.key`,
      `--token-auth-file=${pki}/tokens.csv`,
      `--service-account-key-file=${pki}/accounts.pub`,
      `--service-account-signing-key-file=${pki}/accounts.key`,
      '--service-account-issuer=https://kubernetes.default.svc',
      '--service-cluster-ip-range=10.96.0.0/16',
      '--authorization-mode=Node,RBAC',
      '--allow-privileged=true',
      '--kubelet-preferred-address-types=InternalIP',
    ],
  };
}

/**
 * Does what a controller manager would: pods of namespace `default` need its service account, and those that mount a
 * token also the configmap with the API server's certificate.
 */
export async function furnish(cluster: Cluster): Promise<void> {
  const namespace = '/api/v1/namespaces/default';
  await until('namespace default', 30_000, async () => (await call(cluster, 'GET', namespace)).status === 200);
  await create(cluster, `${namespace}/serviceaccounts`, { metadata: { name: 'default' } });
  await create(cluster, `${namespace}/configmaps`, {
    metadata: { name: 'kube-root-ca.crt' },
    data: { 'ca.crt': cluster.authority },
  });
}

/** Waits until a node is Ready, and lifts the taint that a controller would. */
export async function awaitNode(cluster: Cluster, name: string): Promise<void> {
  const path = `/api/v1/nodes/${name}`;
  await until(`node ${name} to be Ready`, 120_000, async () => {
    const { status, body } = await call(cluster, 'GET', path);
    if (status !== 200) return false;
    const node = JSON.parse(body) as { status: { conditions?: { type: string; status: string }[] } };
    return node.status.conditions?.some(condition => condition.type === 'Ready' && condition.status === 'True');
  });
  const { status, body } = await call(cluster, 'PATCH', path, { spec: { taints: null } });
  if (status !== 200) throw new Error(`the taints of ${name} stay: ${body}`);
}

async function create(cluster: Cluster, path: string, object: unknown): Promise<void> {
  const { status, body } = await call(cluster, 'POST', path, object);
  if (status !== 201 && status !== 409) throw new Error(`POST ${path}: ${status} ${body}`);
}

/** One request to the API server, as its administrator; any status resolves. */
function call(
  cluster: Cluster,
  method: 'GET' | 'POST' | 'PATCH',
  path: string,
  object?: unknown,
): Promise<{ status: number; body: string }> {
  return new Promise((resolve, reject) => {
    const message = request(
      new URL(path, cluster.server),
      {
        method,
        ca: cluster.authority,
        timeout: 10_000,
        headers: {
          authorization: `Bearer ${cluster.adminToken}`,
          'content-type': method === 'PATCH' ? 'application/merge-patch+json' : 'application/json',
        },
      },
      response => {
        const chunks: Buffer[] = [];
        response.on('data', (chunk: Buffer) => chunks.push(chunk));
        response.once('error', reject);
        response.once('end', () =>
          resolve({ status: response.statusCode ?? 0, body: Buffer.concat(chunks).toString() }),
        );
      },
    );
    message.once('timeout', () => message.destroy(new Error(`${path}: no answer`)));
    message.once('error', reject);
    message.end(object === undefined ? undefined : JSON.stringify(object));
  });
}

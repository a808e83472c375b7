import { execFileSync } from 'node:child_process';
import { chmodSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Lab, LabNode } from '../lab/index.ts';
import { crictl } from '../shipped.ts';

/** Runs the lab's kubectl as its administrator. */
export function kubectl(lab: Lab, args: readonly string[], input = ''): string {
  const env = { ...process.env, PATH: `${lab.bin}:${process.env.PATH}`, KUBECONFIG: lab.kubeconfig };
  return execFileSync('kubectl', args, { env, input, encoding: 'utf8' }).trim();
}

/** Names of all smoke pods in all namespaces. */
export function smokePods(lab: Lab): readonly string[] {
  const names = kubectl(lab, ['get', 'pods', '-A', '-l', 'app.kubernetes.io/managed-by=kube-sideload', '-o', 'name']);
  return names === '' ? [] : names.split('\n');
}

/** The image ID that a node's CRI reports for a reference. */
export async function criImageId(lab: Lab, node: LabNode, reference: string): Promise<string> {
  const { status } = JSON.parse(await crictl(lab, node, ['inspecti', '-o', 'json', reference])) as {
    status: { id: string };
  };
  return status.id.startsWith('sha256:') ? status.id : `sha256:${status.id}`;
}

/** A namespace `smoke`, and a kubeconfig whose only right is to do `verbs` with pods there. */
export async function withRole(lab: Lab, verbs: string, body: (kubeconfig: string) => Promise<void>): Promise<void> {
  const inSmoke = (args: readonly string[]) => kubectl(lab, ['--namespace=smoke', ...args]);
  const manifest = (kind: string, name: string) => JSON.stringify({ apiVersion: 'v1', kind, metadata: { name } });
  kubectl(lab, ['apply', '-f', '-'], manifest('Namespace', 'smoke'));
  try {
    for (const account of ['default', 'ci']) {
      kubectl(lab, ['--namespace=smoke', 'apply', '-f', '-'], manifest('ServiceAccount', account));
    }
    inSmoke(['create', 'role', 'smoke', `--verb=${verbs}`, '--resource=pods']);
    inSmoke(['create', 'rolebinding', 'smoke', '--role=smoke', '--serviceaccount=smoke:ci']);
    await body(kubeconfigOf(lab, 'smoke', 'ci'));
  } finally {
    for (const kind of ['rolebinding', 'role', 'serviceaccount']) {
      inSmoke(['delete', kind, '--all']);
    }
  }
}

/** Writes the kubeconfig of a service account. @returns its path */
export function kubeconfigOf(lab: Lab, namespace: string, account: string): string {
  const token = kubectl(lab, [`--namespace=${namespace}`, 'create', 'token', account]);
  const admin = JSON.parse(kubectl(lab, ['config', 'view', '--raw', '-o', 'json'])) as {
    clusters: readonly { cluster: object }[];
  };
  const file = join(lab.directory, `${account}.conf`);
  const config = {
    apiVersion: 'v1',
    kind: 'Config',
    clusters: [{ name: 'lab', cluster: admin.clusters[0]?.cluster }],
    users: [{ name: account, user: { token } }],
    contexts: [{ name: account, context: { cluster: 'lab', user: account } }],
    'current-context': account,
  };
  writeFileSync(file, JSON.stringify(config), { mode: 0o600 });
  return file;
}

/**
 * A kubectl that does something just before the first smoke pod is really created: between import and smoke.
 * @param directory where it is made, under `name`
 */
export function kubectlThat(lab: Lab, directory: string, name: string, does: string): string {
  const file = join(directory, name);
  const once = join(directory, `${name}.done`);
  const text = `#!/bin/sh
case "$*" in
  *dryRun=All* | *selfsubjectaccessreviews*) ;;
  *create*) if mkdir ${once} 2>/dev/null; then
    { ${does}
    } >/dev/null 2>&1 || exit 99
  fi ;;
esac
exec ${lab.bin}/kubectl "$@"
`;
  writeFileSync(file, text);
  chmodSync(file, 0o755);
  return file;
}

import { SideloadError, toSideloadError } from './errors.ts';
import { smokeOptions, smokeTargets } from './gate.ts';
import type { Host } from './host/host.ts';
import { nodesOfCluster } from './node/cluster.ts';
import { kubernetesName, type Node } from './node/node.ts';
import { becomeRoot } from './node/root.ts';
import { takeShard } from './node/shard.ts';
import type { Waits } from './report/waits.ts';
import { type Run, writeSecret } from './run.ts';
import type { NodeSettings, Settings } from './settings.ts';
import { findKubectl, type Kubectl, kubectlWith } from './smoke/kubectl.ts';
import type { NodeObject } from './smoke/objects.ts';
import { remoteKubectl } from './smoke/remote-kubectl.ts';
import { checkCluster, type Fits } from './smoke/smoke.ts';
import { openTransport } from './ssh/transport.ts';

/** The cluster as this run sees it. */
export interface Cluster {
  readonly kubectl: Kubectl;
  /** The nodes that `node-selector` takes; `undefined` when they have not been read, or may not be. */
  objects: readonly NodeObject[] | undefined;
  /** How the cluster admits the smoke pods. */
  fits: Fits;
}

export async function openCluster({ cluster, ssh }: Settings, run: Run, waits: Waits): Promise<Cluster> {
  if (cluster === undefined) {
    throw new SideloadError('INTERNAL', 'the cluster is not to be asked');
  }
  const { kubectl, kubeconfig, namespace } = cluster;
  const file =
    kubeconfig !== undefined && 'content' in kubeconfig
      ? await writeSecret(run, 'kubeconfig', kubeconfig.content)
      : kubeconfig?.path;
  const waiting = <T>(answer: Promise<T>) => waits.until('the cluster', 'asking its API', answer);
  if (typeof kubectl === 'string') {
    const local = await findKubectl({ program: kubectl, kubeconfig: file, namespace }, waiting);
    return { kubectl: local, objects: undefined, fits: new Map() };
  }
  const transport = openTransport(ssh, run.scratch, waits.until);
  // As the connections to nodes, it outlives a cancellation, to clean up over it.
  const lifetime = new AbortController().signal;
  const open = async () => {
    const connection = await transport.connect({ ...kubectl, given: ssh.given, jump: ssh.jump }, lifetime);
    return await becomeRoot(connection, { sudo: ssh.sudo, password: ssh.sudoPassword }, run.signal);
  };
  const remote = await remoteKubectl(open, file, run.signal);
  return { kubectl: kubectlWith(remote, namespace, waiting), objects: undefined, fits: new Map() };
}

export async function nodesFromCluster(
  cluster: Cluster,
  settings: Settings,
  log: (line: string) => void,
): Promise<readonly NodeSettings[]> {
  cluster.objects = await cluster.kubectl.listNodes(settings.nodeSelector);
  const { nodes: all, unused } = nodesOfCluster(cluster.objects, settings.nodes, settings.ssh);
  // All shards must see the same order.
  const nodes = takeShard(
    all.toSorted((one, other) => (one.label < other.label ? -1 : 1)),
    settings.shard,
  );
  const labels = unused.map(({ label }) => label).join(', ');
  if (unused.length > 0 && settings.nodesOrigin === 'input') {
    throw new SideloadError('INPUT_INVALID', `\`nodes\` has ${labels}, which \`nodes-from-cluster\` does not find`, {
      hint: 'Write the Kubernetes name after the address, as in `10.0.0.11=worker-1`, or see whether `node-selector` takes the node.',
    });
  }
  const foreign = cluster.objects.length - all.length;
  if (foreign > 0) {
    log(`left out, as they do not run Linux: ${foreign} of ${cluster.objects.length} nodes`);
  }
  if (unused.length > 0) {
    log(`left out, as nodes that the cluster does not name or \`node-selector\` does not take: ${labels}`);
  }
  for (const { label, host, port, user } of nodes) {
    const object = cluster.objects.find(({ metadata }) => metadata.name === label);
    const runtime = object?.status?.nodeInfo?.containerRuntimeVersion ?? 'an unknown runtime';
    const cordoned = object?.spec?.unschedulable === true ? ', cordoned' : '';
    log(`${label}: ${user}@${host}:${port}, ${runtime} by the cluster's word${cordoned}`);
  }
  return nodes;
}

/** Whether the cluster would take the smoke pods, and what it says of the nodes. Makes nothing. */
export async function askCluster(
  cluster: Cluster,
  nodes: readonly Node[],
  settings: Settings,
  run: Run,
  host: Host,
): Promise<void> {
  const { kubectl } = cluster;
  if (settings.smoke?.by === 'pod') {
    const options = smokeOptions(nodes, settings.smoke, run, host);
    cluster.fits = await checkCluster(kubectl, smokeTargets(nodes), options, host.info);
  }
  cluster.objects ??= await kubectl.listNodes(settings.nodeSelector).catch((thrown: unknown) => {
    const refused = toSideloadError(thrown);
    if (refused.code !== 'CLUSTER_REFUSED') {
      throw refused;
    }
    host.info('the credentials may not list nodes: whether the list has every node that could run it is not checked');
    return undefined;
  });
  await Promise.all(
    nodes.map(async node => {
      const name = kubernetesName(node);
      if (name !== undefined) {
        node.object = cluster.objects?.find(({ metadata }) => metadata.name === name) ?? (await kubectl.getNode(name));
      }
    }),
  );
}

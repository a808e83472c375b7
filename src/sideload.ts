import { SideloadError, toSideloadError } from './errors.ts';
import type { Host } from './host/host.ts';
import { type ImageSet, referencesOf } from './image/image.ts';
import { openImages } from './image/open.ts';
import { formatPlatform } from './image/platform.ts';
import { nodesOfCluster } from './node/cluster.ts';
import { kubernetesName, type Node, newNode, nodeReport, onEach } from './node/node.ts';
import { takeShard } from './node/shard.ts';
import { leaveNode, planImages, prepareNode, promoteImages, removeStaged, stageImages } from './node/steps.ts';
import { errorOf, preflight } from './preflight.ts';
import { transferProgress } from './report/progress.ts';
import { errorReport, type Finding, type Report } from './report/report.ts';
import { findingsTable } from './report/table.ts';
import { formatBytes, formatDuration } from './report/units.ts';
import { type Run, writeSecret } from './run.ts';
import type { NodeSettings, Settings, SmokeSettings } from './settings.ts';
import { findKubectl, type Kubectl } from './smoke/kubectl.ts';
import type { NodeObject } from './smoke/objects.ts';
import { checkCluster, deletePods, runSmokePods, type SmokeOptions, type SmokeTarget } from './smoke/smoke.ts';

/**
 * The whole job: every node of the list ends up with exactly the images that CI built, proven by its runtime and by
 * its kubelet, or the report says which node did not, and why. Never throws for what a user can cause; what the run
 * has put anywhere besides the images is gone when it returns.
 */
export async function sideload(settings: Settings, host: Host, run: Run): Promise<Report> {
  let nodes: readonly Node[] = settings.nodesFromCluster ? [] : settings.nodes.map(newNode);
  let images: ImageSet | undefined;
  let cluster: Cluster | undefined;
  let isChecked = false;
  let unlisted: readonly Finding[] = [];
  let error: SideloadError | undefined;
  let changed = false;

  const stages: Readonly<Record<string, () => Promise<void>>> = {
    ...(settings.nodesFromCluster && {
      'Read the nodes from the cluster': async () => {
        cluster = await openCluster(settings, run);
        nodes = (await nodesFromCluster(cluster, settings, host.info)).map(newNode);
      },
    }),
    'Open the images and connect to the nodes': async () => {
      const [opened] = await Promise.allSettled([
        open(settings, host, run).then(set => {
          images = set;
        }),
        onEach(nodes, async node => {
          await prepareNode(node, settings, run.signal);
          host.info(describeNode(node));
        }),
      ]);
      if (opened.status === 'rejected') {
        error = toSideloadError(opened.reason);
      }
    },
    'Check what the nodes lack': async () => {
      const sources = images?.images ?? [];
      await onEach(nodes, async node => {
        await planImages(node, sources, run);
        for (const { reference, stage } of node.images) {
          host.info(`${node.settings.label}: ${stage === undefined ? 'has' : 'needs'} ${reference}`);
        }
      });
      const [asked] = await Promise.allSettled([
        settings.cluster === undefined
          ? undefined
          : (async () => {
              cluster ??= await openCluster(settings, run);
              await askCluster(cluster, nodes, settings, run, host);
            })(),
      ]);
      const isSmoked = settings.smoke !== undefined;
      const findings = preflight(nodes, sources, {
        isSmoked,
        // Nodes of other shards are not missing, and which they are is not known here.
        cluster: settings.shard === undefined ? cluster?.objects : undefined,
      });
      for (const node of nodes) {
        node.findings = findings.filter(finding => finding.node === node.settings.label);
        node.error = errorOf(node.findings) ?? node.error;
      }
      unlisted = findings.filter(finding => nodes.every(node => finding.node !== node.settings.label));
      isChecked = true;
      const isComplete = error === undefined && asked.status === 'fulfilled';
      for (const line of findings.length > 0 || isComplete ? findingsTable(findings) : ['not all could be checked']) {
        host.info(line);
      }
      if (asked.status === 'rejected') {
        throw asked.reason;
      }
      changed = settings.mode === 'plan' && nodes.some(node => node.images.some(({ stage }) => stage !== undefined));
    },
    ...(settings.mode === 'push' && {
      'Send what is missing': async () => {
        const progress = transferProgress(host);
        await onEach(nodes, async node => {
          await stageImages(node, run, progress);
          const { bytesSent, durationMs } = nodeReport(node);
          const sent = bytesSent > 0 ? `${formatBytes(bytesSent)} sent, imported and verified` : 'nothing to send';
          host.info(`${node.settings.label}: ${sent} (${formatDuration(durationMs)})`);
        });
      },
      'Move the references': async () => {
        await onEach(nodes, async node => {
          changed ||= node.images.some(image => image.stage !== undefined);
          await promoteImages(node, run);
          for (const { reference, image } of node.images) {
            host.info(`${node.settings.label}: ${reference} is ${image.imageId}`);
          }
        });
      },
      'Start smoke pods': async () => {
        if (settings.smoke === undefined || cluster === undefined) {
          host.info('skipped: `smoke: none`. No kubelet has been asked; the check of the runtimes is all there is.');
          return;
        }
        await smoke(nodes, cluster.kubectl, settings.smoke, run, host);
      },
    }),
  };

  try {
    for (const [title, stage] of Object.entries(stages)) {
      await host.group(title, stage);
      run.signal.throwIfAborted();
      // Until all has been checked nobody is given up: the user is to learn of everything at once.
      if (isChecked && (error !== undefined || nodes.some(node => node.error !== undefined))) {
        break;
      }
    }
  } catch (thrown) {
    error ??= toSideloadError(thrown);
  }
  await images?.close();
  await Promise.all(
    nodes.map(node =>
      leaveNode(node, settings, run.id).catch((thrown: unknown) => {
        node.error ??= toSideloadError(thrown, node.settings.label);
      }),
    ),
  );
  return {
    run: run.id,
    mode: settings.mode,
    images: Object.fromEntries(
      (images?.images ?? []).flatMap(image => {
        const ids = image.variants.map(variant => [formatPlatform(variant.platform), variant.imageId]);
        return referencesOf(image).map(reference => [reference, Object.fromEntries(ids)]);
      }),
    ),
    nodes: nodes.map(nodeReport),
    findings: unlisted,
    changed,
    error: error === undefined ? undefined : errorReport(error),
  };
}

/** Removes what a run that was killed may have left in the cluster and on the nodes. */
export async function cleanUp(settings: Settings, host: Host, run: Run): Promise<void> {
  if (settings.mode === 'plan') {
    return;
  }
  const cluster = settings.cluster === undefined ? undefined : await openCluster(settings, run);
  if (settings.smoke !== undefined && cluster !== undefined) {
    await deletePods(cluster.kubectl, run.id);
  }
  const list =
    settings.nodesFromCluster && cluster !== undefined
      ? await nodesFromCluster(cluster, settings, host.info)
      : settings.nodes;
  const nodes = list.map(newNode);
  await onEach(nodes, async node => {
    await prepareNode(node, settings, run.signal);
    await removeStaged(node, run.id, run.signal);
  });
  for (const node of nodes) {
    await node.connection?.close();
    if (node.error !== undefined) {
      host.warning(`${node.settings.label}: ${node.error.message}`);
    }
  }
}

async function open(settings: Settings, host: Host, run: Run): Promise<ImageSet> {
  const set = await openImages({
    references: settings.images,
    source: settings.source,
    archive: settings.archive,
    aliases: settings.aliases,
    containerdNamespace: settings.containerdNamespace,
    directory: run.scratch,
    log: host.info,
    signal: run.signal,
  });
  for (const { reference, origin, variants } of set.images) {
    for (const { platform, imageId, layers } of variants) {
      host.info(
        `${reference} from ${origin}: ${formatPlatform(platform)}, ${layers.length} layers, image ID ${imageId}`,
      );
    }
  }
  return set;
}

/** The cluster as this run sees it. */
interface Cluster {
  readonly kubectl: Kubectl;
  /** The nodes that `node-selector` takes; `undefined` when they have not been read, or may not be. */
  objects: readonly NodeObject[] | undefined;
}

async function openCluster({ cluster }: Settings, run: Run): Promise<Cluster> {
  if (cluster === undefined) {
    throw new SideloadError('INTERNAL', 'the cluster is not to be asked');
  }
  const { kubectl, kubeconfig, namespace } = cluster;
  const file =
    kubeconfig !== undefined && 'content' in kubeconfig
      ? await writeSecret(run, 'kubeconfig', kubeconfig.content)
      : kubeconfig?.path;
  return { kubectl: await findKubectl({ program: kubectl, kubeconfig: file, namespace }), objects: undefined };
}

async function nodesFromCluster(
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
async function askCluster(
  cluster: Cluster,
  nodes: readonly Node[],
  settings: Settings,
  run: Run,
  host: Host,
): Promise<void> {
  const { kubectl } = cluster;
  if (settings.smoke !== undefined) {
    await checkCluster(kubectl, smokeTargets(nodes), smokeOptions(settings.smoke, run, host));
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

/** What the kubelets say is noted as it comes: it stays in the record even when the pods cannot be deleted. */
async function smoke(
  nodes: readonly Node[],
  kubectl: Kubectl,
  settings: SmokeSettings,
  run: Run,
  host: Host,
): Promise<void> {
  const options = smokeOptions(settings, run, host);
  await runSmokePods(kubectl, smokeTargets(nodes), {
    ...options,
    onResult: result => {
      options.onResult(result);
      const { target, error, message } = result;
      const node = nodes.find(({ settings: { label } }) => label === target.node);
      const image = node?.images.find(({ reference }) => reference === target.reference);
      if (node === undefined || image === undefined) {
        throw new SideloadError('INTERNAL', `a verdict on ${target.reference}, which nobody asked for`);
      }
      node.error ??= error;
      image.smoke = message;
    },
  });
}

function smokeTargets(nodes: readonly Node[]): readonly SmokeTarget[] {
  return nodes.flatMap(node =>
    node.images.map(({ reference, image }) => ({
      node: node.settings.label,
      nodeName: kubernetesName(node) ?? node.settings.label,
      reference,
      imageId: image.imageId,
    })),
  );
}

function smokeOptions({ timeoutMs, command }: SmokeSettings, run: Run, host: Host): SmokeOptions {
  return {
    runId: run.id,
    timeoutMs,
    command,
    signal: run.signal,
    onResult: ({ target, error, message, durationMs }) =>
      host.info(
        `${target.node}: ${target.reference} ${error === undefined ? '✔' : '✘'} ${message} (${formatDuration(durationMs)})`,
      ),
    onTrouble: message => host.info(`the Kubernetes API does not answer, trying again: ${message}`),
  };
}

function describeNode(node: Node): string {
  const { facts, settings } = node;
  return facts === undefined
    ? `${settings.label}: unknown`
    : `${settings.label}: ${facts.runtime.name} ${facts.runtime.version} at ${facts.criSocket} (from: ${facts.criSocketOrigin}), ${formatPlatform(facts.platform)}, as ${facts.privilege}, ${formatBytes(facts.disk.freeBytes)} free on ${facts.disk.path}`;
}

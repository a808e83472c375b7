import { SideloadError, toSideloadError } from './errors.ts';
import type { Host } from './host/host.ts';
import type { ImageSet } from './image/image.ts';
import { openImages } from './image/open.ts';
import { formatPlatform } from './image/platform.ts';
import { kubernetesName, type Node, newNode, nodeReport, onEach } from './node/node.ts';
import { leaveNode, planImages, prepareNode, promoteImages, removeStaged, stageImages } from './node/steps.ts';
import { transferProgress } from './report/progress.ts';
import { errorReport, type Report } from './report/report.ts';
import { formatBytes, formatDuration } from './report/units.ts';
import { type Run, writeSecret } from './run.ts';
import type { Settings, SmokeSettings } from './settings.ts';
import { findKubectl, type Kubectl } from './smoke/kubectl.ts';
import { checkCluster, deletePods, runSmokePods, type SmokeTarget } from './smoke/smoke.ts';

/**
 * The whole job: every node of the list ends up with exactly the images that CI built, proven by its runtime and by
 * its kubelet, or the report says which node did not, and why. Never throws for what a user can cause; what the run
 * has put anywhere besides the images is gone when it returns.
 */
export async function sideload(settings: Settings, host: Host, run: Run): Promise<Report> {
  const nodes = settings.nodes.map(newNode);
  let images: ImageSet | undefined;
  let kubectl: Kubectl | undefined;
  let error: SideloadError | undefined;
  let changed = false;

  const stages: Readonly<Record<string, () => Promise<void>>> = {
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
        throw opened.reason;
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
      if (settings.smoke !== undefined && nodes.every(node => node.error === undefined)) {
        kubectl = await openCluster(settings.smoke, run);
        const errors = await checkCluster(kubectl, smokeTargets(nodes), smokeOptions(settings.smoke, run, host));
        for (const node of nodes) {
          node.error = errors.get(kubernetesName(node) ?? '');
        }
      }
    },
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
      if (settings.smoke === undefined || kubectl === undefined) {
        host.info('skipped: `smoke: none`. No kubelet has been asked; the check of the runtimes is all there is.');
        return;
      }
      await smoke(nodes, kubectl, settings.smoke, run, host);
    },
  };

  try {
    for (const [title, stage] of Object.entries(stages)) {
      await host.group(title, stage);
      run.signal.throwIfAborted();
      if (nodes.some(node => node.error !== undefined)) {
        break;
      }
    }
  } catch (thrown) {
    error = toSideloadError(thrown);
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
    images: Object.fromEntries(
      (images?.images ?? []).map(({ reference, variants }) => [
        reference,
        Object.fromEntries(variants.map(variant => [formatPlatform(variant.platform), variant.imageId])),
      ]),
    ),
    nodes: nodes.map(nodeReport),
    changed,
    error: error === undefined ? undefined : errorReport(error),
  };
}

/** Removes what a run that was killed may have left in the cluster and on the nodes. */
export async function cleanUp(settings: Settings, host: Host, run: Run): Promise<void> {
  if (settings.smoke !== undefined) {
    await deletePods(await openCluster(settings.smoke, run), run.id);
  }
  const nodes = settings.nodes.map(newNode);
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

async function openCluster({ kubectl, kubeconfig, namespace }: SmokeSettings, run: Run): Promise<Kubectl> {
  const file =
    kubeconfig !== undefined && 'content' in kubeconfig
      ? await writeSecret(run, 'kubeconfig', kubeconfig.content)
      : kubeconfig?.path;
  return await findKubectl({ program: kubectl, kubeconfig: file, namespace });
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

function smokeOptions({ timeoutMs, command }: SmokeSettings, run: Run, host: Host): Parameters<typeof runSmokePods>[2] {
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

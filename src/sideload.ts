import { checkNode, type Expectation, lookLast } from './check.ts';
import { askCluster, type Cluster, nodesFromCluster, openCluster } from './cluster.ts';
import { SideloadError, toSideloadError } from './errors.ts';
import { smokeByCri, smokeByKubelet } from './gate.ts';
import type { Host } from './host/host.ts';
import { removePartial, writeBundle } from './image/bundle.ts';
import { type ImageSet, referencesOf, type SourceImage } from './image/image.ts';
import { openImages } from './image/open.ts';
import { formatPlatform } from './image/platform.ts';
import { normalise, repositoryOf } from './image/reference.ts';
import { locksOf } from './locks.ts';
import { releaseLocks } from './node/lock.ts';
import {
  describeImage,
  describeNode,
  isControlPlane,
  type Node,
  newNode,
  nodeReport,
  noteError,
  onEach,
  ready,
  shortId,
} from './node/node.ts';
import { pinImages, unpinImages, unpinOf } from './node/pin.ts';
import { promoteImages, restoreImages, settleLeft } from './node/promote.ts';
import { noteImages, retainImages } from './node/retention.ts';
import { missingRights } from './node/rights.ts';
import { stageImages } from './node/send.ts';
import { askShortNames, namesOn } from './node/short-names.ts';
import { leaveNode, planAgain, planImages, prepareNode, removeStaged } from './node/steps.ts';
import { throttleOf } from './node/throttle.ts';
import { sameMachines } from './node/twins.ts';
import { errorOf, preflight } from './preflight.ts';
import { transferProgress } from './report/progress.ts';
import { errorReport, type Finding, type Report, type StageReport } from './report/report.ts';
import { findingsTable } from './report/table.ts';
import { formatBytes, formatDuration } from './report/units.ts';
import { waitsOf } from './report/waits.ts';
import type { Run } from './run.ts';
import { NO_SANDBOX_IMAGES, openSandboxImages } from './sandbox.ts';
import type { Settings } from './settings.ts';
import { assertCrictl, removeByCri } from './smoke/cri.ts';
import { deletePods } from './smoke/smoke.ts';
import { openTransport } from './ssh/transport.ts';
import { VERSION } from './version.ts';

/**
 * The whole job: every node of the list ends up with exactly the images that CI built, proven by its runtime and by
 * its kubelet, or the report says which node did not, and why. Never throws for what a user can cause; what the run
 * has put anywhere besides the images is gone when it returns.
 */
export async function sideload(settings: Settings, host: Host, run: Run): Promise<Report> {
  const waits = waitsOf(host);
  const ssh = openTransport(settings.ssh, run.scratch, waits.until);
  const startedAt = new Date().toISOString();
  const stagesDone: StageReport[] = [];
  let nodes: readonly Node[] = settings.nodesFromCluster ? [] : settings.nodes.map(newNode);
  let images: ImageSet | undefined;
  let cluster: Cluster | undefined;
  let isChecked = false;
  let isSettled = false;
  let unlisted: readonly Finding[] = [];
  let error: SideloadError | undefined;
  const otherErrors: SideloadError[] = [];
  let sandboxes = NO_SANDBOX_IMAGES;
  let changed = false;
  let bundle: Report['bundle'];

  const locks = locksOf(() => nodes, run, host.info);
  const throttle = throttleOf(settings.bandwidth);
  const sending = { settings, ssh, run, progress: transferProgress(host, waits), throttle, log: host.info };

  /**
   * From here on nothing is put back, as it could not all be: by nobody, not even a post step, which then takes away what
   * was kept. Until here all nodes have been seen to hold what was proven.
   */
  const settle = () => {
    isSettled = true;
    host.saveState('settled', 'true');
  };

  /** Whether what was proven is still so, and was nobody else's to change meanwhile. */
  const look = async (some: readonly Node[]) => {
    await onEach(some, async node => {
      await lookLast(node, run);
      host.info(`${node.settings.label}: holds what was proven`);
    });
    await locks.confirm();
  };

  const bundling: Readonly<Record<string, () => Promise<void>>> = {
    'Open the images': async () => {
      images = await waits.until('the runner', 'opening the images', open(settings, host, run));
    },
    'Write the bundle': async () => {
      const path = settings.bundle ?? '';
      const options = { path, runId: run.id, version: VERSION, signal: run.signal };
      bundle = { path, ...(await writeBundle(images?.images ?? [], options)) };
      host.info(`${path}: ${formatBytes(bundle.sizeBytes)}, ${bundle.digest}`);
    },
  };

  const needsImages = settings.mode !== 'prune' && settings.expected === undefined;
  const expectations = () => settings.expected ?? (images?.images ?? []).flatMap(expectationsOf);

  const stages: Readonly<Record<string, () => Promise<void>>> = {
    ...(settings.nodesFromCluster && {
      'Read the nodes from the cluster': async () => {
        cluster = await openCluster(settings, run, waits);
        nodes = (await nodesFromCluster(cluster, settings, host.info)).map(newNode);
      },
    }),
    [needsImages ? 'Open the images and connect to the nodes' : 'Connect to the nodes']: async () => {
      const [opened] = await Promise.allSettled([
        needsImages
          ? waits.until('the runner', 'opening the images', open(settings, host, run)).then(set => {
              images = set;
            })
          : undefined,
        onEach(nodes, async node => {
          await prepareNode(node, settings, ssh, run.signal);
          host.info(describeNode(node));
        }),
      ]);
      if (opened.status === 'rejected') {
        error = toSideloadError(opened.reason);
      }
      const same = sameMachines(nodes);
      for (const [node, fault] of same) node.error ??= fault;
      // Nothing is removed from any node of a list that is wrong.
      isChecked = settings.mode === 'prune' && same.size > 0;
    },
    ...((settings.mode === 'push' || settings.mode === 'plan') && {
      'Check what the nodes lack': async () => {
        const sources = images?.images ?? [];
        if (settings.sandboxImage === 'send') {
          const openOne = (reference: string) => openSandbox(reference, settings, host, run);
          sandboxes = await openSandboxImages(nodes, sources, openOne, host.info);
        }
        await onEach(nodes, async node => {
          if (settings.smoke?.by === 'cri') {
            assertCrictl(ready(node).facts);
          }
          const extras = { keep: settings.keep !== undefined, pin: settings.pin };
          node.missing = await missingRights(node, extras, run.signal);
          if (node.missing.some(({ right }) => right.without === undefined)) {
            return; // preflight tells
          }
          await planImages(node, sources, sandboxes.of(node), settings, run);
          for (const image of node.images) {
            host.info(`${node.settings.label}: ${describeImage(image)}`);
          }
        });
        const [asked] = await Promise.allSettled([
          settings.cluster === undefined
            ? undefined
            : (async () => {
                cluster ??= await openCluster(settings, run, waits);
                await askCluster(cluster, nodes, settings, run, host);
              })(),
        ]);
        const isSmoked = settings.smoke !== undefined;
        const findings = preflight(nodes, sources, {
          isSmoked,
          isPinning: settings.pin,
          isSendingSandbox: settings.sandboxImage === 'send',
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
        for (const line of findings.length > 0 || isComplete
          ? findingsTable(findings, host.isLive ? host.size.columns : undefined)
          : ['not all could be checked']) {
          host.info(line);
        }
        if (asked.status === 'rejected') {
          throw asked.reason;
        }
        changed = settings.mode === 'plan' && nodes.some(node => node.images.some(({ stage }) => stage !== undefined));
      },
    }),
    ...(settings.mode === 'push' && {
      'Send what is missing': async () => {
        const send = async (node: Node) => {
          const begunAtMs = Date.now();
          await stageImages(node, sending);
          const { bytesSent } = nodeReport(node);
          const duration = formatDuration(Date.now() - begunAtMs);
          const sent = `${formatBytes(bytesSent)} sent, imported and verified in ${duration}`;
          host.info(`${node.settings.label}: ${bytesSent > 0 ? sent : 'nothing to send'}`);
        };
        // The control plane last, and not at all for an image that some other node refuses.
        for (const group of [nodes.filter(node => !isControlPlane(node)), nodes.filter(isControlPlane)]) {
          await onEach(group, send, settings.parallel);
          run.signal.throwIfAborted();
          if (nodes.some(node => node.error !== undefined)) {
            break;
          }
        }
      },
      'Move the references': async () => {
        await locks.take(settings.lockTimeoutMs);
        run.signal.throwIfAborted();
        if (nodes.some(node => node.error !== undefined)) {
          return;
        }
        await onEach(nodes, async node => {
          await promoteImages(node, settings, run, async away => {
            const references = away.map(({ reference }) => reference).join(', ');
            host.info(`${node.settings.label}: another job has moved ${references} meanwhile; sending it`);
            await planAgain(node, away, settings, run);
            await stageImages(node, sending);
          }).finally(() => {
            changed ||= node.images.some(({ hasMoved }) => hasMoved);
          });
          if (settings.pin) {
            await pinImages(node, run);
          }
          for (const { reference, image } of node.images) {
            host.info(
              `${node.settings.label}: ${reference} is ${shortId(image.imageId)}${node.hasPinned ? ', pinned' : ''}`,
            );
          }
        });
      },
      'Start smoke pods': async () => {
        if (settings.smoke?.by === 'cri') {
          host.info('`smoke: cri`: the verdicts are those of the nodes’ runtimes; no kubelet is asked.');
          await smokeByCri(nodes, settings.smoke, run, host);
        } else if (settings.smoke === undefined || cluster === undefined) {
          host.info('skipped: `smoke: none`. No kubelet has been asked; the check of the runtimes is all there is.');
        } else {
          await smokeByKubelet(nodes, cluster, settings.smoke, run, host);
        }
      },
      'Note what is ours': async () => {
        await locks.confirm();
        await onEach(nodes, async node => {
          const refusal = await noteImages(node, run);
          if (refusal !== undefined) {
            host.info(
              `${node.settings.label}: no record of what is ours here, so nothing of it will ever be removed: ${refusal}`,
            );
          }
        });
      },
      'Look at the nodes a last time': async () => {
        await look(nodes);
        const isPinned = ({ images: all }: Node) => all.some(image => image.isPinned && !image.isSandbox);
        const pinned = settings.pin ? [] : nodes.filter(isPinned);
        if (pinned.length > 0 && nodes.every(node => node.error === undefined)) {
          settle();
          await onEach(pinned, node => unpinOld(node, run));
          await look(pinned);
        }
      },
      ...(settings.keep !== undefined && {
        'Remove old releases': async () => {
          settle();
          await removeOld(nodes, repositoriesOn, settings, run, host);
          await look(nodes.filter(({ retention }) => retention?.some(({ fate }) => fate === 'removed')));
        },
      }),
    }),
    ...(settings.mode === 'check' && {
      'Compare the nodes with what should be there': async () => {
        if (error !== undefined) {
          return; // Nobody knows what to compare with.
        }
        const wanted = expectations();
        await onEach(nodes, async node => {
          await checkNode(node, wanted, 'DRIFT', run);
          host.info(`${node.settings.label}: has what it should`);
        });
        changed = nodes.some(node => node.seen.some(({ drift }) => drift !== undefined));
      },
    }),
    ...(settings.mode === 'prune' && {
      'Remove old releases': async () => {
        await removeOld(nodes, node => repositoriesGiven(node, settings.images, run), settings, run, host);
        changed = nodes.some(node => node.retention?.some(({ fate }) => fate === 'removed'));
      },
    }),
  };

  try {
    for (const [title, stage] of Object.entries(settings.mode === 'bundle' ? bundling : stages)) {
      const begunAtMs = Date.now();
      await host.group(title, stage).finally(() => {
        const durationMs = Date.now() - begunAtMs;
        stagesDone.push({ title, startedAt: new Date(begunAtMs).toISOString(), durationMs });
      });
      run.signal.throwIfAborted();
      // Until all has been checked nobody is given up: the user is to learn of everything at once.
      if (isChecked && (error !== undefined || nodes.some(node => node.error !== undefined))) {
        break;
      }
    }
  } catch (thrown) {
    const found = toSideloadError(thrown);
    if (error !== undefined && (error.code !== found.code || error.message !== found.message)) {
      otherErrors.push(found);
    }
    error ??= found;
  }
  const hasFailed = error !== undefined || nodes.some(node => node.error !== undefined);
  if (hasFailed && settings.atomic && !isSettled && nodes.some(hasMoved)) {
    await host.group('Put back what the references named', async () => {
      await Promise.all(nodes.map(node => restoreImages(node, settings, ssh, run.id, host.info)));
    });
    changed = nodes.some(node => node.images.some(image => image.hasMoved && image.outcome !== 'restored'));
  } else {
    if (hasFailed && isSettled) {
      host.info('nothing is put back, as what was there before may be gone: the nodes keep what was proven on them');
    }
    settle();
  }
  await images?.close();
  await sandboxes.close();
  await cluster?.kubectl.close();
  await locks.stop();
  await Promise.all(
    nodes.map(node =>
      leaveNode(node, settings, ssh, run.id).catch((thrown: unknown) => {
        noteError(node, toSideloadError(thrown, node.settings.label));
      }),
    ),
  );
  return {
    run: run.id,
    mode: settings.mode,
    startedAt,
    endedAt: new Date().toISOString(),
    stages: stagesDone,
    images: Object.fromEntries([
      ...(settings.expected ?? []).map(({ reference, variants }) => {
        const ids = variants.map(({ platform, imageId }) => [formatPlatform(platform), imageId]);
        return [reference, Object.fromEntries(ids)];
      }),
      ...[...(images?.images ?? []), ...sandboxes.images].flatMap(image => {
        const ids = image.variants.map(variant => [formatPlatform(variant.platform), variant.imageId]);
        return referencesOf(image).map(reference => [reference, Object.fromEntries(ids)]);
      }),
    ]),
    nodes: nodes.map(nodeReport),
    findings: unlisted,
    bundle,
    changed,
    error: error === undefined ? undefined : errorReport(error),
    ...(otherErrors.length > 0 && { otherErrors: otherErrors.map(errorReport) }),
  };
}

/** Removes what a run that was killed may have left in the cluster and on the nodes. */
export async function cleanUp(settings: Settings, host: Host, run: Run): Promise<void> {
  if (settings.mode === 'bundle') {
    await removePartial(settings.bundle ?? '', run.id);
    return;
  }
  if (settings.mode !== 'push') {
    return;
  }
  const waits = waitsOf(host);
  const cluster = settings.cluster === undefined ? undefined : await openCluster(settings, run, waits);
  let list = settings.nodes;
  try {
    if (settings.smoke?.by === 'pod' && cluster !== undefined) {
      await deletePods(cluster.kubectl, run.id);
    }
    if (settings.nodesFromCluster && cluster !== undefined) {
      list = await nodesFromCluster(cluster, settings, host.info);
    }
  } finally {
    await cluster?.kubectl.close();
  }
  const nodes = list.map(newNode);
  const ssh = openTransport(settings.ssh, run.scratch, waits.until);
  await onEach(nodes, async node => {
    await prepareNode(node, settings, ssh, run.signal);
    const isSettled = host.state('settled') === 'true';
    await settleLeft(node, run.id, isSettled, run.signal, host.info);
    if (settings.pin && !isSettled) {
      await unpinOf(node, run.id, run.id, run.signal);
    }
    await removeStaged(node, run.id, run.signal);
    await releaseLocks(node, run.id, run.signal);
    if (settings.smoke?.by === 'cri') {
      const { connection, facts } = ready(node);
      await removeByCri(connection, facts, run.id, run.signal);
    }
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
    compression: settings.compression,
    cache: { ...settings.cache, isReadOnly: settings.mode === 'plan' || settings.mode === 'check' },
    directory: run.scratch,
    prefetch: settings.mode === 'push' || settings.mode === 'bundle',
    log: host.info,
    signal: run.signal,
  });
  for (const { reference, origin, variants } of set.images) {
    for (const { platform, imageId, layers } of variants) {
      host.info(
        `${reference} from ${origin}: ${formatPlatform(platform)}, ${layers.length} ${layers.length === 1 ? 'layer' : 'layers'}, image ID ${imageId}`,
      );
    }
  }
  return set;
}

/** The image under each of its names. */
function expectationsOf(image: SourceImage): readonly Expectation[] {
  return referencesOf(image).map(reference => ({
    reference,
    spellings: [image.spellings?.get(reference) ?? reference],
    variants: image.variants,
    isSandbox: false,
  }));
}

/** What this run has put on a node, short names as the node takes them among it. */
async function repositoriesOn({ images }: Node): Promise<ReadonlySet<string>> {
  return new Set(images.filter(({ isSandbox }) => !isSandbox).map(({ reference }) => repositoryOf(reference)));
}

/** What the user has named, by every meaning that it has on the node; `undefined` for all that is in its record. */
async function repositoriesGiven(
  node: Node,
  given: readonly string[],
  run: Run,
): Promise<ReadonlySet<string> | undefined> {
  const written = given.map(text => ({ image: { variants: [] }, reference: normalise(text), spellings: [text] }));
  const { names } = namesOn(written, await askShortNames(node, given, run.signal));
  return given.length === 0 ? undefined : new Set(names.map(({ reference }) => repositoryOf(reference)));
}

/** Removes what `keep` lets go, and tells of each node what went and what could not. */
async function removeOld(
  nodes: readonly Node[],
  repositoriesOf: (node: Node) => Promise<ReadonlySet<string> | undefined>,
  { keep, isDryRun }: Settings,
  run: Run,
  host: Host,
): Promise<void> {
  if (keep === undefined) {
    throw new SideloadError('INTERNAL', 'nobody has said how many releases stay');
  }
  await onEach(nodes, async node => {
    await retainImages(node, { keep, repositories: await repositoriesOf(node), isDryRun }, run);
    const { retention = [], settings } = node;
    const told = retention.filter(({ fate }) => fate !== 'kept');
    for (const { reference, imageId, fate } of told) {
      host.info(`${settings.label}: ${reference} (${shortId(imageId)}) ${FATE_WORDS[fate] ?? fate}`);
    }
    host.info(
      `${settings.label}: ${retention.length - told.length} of ${retention.length} references of ours are kept`,
    );
  });
}

/** Takes away the pins that earlier jobs have set on what this one has pushed. */
async function unpinOld(node: Node, run: Run): Promise<void> {
  const pinned = node.images.filter(({ isPinned, isSandbox }) => isPinned && !isSandbox);
  await unpinImages(
    node,
    pinned.map(({ reference }) => reference),
    run.id,
    run.signal,
  );
}

const FATE_WORDS: Readonly<Record<string, string>> = {
  'in-use': 'is old, and stays: a container was made from it',
  changed: 'names another image now, and stays: it is no longer ours',
  gone: 'was gone already',
  removable: 'would be removed',
  removed: 'is removed',
};

/** From the archive, when it is in there; else from whichever engine has it. */
async function openSandbox(reference: string, settings: Settings, host: Host, run: Run): Promise<ImageSet> {
  const one = { ...settings, images: [reference], aliases: [] };
  const elsewhere = () => open({ ...one, source: 'auto', archive: undefined }, host, run);
  return settings.archive === undefined ? await open(one, host, run) : await open(one, host, run).catch(elsewhere);
}

/** Whether anything of this run may have to be put back on the node. */
function hasMoved({ kept, images, hasPinned, noted }: Node): boolean {
  return kept.length > 0 || hasPinned || noted !== undefined || images.some(image => image.hasMoved);
}

import type { Cluster } from './cluster.ts';
import { SideloadError } from './errors.ts';
import type { Host } from './host/host.ts';
import { kubernetesName, type Node, onEach, ready } from './node/node.ts';
import { otherMachine } from './node/other-machine.ts';
import { inspect } from './node/steps.ts';
import { formatDuration } from './report/units.ts';
import type { Run } from './run.ts';
import type { SmokeSettings } from './settings.ts';
import { runByCri } from './smoke/cri.ts';
import { namesOnNode } from './smoke/held.ts';
import { runSmokePods, type SmokeOptions, type SmokeResult, type SmokeTarget } from './smoke/smoke.ts';

/** What the kubelets say is noted as it comes: it stays in the record even when the pods cannot be deleted. */
export async function smokeByKubelet(
  nodes: readonly Node[],
  { kubectl, fits }: Cluster,
  settings: SmokeSettings,
  run: Run,
  host: Host,
): Promise<void> {
  await runSmokePods(kubectl, smokeTargets(nodes), fits, smokeOptions(nodes, settings, run, host));
}

/** The same by the runtimes' own word. */
export async function smokeByCri(nodes: readonly Node[], settings: SmokeSettings, run: Run, host: Host): Promise<void> {
  const { runId, timeoutMs, command, expect, signal, onResult, provenOn } = smokeOptions(nodes, settings, run, host);
  await onEach(nodes, async node => {
    const { connection, facts } = ready(node);
    const options = { runId, timeoutMs, command, expect, signal, onResult, provenOn };
    await runByCri(connection, facts, smokeTargets([node]), options);
  });
}

export function smokeTargets(nodes: readonly Node[]): readonly SmokeTarget[] {
  return nodes.flatMap(node =>
    node.images
      .filter(({ isSandbox }) => !isSandbox)
      .map(({ reference, spelling, image }) => ({
        node: node.settings.label,
        nodeName: kubernetesName(node) ?? node.settings.label,
        reference,
        spelling,
        imageId: image.imageId,
        user: image.user,
      })),
  );
}

export function smokeOptions(nodes: readonly Node[], settings: SmokeSettings, run: Run, host: Host): SmokeOptions {
  const nodeOf = (target: SmokeTarget) => nodes.find(({ settings: { label } }) => label === target.node);
  return {
    ...settings,
    runId: run.id,
    lostRuns: new Set(nodes.flatMap(node => [...node.lostRuns])),
    signal: run.signal,
    onResult: (result: SmokeResult) => {
      const { target, error, message, durationMs } = result;
      host.info(
        `${target.node}: ${target.reference} ${error === undefined ? '✔' : '✘'} ${message} (${formatDuration(durationMs)})`,
      );
      const node = nodeOf(target);
      const image = node?.images.find(({ reference }) => reference === target.reference);
      if (node === undefined || image === undefined) {
        throw new SideloadError('INTERNAL', `a verdict on ${target.reference}, which nobody asked for`);
      }
      node.error ??= error;
      node.endedAtMs = Date.now();
      image.error ??= error;
      image.smoke = message;
    },
    onTrouble: message => host.info(`the Kubernetes API does not answer, trying again: ${message}`),
    heldOn: async target => {
      const node = nodeOf(target);
      if (node === undefined) {
        return [];
      }
      const { connection, facts } = ready(node);
      return await namesOnNode(connection, facts, run.signal);
    },
    provenOn: async (target, object) => {
      const node = nodeOf(target);
      const image = node?.images.find(({ reference }) => reference === target.reference);
      if (node === undefined || image?.seenAtMs === undefined) {
        return undefined;
      }
      const { facts } = ready(node);
      const held = await inspect(node, [target.reference], run.signal).catch(() => undefined);
      return {
        address: node.settings.host,
        socket: facts.criSocket,
        seenAt: new Date(image.seenAtMs).toISOString(),
        now: held === undefined ? undefined : (held.get(target.reference)?.imageId ?? 'absent'),
        otherMachine: object === undefined ? undefined : otherMachine(facts, object)?.says,
        credentialPolicy: facts.kubelet.credentialPolicy,
      };
    },
  };
}

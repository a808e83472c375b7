import { ERRORS, type ErrorCode, SideloadError, toSideloadError } from './errors.ts';
import type { SourceImage } from './image/image.ts';
import { normalise, parseReference } from './image/reference.ts';
import { takesPods, unreadiness } from './node/cluster.ts';
import type { NodeFacts } from './node/facts.ts';
import type { KubeletFacts } from './node/kubelet.ts';
import { kubernetesName, type Node } from './node/node.ts';
import { nodeOfMachine, otherMachine } from './node/other-machine.ts';
import type { NameFault } from './node/short-names.ts';
import { otherWorkDisk } from './node/space.ts';
import { twins } from './node/twins.ts';
import { planNode, unpackedBytes } from './plan.ts';
import type { Finding } from './report/report.ts';
import { formatBytes } from './report/units.ts';
import { pinFault } from './runtime/pin.ts';
import type { NodeObject } from './smoke/objects.ts';

/** What is known of a node before anything is sent to it. */
export type CheckedNode = Pick<
  Node,
  'settings' | 'machine' | 'facts' | 'object' | 'missing' | 'images' | 'nameFaults' | 'error'
>;

interface PreflightOptions {
  /** Whether smoke pods will have to start. */
  readonly isSmoked: boolean;
  /** The nodes on which pods may run, as the cluster tells; `undefined` when it may not be asked. */
  readonly cluster: readonly NodeObject[] | undefined;
  /** Whether images are to be pinned. */
  readonly isPinning: boolean;
  /** Whether the sandbox images that nodes lack were to be sent along; what still lacks one could not be. */
  readonly isSendingSandbox?: boolean;
}

type Fault = Omit<Finding, 'node'>;

/**
 * Everything that would go wrong on any node, or might, as far as it can be known before a byte moves: all nodes and all
 * reasons, in the order of the nodes.
 */
export function preflight(
  nodes: readonly CheckedNode[],
  images: readonly SourceImage[],
  options: PreflightOptions,
): readonly Finding[] {
  const names = nodes.map(kubernetesName);
  const named = options.isSmoked
    ? twins(nodes, kubernetesName, name => `the same Kubernetes node, ${name}`)
    : new Map<CheckedNode, SideloadError>();
  const found = nodes.flatMap(node => {
    const twin = node.error?.code === 'INPUT_INVALID' ? undefined : named.get(node);
    return faultsOf(node, images, options)
      .concat(twin === undefined ? [] : [asFault(twin)])
      .map(fault => ({ node: node.settings.label, ...fault }));
  });
  const platforms = images.flatMap(({ variants }) => variants.map(({ platform }) => platform));
  // A node that could not be asked for its name may be any of them.
  const missing = names.includes(undefined)
    ? []
    : (options.cluster ?? []).filter(object => takesPods(object, platforms) && !names.includes(object.metadata.name));
  return [
    ...found,
    ...missing.map(object => ({
      node: object.metadata.name,
      ...warning('NODE_NOT_LISTED', 'the cluster may start pods there, and they would not find the image'),
    })),
  ];
}

/** The error that a node's findings amount to: the first one's, with the others in its message. */
export function errorOf(findings: readonly Finding[]): SideloadError | undefined {
  const [first, ...others] = findings.filter(({ severity }) => severity === 'error');
  if (first === undefined) {
    return undefined;
  }
  const also = others.map(({ code, message, hint }) => `also [${code}]: ${message}\n  ${hint}`);
  return new SideloadError(first.code, [first.message, ...also].join('\n'), { node: first.node, hint: first.hint });
}

function faultsOf(
  node: CheckedNode,
  images: readonly SourceImage[],
  { isSmoked, isPinning, isSendingSandbox = false, cluster = [] }: PreflightOptions,
): readonly Fault[] {
  const { machine, facts, object, error } = node;
  const faults: Fault[] = [];
  if (error !== undefined) {
    faults.push(asFault(error));
  }
  faults.push(...rights(node));
  faults.push(...node.nameFaults.map(one => nameFinding(one, one.kind === 'unproven' && !isSmoked)));
  if (machine !== undefined && error?.code !== 'PLATFORM_MISMATCH') {
    faults.push(...mismatch(images, machine));
  }
  if (object === 'absent' && isSmoked) {
    const name = JSON.stringify(kubernetesName(node));
    faults.push(fault('NODE_NOT_IN_CLUSTER', `the cluster has no node ${name}`));
  } else if (object !== undefined && object !== 'absent') {
    faults.push(
      ...other(node, object, cluster).map(one => (isSmoked ? one : { ...one, severity: 'warning' as const })),
    );
    const reason = unreadiness(object);
    if (reason !== undefined) {
      faults.push(when(isSmoked, 'NODE_NOT_READY', reason));
    }
  }
  if (machine !== undefined) {
    faults.push(...credentials(node, machine.kubelet));
  }
  if (facts !== undefined) {
    const unsent = sandbox(node, facts, isSmoked).map(one => (isSendingSandbox ? { ...one, hint: UNSENT } : one));
    faults.push(...unsent, ...disk(node, facts));
    const unpinnable = isPinning ? pinFault(facts) : undefined;
    if (unpinnable !== undefined) {
      faults.push(warning('PIN_UNSUPPORTED', `${unpinnable}: the images will be there unpinned`));
    }
  }
  return faults;
}

/** An address of one machine with the name of another: what is put there the kubelet of that name does not find. */
function other(
  { settings, machine }: CheckedNode,
  object: NodeObject,
  cluster: readonly NodeObject[],
): readonly Fault[] {
  const differs = machine === undefined ? undefined : otherMachine(machine, object);
  if (machine === undefined || differs?.isCertain !== true) {
    return [];
  }
  const { name } = object.metadata;
  const own = nodeOfMachine(machine, cluster)?.metadata.name;
  const one = fault('NODE_OTHER_MACHINE', `${settings.host} is another machine than the node ${name}: ${differs.says}`);
  const step = `The machine at ${settings.host} is the node ${own}: write \`${settings.host}=${own}\`, and before \`=${name}\` the address of ${name} (\`kubectl get nodes -o wide\`).`;
  return [own === undefined ? one : { ...one, hint: step }];
}

function mismatch(images: readonly SourceImage[], machine: Parameters<typeof planNode>[1]): readonly Fault[] {
  try {
    planNode(images, machine, new Map());
    return [];
  } catch (thrown) {
    return [asFault(toSideloadError(thrown))];
  }
}

function rights({ settings, missing }: CheckedNode): readonly Fault[] {
  return missing.map(({ right: { purpose, without }, commands }) => {
    const refused = `sudo does not let ${settings.user} ${purpose}: ${commands.map(one => `\`${one}\``).join(', ')}`;
    return without === undefined
      ? fault('SUDO_RIGHT_MISSING', refused)
      : warning('SUDO_RIGHT_MISSING', `${refused}; without it ${without}`);
  });
}

/** What is not certain beforehand CRI-O proves in the end, where the user may ask it; else a pod does, or nobody. */
export function nameFinding({ spelling, reference, why, kind }: NameFault, isCertain: boolean): Fault {
  if (kind === 'refused') {
    const hint = `Write ${reference} in the pods and in \`images\`.`;
    return { ...fault('SHORT_NAME_REFUSED', `no pod can start the image by the name ${spelling}: ${why}`), hint };
  }
  const message = `what ${spelling} is there depends on files that could not be read: ${why}`;
  return when(isCertain, 'SHORT_NAME_DOUBTFUL', message);
}

/**
 * Without a record of its own pull the kubelet treats an image as one that was never pulled, unless its policy or its
 * allowlist says otherwise (Kubernetes: pkg/kubelet/images/pullmanager).
 */
function credentials(
  { images }: CheckedNode,
  { credentialPolicy, credentialAllowlist }: KubeletFacts,
): readonly Fault[] {
  if (credentialPolicy !== 'AlwaysVerify' && credentialPolicy !== 'NeverVerifyAllowlistedImages') {
    return [];
  }
  const refused = images.filter(
    ({ reference }) => credentialPolicy === 'AlwaysVerify' || !isAllowed(reference, credentialAllowlist),
  );
  if (refused.length === 0) {
    return [];
  }
  // What is there already may have been pulled.
  const isCertain = refused.some(({ stage }) => stage !== undefined);
  const names = refused.map(({ reference }) => reference).join(', ');
  const message = `the kubelet’s imagePullCredentialsVerificationPolicy is ${credentialPolicy}, which does not let pods use ${names}`;
  return [when(isCertain, 'IMAGE_CREDENTIALS_POLICY', message)];
}

/** `name`, or `prefix/*`; without tag and digest (Kubernetes: `preloadedImagesVerificationAllowlist`). */
function isAllowed(reference: string, allowlist: readonly string[]): boolean {
  const { registry, repository } = parseReference(reference);
  const name = registry === undefined ? repository : `${registry}/${repository}`;
  return allowlist.some(entry => (entry.endsWith('/*') ? name.startsWith(entry.slice(0, -1)) : name === entry));
}

/** With `sandbox-image: send` set already. */
const UNSENT =
  'Pull it on the runner under this name (`docker pull`, `podman pull`), or put it into the `archive`: `sandbox-image: send` is set, and found it nowhere there; the log above says where it looked.';

function sandbox({ images }: CheckedNode, { sandbox }: NodeFacts, isSmoked: boolean): readonly Fault[] {
  if (sandbox === undefined || sandbox.isHeld || images.some(({ reference }) => isSame(reference, sandbox.reference))) {
    return [];
  }
  const message = `the CRI does not have ${sandbox.reference}, from which the sandbox of every pod is made`;
  return [when(isSmoked, 'SANDBOX_IMAGE_MISSING', message)];
}

/** Whether a name in a runtime's configuration is that of an image; one that is no name is that of none. */
function isSame(reference: string, configured: string): boolean {
  try {
    return reference === normalise(configured);
  } catch {
    return false;
  }
}

/** The compressed size is not known yet: the layers as they are in the source stand for both, unpacked and archive. */
function disk({ images }: CheckedNode, facts: NodeFacts): readonly Fault[] {
  const { disk, kubelet } = facts;
  const layers = unpackedBytes(images.filter(({ stage }) => stage !== undefined));
  const { path, sizeBytes, freeBytes } = disk;
  const free = `${formatBytes(freeBytes)} are free on ${path}`;
  if (layers > freeBytes) {
    return [fault('DISK_FULL', `the layers alone are ${formatBytes(layers)}; ${free}`)];
  }
  const faults: Fault[] = [];
  if (2 * layers > freeBytes) {
    faults.push(
      warning('DISK_TIGHT', `the layers are ${formatBytes(layers)} and their archive may be as much again; ${free}`),
    );
  }
  const work = otherWorkDisk(facts);
  if (work !== undefined && layers > work.freeBytes) {
    faults.push(
      warning(
        'DISK_TIGHT',
        `the archive, which may be up to ${formatBytes(layers)}, is unpacked below /var/tmp; ${formatBytes(work.freeBytes)} are free on ${work.path}`,
      ),
    );
  }
  // As the kubelet counts (pkg/kubelet/images/image_gc_manager.go); 100 turns the collection off.
  const threshold = kubelet.imageGcHighThresholdPercent;
  const usedPercent = 100 - Math.floor((100 * Math.max(0, freeBytes - 2 * layers)) / sizeBytes);
  if (threshold < 100 && usedPercent >= threshold) {
    const state = layers === 0 ? 'is' : 'would be up to';
    faults.push(
      warning(
        'IMAGE_GC_LIKELY',
        `${path} ${state} ${usedPercent} % full, and the kubelet removes unused images from ${threshold} % on`,
      ),
    );
  }
  return faults;
}

function asFault({ code, message, hint }: SideloadError): Fault {
  return { severity: 'error', code, message, hint };
}

function fault(code: ErrorCode, message: string): Fault {
  return { severity: 'error', code, message, hint: ERRORS[code].hint };
}

function warning(code: ErrorCode, message: string): Fault {
  return { ...fault(code, message), severity: 'warning' };
}

/** An error when it is certain to end the job, else a warning. */
function when(isCertain: boolean, code: ErrorCode, message: string): Fault {
  return isCertain ? fault(code, message) : warning(code, message);
}

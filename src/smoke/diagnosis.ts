import { ERRORS, type ErrorCode, SideloadError } from '../errors.ts';
import { normalise, parseReference } from '../image/reference.ts';
import type { Confinement } from './fit.ts';
import type { NodeObject, Pod, PodEvent } from './objects.ts';
import { describeEvent, type FailedVerdict, unreadyNode } from './verdict.ts';

/** What a run knows of an image that it has seen on the machine where it has put it, and that a kubelet has not found. */
export interface Proven {
  readonly address: string;
  /** Of the runtime that was asked. */
  readonly socket: string;
  /** When it was there last, as it should be; an ISO 8601 time. */
  readonly seenAt: string;
  /** What the reference names there now: an image ID; `undefined` when that cannot be asked. */
  readonly now: string | 'absent' | undefined;
  /** Why that machine is another one than the kubelet's; `undefined` when nothing says so. */
  readonly otherMachine: string | undefined;
  readonly credentialPolicy: string;
}

/** Everything that is known when a verdict is explained. Whatever could not be read is empty or `undefined`. */
export interface Evidence {
  /** The node as the user named it. */
  readonly node: string;
  /** Its name in the cluster. */
  readonly nodeName: string;
  readonly reference: string;
  /** What CI built. */
  readonly imageId: string;
  /** What the pod wrote for it. */
  readonly spelling: string;
  readonly pod: Pod | undefined;
  readonly events: readonly PodEvent[];
  /** The last lines of the log. */
  readonly log: string;
  readonly object: NodeObject | 'absent' | undefined;
  /** Names of the images that the node has. */
  readonly held: readonly string[];
  /** Of an image that the pod did not find, or found to be another. */
  readonly proven?: Proven | undefined;
  /** How the pod was kept from what the image asks for; `undefined` when it was not. */
  readonly confinement?: Confinement | undefined;
}

/** What a program may run into that is kept from something. */
const CONFINED: ReadonlySet<ErrorCode> = new Set(['SMOKE_CRASHED', 'SMOKE_START', 'SMOKE_CONFIG', 'SMOKE_TIMEOUT']);

/** Reasons for which a kubelet does not take a pod (Kubernetes: `pkg/kubelet/lifecycle/predicate.go`), and what to do. */
const REJECTIONS: readonly (readonly [reason: RegExp, hint: string])[] = [
  [/^OutOfpods/, 'The node runs as many pods as its kubelet takes (`maxPods`): make room on it.'],
  [
    /^OutOf/,
    'The pods on the node have asked for all of it: make room on the node, or ask for less with `smoke-resources`.',
  ],
  [
    /^(NodeAffinity|NodeName|NodePorts|PodOSNotSupported|PodOSSelector)/,
    'The manifest does not fit the node: compare its node selector, affinity and host ports with `kubectl get node --show-labels`.',
  ],
  [
    /Taint/,
    'The node has a `NoExecute` taint that the manifest does not tolerate: add the toleration, or leave the node out with `node-selector`.',
  ],
];

/** A verdict with its cause and its next step, as far as the evidence tells more than the verdict itself. */
export function diagnose(verdict: FailedVerdict, evidence: Evidence): SideloadError {
  const { code, cause, hint } = refine(verdict, evidence);
  const { node, reference, pod, events, log } = evidence;
  const confinement = CONFINED.has(code) ? evidence.confinement : undefined;
  const details = [
    ...(cause === undefined ? [] : [`  ${cause}`]),
    ...(confinement === undefined ? [] : [`  ${confinement.says}`]),
    ...(pod === undefined ? [] : [`  pod phase: ${pod.status?.phase ?? 'unknown'}`]),
    ...events.map(event => `  event: ${describeEvent(event)}`),
    ...(log === '' ? [] : log.split('\n').map(line => `  log: ${line}`)),
  ];
  return new SideloadError(code, [`${reference}: ${verdict.message}`, ...details].join('\n'), {
    node,
    hint: [hint ?? verdict.hint ?? ERRORS[code].hint, ...ifConfined(confinement)].join(' '),
  });
}

function ifConfined(confinement: Confinement | undefined): readonly string[] {
  return confinement === undefined ? [] : [`If it is rights that it lacks: ${confinement.hint}.`];
}

interface Refined {
  readonly code: ErrorCode;
  readonly cause?: string | undefined;
  readonly hint?: string | undefined;
}

function refine({ code, message }: FailedVerdict, evidence: Evidence): Refined {
  const { reference, spelling, events, log, object, held } = evidence;
  switch (code) {
    case 'SMOKE_OTHER_IMAGE':
      return { code, ...proof(code, evidence) };
    case 'SMOKE_IMAGE_NEVER_PULL':
    case 'SMOKE_IMAGE_INSPECT': {
      const [near] = nearMisses(reference, held);
      const proved = proof(code, evidence);
      // A similar name explains nothing where this very one has been seen.
      return proved !== undefined || near === undefined
        ? { code, ...proved }
        : {
            code,
            cause: `the node has ${near}, the pod asks for ${spelling}`,
            hint: `Write the same name in \`images\` and in the pods, or add the other one with \`aliases\`.`,
          };
    }
    case 'SMOKE_CRASHED': {
      // runc starts a container before it executes the program: its refusal is in the log, and looks like a crash.
      if (/exec format error/i.test(log)) {
        return { code: 'SMOKE_EXEC_FORMAT' };
      }
      const isKilled = /exit code (137|143)\b/.test(message);
      const probe = events.findLast(
        ({ reason, message: said = '' }) =>
          (reason === 'Killing' && /probe/.test(said)) ||
          (isKilled && reason === 'Unhealthy' && /^(Liveness|Startup) probe/.test(said)),
      );
      return probe === undefined ? { code } : { code: 'SMOKE_PROBE', cause: `the kubelet ended it: ${probe.message}` };
    }
    case 'SMOKE_REJECTED':
      return { code, hint: REJECTIONS.find(([reason]) => reason.test(message))?.[1] };
    case 'SMOKE_DELETED': {
      const unready = unreadyNode(object);
      return unready === undefined ? { code } : { code: 'SMOKE_NODE_NOT_READY', cause: unready };
    }
    default:
      return { code };
  }
}

/** What the run has seen itself, compared with what the kubelet says; `undefined` when that explains nothing. */
function proof(
  code: ErrorCode,
  { nodeName, reference, spelling, imageId, proven }: Evidence,
): Omit<Refined, 'code'> | undefined {
  if (proven === undefined) {
    return undefined;
  }
  const { address, socket, seenAt, now, otherMachine, credentialPolicy } = proven;
  const seen = `this run saw the image at ${address} at ${seenAt}`;
  if (otherMachine !== undefined) {
    const cause = `${seen}, and that is another machine than the node ${nodeName}: ${otherMachine}`;
    return { cause, hint: ERRORS.NODE_OTHER_MACHINE.hint };
  }
  if (code === 'SMOKE_IMAGE_INSPECT') {
    return undefined;
  }
  if (now === 'absent') {
    return {
      cause: `${seen}, and it is gone since: somebody or something has removed it`,
      hint: 'Look for what removes images there: a clean-up such as `crictl rmi --prune`, or the kubelet when its disk is full (`journalctl -u kubelet`; `pin: true` keeps it from that). Then run the job again.',
    };
  }
  if (now !== undefined && now !== imageId) {
    return {
      cause: `${seen}, and since then the name is that of another image: ${now}`,
      hint: 'Let jobs that push this name take turns (`concurrency`, `resource_group`), look for others that move it, and run the job again.',
    };
  }
  if (now === undefined) {
    return { cause: `${seen}, and the node cannot be asked any more` };
  }
  if (code === 'SMOKE_IMAGE_NEVER_PULL' && credentialPolicy !== 'NeverVerifyPreloadedImages') {
    const cause = `${seen}, and it is there still: the kubelet’s imagePullCredentialsVerificationPolicy, ${credentialPolicy}, keeps pods from it`;
    return { cause, hint: ERRORS.IMAGE_CREDENTIALS_POLICY.hint };
  }
  if (normalise(spelling) !== reference) {
    return {
      cause: `${seen} as ${reference}, and it is there still: the pod writes ${spelling}, which the runtime takes for another name`,
      hint: `Write ${reference} in the pods and in \`images\`.`,
    };
  }
  return {
    cause: `${seen}, and the runtime behind ${socket} has it still: the kubelet of ${nodeName} asks another runtime, or runs on another machine`,
    hint: `Look there which socket the kubelet uses (\`ps -o args= -C kubelet\`), and name it with \`cri-socket\`; see whether \`cat /etc/machine-id\` there is what \`kubectl get node ${nodeName} -o jsonpath={.status.nodeInfo.machineID}\` says.`,
  };
}

/**
 * Names on a node that somebody could take for the one that a pod asks for: the same last part and tag under another
 * registry or path first, then the same repository with another tag.
 */
export function nearMisses(reference: string, held: readonly string[]): readonly string[] {
  const wanted = parts(reference);
  const others = held.filter(name => name !== reference).map(name => ({ name, parts: parts(name) }));
  if (wanted === undefined) {
    return [];
  }
  const renamed = others.filter(({ parts: has }) => has?.base === wanted.base && has.tag === wanted.tag);
  const retagged = others.filter(({ parts: has }) => has?.path === wanted.path && has.tag !== wanted.tag);
  return [...renamed, ...retagged].map(({ name }) => name);
}

function parts(name: string): { readonly path: string; readonly base: string; readonly tag: string } | undefined {
  try {
    const { registry, repository, tag = 'latest' } = parseReference(normalise(name));
    return { path: `${registry}/${repository}`, base: repository.slice(repository.lastIndexOf('/') + 1), tag };
  } catch {
    return undefined;
  }
}

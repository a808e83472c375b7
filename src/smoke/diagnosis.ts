import { ERRORS, type ErrorCode, SideloadError } from '../errors.ts';
import { normalise, parseReference } from '../image/reference.ts';
import type { Confinement } from './fit.ts';
import type { NodeObject, Pod, PodEvent } from './objects.ts';
import { describeEvent, type FailedVerdict, unreadyNode } from './verdict.ts';

/** Everything that is known when a verdict is explained. Whatever could not be read is empty or `undefined`. */
export interface Evidence {
  /** The node as the user named it. */
  readonly node: string;
  readonly reference: string;
  readonly pod: Pod | undefined;
  readonly events: readonly PodEvent[];
  /** The last lines of the log. */
  readonly log: string;
  readonly object: NodeObject | 'absent' | undefined;
  /** Names of the images that the node has. */
  readonly held: readonly string[];
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
  const { reference, events, log, object, held } = evidence;
  switch (code) {
    case 'SMOKE_IMAGE_NEVER_PULL':
    case 'SMOKE_IMAGE_INSPECT': {
      const [near] = nearMisses(reference, held);
      return near === undefined
        ? { code }
        : {
            code,
            cause: `the node has ${near}, the pod asks for ${reference}`,
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

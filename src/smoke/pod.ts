import type { PodTemplate } from './manifest.ts';

/** CPU, memory and others, as Kubernetes quantities. */
export type Quantities = Readonly<Record<string, string>>;

/**
 * The security context of a smoke pod. `image`: none, so that the image runs as it would by itself, and the namespace
 * decides; `restricted`: all that Pod Security `restricted` wants, as a user of one's own when the image's will not do.
 */
export type Security =
  | { readonly level: 'image' }
  | { readonly level: 'restricted'; readonly runAsUser: number | undefined };

/** One smoke pod: one image on one node. */
export interface SmokePod {
  readonly name: string;
  /** `metadata.name` of the Kubernetes node. */
  readonly nodeName: string;
  /** What the user's pods will write. */
  readonly image: string;
  readonly runId: string;
  /** After this the kubelet ends the pod by itself, should nobody be left to delete it. */
  readonly deadlineSeconds: number;
  /** The user's own pod; else one of ours. */
  readonly template: PodTemplate | undefined;
  /** In place of the image's own entrypoint and command, when not empty. */
  readonly command: readonly string[];
  readonly security: Security;
  readonly resources: { readonly requests: Quantities; readonly limits: Quantities };
}

export const RUN_LABEL = 'kube-sideload/run';
const MANAGED = ['app.kubernetes.io/managed-by', 'kube-sideload'] as const;
/** The smoke pods of all runs. */
export const ALL_RUNS = `${MANAGED.join('=')},${RUN_LABEL}`;
/** The only container of a pod of ours. */
export const CONTAINER = 'smoke';

/**
 * The manifest (core/v1 Pod). `nodeName` bypasses the scheduler: only the kubelet of that node decides. Nothing is ever
 * pulled, nothing is started twice, and the kubelet ends the pod when nobody else does.
 */
export function smokePodManifest(pod: SmokePod): object {
  const { name, nodeName, runId, deadlineSeconds, template } = pod;
  const own = { [MANAGED[0]]: MANAGED[1], [RUN_LABEL]: runId };
  return {
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: {
      name,
      labels: { ...template?.labels, ...own },
      ...(template === undefined ? {} : { annotations: template.annotations }),
    },
    spec: {
      ...(template === undefined ? ownSpec(pod) : specOf(template)),
      nodeName,
      restartPolicy: 'Never',
      terminationGracePeriodSeconds: 1,
      activeDeadlineSeconds: deadlineSeconds,
    },
  };
}

/**
 * Taints are tolerated, since `NoExecute` would evict even so; no token and no service links, so that neither the
 * service account nor the cluster's services must be in order; the node's own DNS, since none is needed.
 */
function ownSpec({ image, command, security, resources }: SmokePod): object {
  return {
    automountServiceAccountToken: false,
    enableServiceLinks: false,
    dnsPolicy: 'Default',
    tolerations: [{ operator: 'Exists' }],
    containers: [
      {
        name: CONTAINER,
        image,
        imagePullPolicy: 'Never',
        ...(command.length > 0 ? { command } : {}),
        resources: Object.fromEntries(Object.entries(resources).filter(([, values]) => Object.keys(values).length > 0)),
        ...(security.level === 'restricted' ? { securityContext: restricted(security.runAsUser) } : {}),
      },
    ],
  };
}

/** What Pod Security `restricted` asks for (Kubernetes: Pod Security Standards); OpenShift's `restricted-v2` admits it too. */
function restricted(runAsUser: number | undefined): object {
  return {
    runAsNonRoot: true,
    ...(runAsUser === undefined ? {} : { runAsUser }),
    allowPrivilegeEscalation: false,
    capabilities: { drop: ['ALL'] },
    seccompProfile: { type: 'RuntimeDefault' },
  };
}

function specOf({ spec }: PodTemplate): object {
  const unpulled = (containers: unknown) =>
    Array.isArray(containers) ? containers.map(container => ({ ...container, imagePullPolicy: 'Never' })) : [];
  const { schedulerName: _scheduler, initContainers, containers, ...rest } = spec;
  return {
    ...rest,
    ...(initContainers === undefined ? {} : { initContainers: unpulled(initContainers) }),
    containers: unpulled(containers),
  };
}

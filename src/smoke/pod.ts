/** One smoke pod: one image on one node. */
export interface SmokePod {
  readonly name: string;
  /** `metadata.name` of the Kubernetes node. */
  readonly nodeName: string;
  /** The exact reference that the user's pods will write. */
  readonly image: string;
  /** In place of the image's own entrypoint and command, when not empty. */
  readonly command: readonly string[];
  readonly runId: string;
  /** After this the kubelet ends the pod by itself, should nobody be left to delete it. */
  readonly deadlineSeconds: number;
}

export const RUN_LABEL = 'kube-sideload/run';

/**
 * The manifest (core/v1 Pod). `nodeName` bypasses the scheduler: only the kubelet of that node decides. Taints are
 * tolerated, since `NoExecute` would evict even so; no token and no service links, so that neither the service account
 * nor the cluster's services must be in order; the node's own DNS, since none is needed.
 */
export function smokePodManifest({ name, nodeName, image, command, runId, deadlineSeconds }: SmokePod): object {
  return {
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: {
      name,
      labels: { 'app.kubernetes.io/managed-by': 'kube-sideload', [RUN_LABEL]: runId },
    },
    spec: {
      nodeName,
      restartPolicy: 'Never',
      automountServiceAccountToken: false,
      enableServiceLinks: false,
      dnsPolicy: 'Default',
      terminationGracePeriodSeconds: 1,
      activeDeadlineSeconds: deadlineSeconds,
      tolerations: [{ operator: 'Exists' }],
      containers: [
        {
          name: 'smoke',
          image,
          imagePullPolicy: 'Never',
          ...(command.length > 0 ? { command } : {}),
          resources: { requests: { cpu: '10m', memory: '16Mi' } },
        },
      ],
    },
  };
}

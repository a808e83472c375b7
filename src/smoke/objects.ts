/** The parts of Kubernetes API objects (core/v1) that are read here; everything the server may leave out is optional. */
export interface Pod {
  readonly metadata: {
    readonly name: string;
    readonly uid: string;
    readonly resourceVersion?: string;
    readonly creationTimestamp?: string;
    readonly deletionTimestamp?: string;
    readonly labels?: Readonly<Record<string, string>>;
  };
  readonly spec?: {
    readonly nodeName?: string;
    readonly activeDeadlineSeconds?: number;
    readonly containers?: readonly { readonly name?: string; readonly imagePullPolicy?: string }[];
  };
  readonly status?: {
    readonly phase?: string;
    readonly reason?: string;
    readonly message?: string;
    readonly conditions?: readonly Condition[];
    readonly initContainerStatuses?: readonly ContainerStatus[];
    readonly containerStatuses?: readonly ContainerStatus[];
  };
}

export interface Condition {
  readonly type: string;
  readonly status: string;
  readonly reason?: string;
  readonly message?: string;
}

export interface ContainerStatus {
  readonly name?: string;
  readonly image?: string;
  readonly imageID?: string;
  readonly ready?: boolean;
  readonly state?: {
    readonly waiting?: { readonly reason?: string; readonly message?: string };
    readonly running?: { readonly startedAt?: string };
    readonly terminated?: {
      readonly exitCode?: number;
      readonly signal?: number;
      readonly reason?: string;
      readonly message?: string;
    };
  };
}

export interface PodList {
  readonly metadata: { readonly resourceVersion: string };
  readonly items: readonly Pod[];
}

export type WatchEvent =
  | { readonly type: 'ADDED' | 'MODIFIED' | 'DELETED'; readonly object: Pod }
  | { readonly type: 'BOOKMARK'; readonly object: unknown }
  | { readonly type: 'ERROR'; readonly object: { readonly code?: number; readonly message?: string } };

export interface PodEvent {
  readonly type?: string;
  readonly reason?: string;
  readonly message?: string;
  readonly count?: number;
}

export interface NodeList {
  readonly items: readonly NodeObject[];
}

export interface NodeObject {
  readonly metadata: { readonly name: string; readonly labels?: Readonly<Record<string, string>> };
  readonly spec?: {
    /** Set by `kubectl cordon`. */
    readonly unschedulable?: boolean;
    readonly taints?: readonly { readonly key: string; readonly effect: string }[];
  };
  readonly status?: {
    readonly addresses?: readonly { readonly type: string; readonly address: string }[];
    readonly conditions?: readonly Condition[];
    /** The largest images of the node, 50 at most by default: no proof that one is missing. */
    readonly images?: readonly { readonly names?: readonly string[] | null }[];
    readonly nodeInfo?: {
      readonly operatingSystem?: string;
      readonly architecture?: string;
      /** What the kubelet has read of `/etc/machine-id`. */
      readonly machineID?: string;
      /** As in `containerd://2.1.9`. */
      readonly containerRuntimeVersion?: string;
    };
  };
}

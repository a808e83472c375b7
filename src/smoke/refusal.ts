import { SideloadError } from '../errors.ts';

/**
 * Tells from kubectl's words what went wrong; they are the API machinery's own and the same in `oc`. What may pass by
 * itself is CLUSTER_UNREACHABLE, and no other code.
 */
export function refusal(stderr: string): SideloadError {
  const said = stderr
    .split('\n')
    .filter(line => !/^[EWI]\d{4} /.test(line))
    .join('\n')
    .trim();
  const message = said === '' ? stderr : said;
  for (const [words, code, hintOf] of REFUSALS) {
    const match = words.exec(message);
    if (match !== null) {
      return new SideloadError(code, message, { hint: hintOf?.(match) });
    }
  }
  return new SideloadError('CLUSTER_REFUSED', message);
}

/** Whether the credentials were refused, as opposed to what was asked for with them. */
export function isForbidden({ code, message }: SideloadError): boolean {
  return (
    code === 'CLUSTER_REFUSED' && /\(Forbidden\)|\(Unauthorized\)|must be logged in|provide credentials/i.test(message)
  );
}

type Refusal = readonly [
  words: RegExp,
  code:
    | 'NAMESPACE_NOT_FOUND'
    | 'POD_SECURITY'
    | 'QUOTA_EXCEEDED'
    | 'ADMISSION_DENIED'
    | 'CLUSTER_REFUSED'
    | 'CLUSTER_UNREACHABLE'
    | 'KUBECONFIG_INVALID',
  hintOf?: (match: RegExpExecArray) => string | undefined,
];

/** The first row whose words occur counts. */
const REFUSALS: readonly Refusal[] = [
  [/namespaces? "[^"]*" not found/, 'NAMESPACE_NOT_FOUND'],
  // plugin: pod-security-admission; OpenShift: sccadmission
  [/violates PodSecurity/, 'POD_SECURITY'],
  [/unable to validate against any security context constraint/, 'POD_SECURITY', () => SCC_HINT],
  // ResourceQuota, LimitRange
  [
    /exceeded quota|failed quota|(minimum|maximum) (cpu|memory|[a-z-]+) usage per|limit to request ratio/,
    'QUOTA_EXCEEDED',
  ],
  [
    /failed calling webhook "([^"]+)"/,
    'CLUSTER_UNREACHABLE',
    match => `The webhook ${match[1]} does not answer the API server: look at the service behind it.`,
  ],
  [/admission webhook "[^"]+" denied|ValidatingAdmissionPolicy .* denied|denied request/, 'ADMISSION_DENIED'],
  [
    /error looking up service account ([^ :]+)/,
    'ADMISSION_DENIED',
    match => `Create the service account ${match[1]}, or use another namespace.`,
  ],
  [
    /cannot (\w+) resource "([^"]+)"(?: in API group "[^"]*")?(?: in the namespace "([^"]+)")?/,
    'CLUSTER_REFUSED',
    match =>
      match[3] === undefined
        ? `Let the credentials \`${match[1]}\` ${match[2]} (a ClusterRole).`
        : rightsHint([match[1] ?? ''], match[2] ?? '', match[3]),
  ],
  [/\(Unauthorized\)|must be logged in|provide credentials/i, 'CLUSTER_REFUSED'],
  [/\(Forbidden\): pods "[^"]*" is forbidden/, 'ADMISSION_DENIED'],
  [/\(Forbidden\)/, 'CLUSTER_REFUSED'],
  [
    /server localhost:8080 was refused/,
    'KUBECONFIG_INVALID',
    () => 'Without a kubeconfig kubectl tries localhost:8080: pass a path or the content in `kubeconfig`.',
  ],
  [
    /error loading config file|error in configuration|invalid configuration|no configuration has been provided|unable to (read|load)|getting credentials|context .* does not exist|yaml:|stat .*no such file/i,
    'KUBECONFIG_INVALID',
  ],
  // An answer of the server that is none of its own making, such as a 502 of the load balancer before it, has the reason
  // InternalError too (apimachinery: `NewGenericServerResponse`).
  [
    /was refused|no route to host|http2:|stream error|closed network connection|connection reset|EOF$|i\/o timeout|timed out|deadline exceeded|no such host|unable to connect|\((ServiceUnavailable|Timeout|ServerTimeout|TooManyRequests|InternalError|BadGateway)\)|internal error|bad gateway|x509|TLS/i,
    'CLUSTER_UNREACHABLE',
  ],
];

/** Where the rights are to be had: those of our file are for its own namespace, which is not everybody's. */
export function rightsHint(verbs: readonly string[], resource: string, namespace: string): string {
  const right = `Let the credentials ${verbs.map(verb => `\`${verb}\``).join(', ')} ${resource} in the namespace ${namespace}`;
  return namespace === RBAC_NAMESPACE
    ? `${right}, as docs/privileges/rbac.yaml does: see whether it was applied to this cluster, and whether these are its credentials.`
    : `${right}; with those of docs/privileges/rbac.yaml, which are for its own, set \`namespace: ${RBAC_NAMESPACE}\`.`;
}

/** As in docs/privileges/rbac.yaml. */
const RBAC_NAMESPACE = 'kube-sideload';

const SCC_HINT =
  'Let the service account of the namespace use an SCC that admits the pod, such as `restricted-v2`, or set `smoke-security: restricted`.';

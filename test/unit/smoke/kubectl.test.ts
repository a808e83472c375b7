import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { beforeEach, describe, expect, it, onTestFinished } from 'vitest';
import type { SideloadError } from '../../../src/errors.ts';
import { findKubectl, type Kubectl } from '../../../src/smoke/kubectl.ts';
import type { WatchEvent } from '../../../src/smoke/objects.ts';
import { recording } from './recorded.ts';

/** A program that takes the place of kubectl: it prints what it is told, and notes what it was asked. */
interface Program {
  readonly kubectl: Kubectl;
  says(answer: { stdout?: string; stderr?: string; code?: number; thenHangs?: boolean }): Promise<void>;
  arguments(): Promise<readonly string[]>;
  input(): Promise<string>;
}

let program: Program;

beforeEach(async () => {
  const directory = await mkdtemp(join(tmpdir(), 'kube-sideload-kubectl-'));
  onTestFinished(() => rm(directory, { recursive: true, force: true }));
  const file = (name: string) => join(directory, name);
  await writeFile(
    file('kubectl'),
    `#!/bin/sh
cd '${directory}'
printf '%s\\n' "$@" >arguments
cat >input
cat stderr >&2
cat stdout
[ ! -e hang ] || exec tail -f /dev/null
exit "$(cat code)"
`,
    { mode: 0o755 },
  );
  program = {
    kubectl: await findKubectl({ program: file('kubectl'), kubeconfig: '/etc/kube config', namespace: 'smoke' }),
    async says({ stdout = '', stderr = '', code = 0, thenHangs = false }) {
      await writeFile(file('stdout'), stdout);
      await writeFile(file('stderr'), stderr);
      await writeFile(file('code'), String(code));
      if (thenHangs) await writeFile(file('hang'), '');
    },
    arguments: async () => (await readFile(file('arguments'), 'utf8')).trimEnd().split('\n'),
    input: () => readFile(file('input'), 'utf8'),
  };
});

async function failureOf(promise: Promise<unknown>): Promise<SideloadError> {
  return await promise.then(
    () => expect.unreachable('it should have failed'),
    error => error,
  );
}

const never = new AbortController().signal;

describe('requests', () => {
  const pod = { metadata: { name: 'smoke', uid: '1' } };

  it('create a pod from standard input and return what the server stored', async () => {
    await program.says({ stdout: JSON.stringify(pod) });
    expect(await program.kubectl.createPod({ kind: 'Pod', metadata: { name: '$(id)' } })).toEqual(pod);
    expect(await program.arguments()).toEqual([
      '--kubeconfig=/etc/kube config',
      '--request-timeout=60s',
      'create',
      '--raw=/api/v1/namespaces/smoke/pods',
      '-f',
      '-',
    ]);
    expect(JSON.parse(await program.input())).toEqual({ kind: 'Pod', metadata: { name: '$(id)' } });
  });

  it('make nothing in a dry run', async () => {
    await program.says({ stdout: JSON.stringify(pod) });
    await program.kubectl.createPod({}, { dryRun: true });
    expect(await program.arguments()).toContain('--raw=/api/v1/namespaces/smoke/pods?dryRun=All');
  });

  it('select by label', async () => {
    await program.says({ stdout: JSON.stringify({ metadata: { resourceVersion: '7' }, items: [pod] }) });
    expect((await program.kubectl.listPods('kube-sideload/run=a1')).items).toEqual([pod]);
    expect(await program.arguments()).toContain(
      '--raw=/api/v1/namespaces/smoke/pods?labelSelector=kube-sideload%2Frun%3Da1',
    );
  });

  it('ask for the events of one pod by its UID', async () => {
    await program.says({ stdout: '{"items":[{"reason":"Failed"}]}' });
    expect(await program.kubectl.eventsOf('u-1')).toEqual([{ reason: 'Failed' }]);
    expect((await program.arguments()).at(-1)).toMatch(/\/events\?fieldSelector=involvedObject.uid%3Du-1$/);
  });

  it('delete with the grace that is asked for', async () => {
    await program.says({ stdout: '{}' });
    await program.kubectl.deletePod('smoke', 1);
    expect(await program.arguments()).toContain('--raw=/api/v1/namespaces/smoke/pods/smoke');
    expect(JSON.parse(await program.input())).toMatchObject({ kind: 'DeleteOptions', gracePeriodSeconds: 1 });
  });

  it('take a pod that is gone for deleted, and nothing else', async () => {
    await program.says({ stderr: 'Error from server (NotFound): pods "smoke" not found\n', code: 1 });
    await program.kubectl.deletePod('smoke', 1);
    await program.says({
      stderr:
        'Error from server (Forbidden): pods "smoke" is forbidden: User "ci" cannot delete resource "pods" in API group "" in the namespace "smoke"\n',
      code: 1,
    });
    expect((await failureOf(program.kubectl.deletePod('smoke', 1))).code).toBe('CLUSTER_REFUSED');
  });

  it.each<[stderr: string, answer: unknown]>([
    ['', { metadata: { name: 'worker-1' } }],
    ['Error from server (NotFound): nodes "worker-1" not found\n', 'absent'],
    [
      'Error from server (Forbidden): nodes "worker-1" is forbidden: User "ci" cannot get resource "nodes"\n',
      undefined,
    ],
  ])('tell whether the cluster has a node: %j', async (stderr, answer) => {
    await program.says({ stdout: '{"metadata":{"name":"worker-1"}}', stderr, code: stderr === '' ? 0 : 1 });
    expect(await program.kubectl.getNode('worker-1')).toEqual(answer);
    expect(await program.arguments()).toContain('--raw=/api/v1/nodes/worker-1');
  });

  it('do not take an API server that is away for a missing node', async () => {
    await program.says({ stderr: 'Unable to connect to the server: EOF\n', code: 1 });
    expect((await failureOf(program.kubectl.getNode('worker-1'))).code).toBe('CLUSTER_UNREACHABLE');
  });

  it('list the nodes that a label selector takes', async () => {
    await program.says({ stdout: '{"items":[{"metadata":{"name":"worker-1"}}]}' });
    expect(await program.kubectl.listNodes('!node-role.kubernetes.io/control-plane,pool in (ci)')).toEqual([
      { metadata: { name: 'worker-1' } },
    ]);
    expect(await program.arguments()).toContain(
      '--raw=/api/v1/nodes?labelSelector=%21node-role.kubernetes.io%2Fcontrol-plane%2Cpool+in+%28ci%29',
    );
    await program.kubectl.listNodes('');
    expect(await program.arguments()).toContain('--raw=/api/v1/nodes');
  });

  it.each([
    ['Error from server (Forbidden): nodes is forbidden: User "ci" cannot list resource "nodes"\n', 'CLUSTER_REFUSED'],
    ["Error from server (BadRequest): unable to parse requirement: found '='\n", 'INPUT_INVALID'],
    ['Unable to connect to the server: EOF\n', 'CLUSTER_UNREACHABLE'],
  ])('say why nodes cannot be listed: %j', async (stderr, code) => {
    await program.says({ stderr, code: 1 });
    const error = await failureOf(program.kubectl.listNodes('a=b=c'));
    expect(error.code).toBe(code);
    expect(error.hint).not.toBe('');
  });

  it('ask which rights are missing, and take no answer for none', async () => {
    await program.says({ stdout: '{"status":{"allowed":false}}' });
    expect(await program.kubectl.missingVerbs({ resource: 'pods', verbs: ['watch', 'delete'] })).toEqual([
      'watch',
      'delete',
    ]);
    // Two at a time write over each other's input here.
    expect(await program.kubectl.missingVerbs({ resource: 'pods', verbs: ['watch'] })).toEqual(['watch']);
    expect(JSON.parse(await program.input())).toMatchObject({
      kind: 'SelfSubjectAccessReview',
      spec: { resourceAttributes: { namespace: 'smoke', resource: 'pods' } },
    });
    expect(await program.kubectl.missingVerbs({ resource: 'pods/log', verbs: ['get'] })).toEqual(['get']);
    expect(JSON.parse(await program.input())).toMatchObject({
      spec: { resourceAttributes: { namespace: 'smoke', resource: 'pods', subresource: 'log' } },
    });
    expect(await program.kubectl.missingVerbs({ resource: 'nodes', verbs: ['get'] })).toEqual(['get']);
    expect(JSON.parse(await program.input()).spec.resourceAttributes).toEqual({ resource: 'nodes', verb: 'get' });
    await program.says({ stdout: '{"status":{"allowed":true}}' });
    expect(await program.kubectl.missingVerbs({ resource: 'pods', verbs: ['watch'] })).toEqual([]);
    await program.says({ stderr: 'Error from server (Forbidden): no\n', code: 1 });
    expect(await program.kubectl.missingVerbs({ resource: 'pods', verbs: ['watch'] })).toEqual([]);
  });

  it('give the end of a log, of one container when it is named, and nothing where there is none', async () => {
    await program.says({ stdout: 'one\ntwo\n' });
    expect(await program.kubectl.logTail('smoke', 'app')).toBe('one\ntwo');
    expect((await program.arguments()).at(-1)).toMatch(/\/smoke\/log\?container=app&tailLines=20&limitBytes=8192$/);
    await program.says({ stderr: 'Error from server (BadRequest): container is waiting to start\n', code: 1 });
    expect(await program.kubectl.logTail('smoke')).toBe('');
  });

  it('refuse an answer that is no JSON, as of a login page', async () => {
    await program.says({ stdout: '<html>log in</html>' });
    const error = await failureOf(program.kubectl.listPods('a=b'));
    expect(error.code).toBe('CLUSTER_UNREACHABLE');
    expect(error.message).toContain('<html>log in</html>');
  });

  it('name the exit code of a program that fails without a word', async () => {
    await program.says({ code: 42 });
    expect((await failureOf(program.kubectl.listPods('a=b'))).message).toBe('kubectl ended with exit code 42');
  });
});

/** What kubectl 1.32 prints on standard error: mostly recorded, the rest in its own wording (time-outs, certificates, routes). */
describe('refusals are told apart by kubectl’s own words', () => {
  it.each<[code: string, stderr: string]>([
    ['NAMESPACE_NOT_FOUND', 'Error from server (NotFound): namespaces "nope" not found'],
    ['CLUSTER_REFUSED', 'error: You must be logged in to the server (Unauthorized)'],
    [
      'CLUSTER_REFUSED',
      'error: You must be logged in to the server (the server has asked for the client to provide credentials)',
    ],
    [
      'CLUSTER_REFUSED',
      'Error from server (Forbidden): pods is forbidden: User "ci" cannot create resource "pods" in API group "" in the namespace "default"',
    ],
    [
      'POD_SECURITY',
      'Error from server (Forbidden): pods "a" is forbidden: violates PodSecurity "restricted:latest": allowPrivilegeEscalation != false',
    ],
    [
      'POD_SECURITY',
      'Error from server (Forbidden): pods "a" is forbidden: unable to validate against any security context constraint: [provider "restricted-v2": Forbidden: not usable by user or serviceaccount]',
    ],
    [
      'QUOTA_EXCEEDED',
      'Error from server (Forbidden): pods "a" is forbidden: exceeded quota: q, requested: pods=1, used: pods=5, limited: pods=5',
    ],
    [
      'QUOTA_EXCEEDED',
      'Error from server (Forbidden): pods "a" is forbidden: failed quota: q: must specify limits.memory for: smoke',
    ],
    [
      'QUOTA_EXCEEDED',
      'Error from server (Forbidden): pods "a" is forbidden: minimum cpu usage per Container is 50m, but request is 10m',
    ],
    [
      'ADMISSION_DENIED',
      'Error from server (Forbidden): admission webhook "gate.example.com" denied the request: image is not signed',
    ],
    [
      'ADMISSION_DENIED',
      `The pods "a" is invalid: : ValidatingAdmissionPolicy 'vap' with binding 'vap' denied request: no pods here`,
    ],
    [
      'ADMISSION_DENIED',
      'Error from server (Forbidden): pods "a" is forbidden: error looking up service account nosa/default: serviceaccount "default" not found',
    ],
    [
      'CLUSTER_UNREACHABLE',
      'Error from server (InternalError): Internal error occurred: failed calling webhook "gate.example.com": failed to call webhook: Post "https://127.0.0.1:9/x?timeout=2s": dial tcp 127.0.0.1:9: connect: connection refused',
    ],
    [
      'CLUSTER_UNREACHABLE',
      'Error from server (InternalError): an error on the server ("") has prevented the request from succeeding',
    ],
    [
      'CLUSTER_UNREACHABLE',
      'Error from server (InternalError): an error on the server ("<html><h1>502 Bad Gateway</h1></html>") has prevented the request from succeeding (post pods)',
    ],
    ['CLUSTER_UNREACHABLE', 'error: http2: client connection lost'],
    ['CLUSTER_REFUSED', 'The request is invalid: Pod "a" is invalid: spec.containers[0].image: Required value'],
    ['CLUSTER_REFUSED', 'Error from server (AlreadyExists): pods "a" already exists'],
    ['KUBECONFIG_INVALID', 'error: stat /nope: no such file or directory'],
    ['KUBECONFIG_INVALID', 'error: error loading config file "bad": yaml: line 1: did not find expected node content'],
    [
      'KUBECONFIG_INVALID',
      `error: error loading config file "bad": couldn't get version/kind; json parse error: json: cannot unmarshal string`,
    ],
    ['KUBECONFIG_INVALID', 'Error in configuration: context was not found for specified context: gone'],
    ['KUBECONFIG_INVALID', 'error: context "gone" does not exist'],
    [
      'KUBECONFIG_INVALID',
      'Error in configuration: \n* unable to read client-cert /nope.crt for u due to open /nope.crt: no such file or directory',
    ],
    ['KUBECONFIG_INVALID', 'error: unable to load root certificates: unable to parse bytes as PEM block'],
    [
      'KUBECONFIG_INVALID',
      'error: invalid configuration: no configuration has been provided, try setting KUBERNETES_MASTER environment variable',
    ],
    [
      'KUBECONFIG_INVALID',
      'Unable to connect to the server: getting credentials: exec: executable no-such-login not found',
    ],
    [
      'KUBECONFIG_INVALID',
      'The connection to the server localhost:8080 was refused - did you specify the right host or port?',
    ],
    [
      'CLUSTER_UNREACHABLE',
      'The connection to the server 10.0.0.1:6443 was refused - did you specify the right host or port?',
    ],
    [
      'CLUSTER_UNREACHABLE',
      'Unable to connect to the server: dial tcp: lookup nope.invalid on 10.0.0.53:53: no such host',
    ],
    ['CLUSTER_UNREACHABLE', 'Unable to connect to the server: dial tcp 10.0.0.1:6443: connect: no route to host'],
    ['CLUSTER_UNREACHABLE', 'Unable to connect to the server: net/http: TLS handshake timeout'],
    [
      'CLUSTER_UNREACHABLE',
      'Unable to connect to the server: tls: failed to verify certificate: x509: certificate signed by unknown authority',
    ],
    ['CLUSTER_UNREACHABLE', 'Unable to connect to the server: EOF'],
    ['CLUSTER_UNREACHABLE', 'error: unexpected EOF'],
    ['CLUSTER_UNREACHABLE', 'error: read tcp 10.0.0.2:4711->10.0.0.1:6443: read: connection reset by peer'],
    [
      'CLUSTER_UNREACHABLE',
      'Error from server (ServiceUnavailable): the server is currently unable to handle the request',
    ],
    ['CLUSTER_UNREACHABLE', 'Error from server (TooManyRequests): Too many requests, please try again later.'],
    [
      'CLUSTER_UNREACHABLE',
      'Error from server (Timeout): Timeout: request did not complete within requested timeout - context deadline exceeded',
    ],
    ['CLUSTER_UNREACHABLE', 'Error from server: etcdserver: request timed out'],
  ])('%s: %s', async (code, stderr) => {
    await program.says({ stderr: `${stderr}\n`, code: 1 });
    const error = await failureOf(program.kubectl.listPods('a=b'));
    expect(error.code).toBe(code);
    expect(error.message).toBe(stderr);
  });

  it.each([
    [
      'Error from server (Forbidden): pods is forbidden: User "ci" cannot watch resource "pods" in API group "" in the namespace "smoke"',
      /`watch` pods in the namespace smoke; with those of docs\/privileges\/rbac\.yaml, .* set `namespace: kube-sideload`/,
    ],
    [
      'Error from server (Forbidden): pods is forbidden: User "ci" cannot watch resource "pods" in API group "" in the namespace "kube-sideload"',
      /see whether it was applied to this cluster/,
    ],
    [
      'Error from server (Forbidden): nodes is forbidden: User "ci" cannot list resource "nodes" in API group "" at the cluster scope',
      /`list` nodes \(a ClusterRole\)/,
    ],
    [
      'Error from server (InternalError): Internal error occurred: failed calling webhook "gate.example.com": x',
      /The webhook gate.example.com does not answer/,
    ],
    [
      'Error from server (Forbidden): pods "a" is forbidden: error looking up service account ci/default: serviceaccount "default" not found',
      /Create the service account ci\/default/,
    ],
  ])('with a next step that names what is missing: %s', async (stderr, hint) => {
    await program.says({ stderr, code: 1 });
    expect((await failureOf(program.kubectl.listPods('a=b'))).hint).toMatch(hint);
  });

  it('without the log lines of client-go before them', async () => {
    const noise =
      'E1124 02:49:57.123456   42 memcache.go:265] "Unhandled Error" err="couldn\'t get current server API group list"\n';
    await program.says({ stderr: `${noise}${noise}Unable to connect to the server: EOF\n`, code: 1 });
    expect((await failureOf(program.kubectl.listPods('a=b'))).message).toBe('Unable to connect to the server: EOF');
    await program.says({ stderr: noise, code: 1 });
    expect((await failureOf(program.kubectl.listPods('a=b'))).message).toContain('memcache.go');
  });

  it('with the name of a program that is not there', async () => {
    const error = await failureOf(
      findKubectl({ program: 'no-such-kubectl', kubeconfig: undefined, namespace: 'default' }),
    );
    expect(error.code).toBe('KUBECTL_NOT_FOUND');
    expect(error.message).toContain('"no-such-kubectl"');
  });
});

describe('a watch', () => {
  const lines = recording('n1-running').watch.map(event => JSON.stringify(event));

  async function watch(signal = never): Promise<{ events: WatchEvent[]; ended: Promise<void> }> {
    const events: WatchEvent[] = [];
    const ended = program.kubectl.watchPods('a=b', '7', event => events.push(event), signal);
    ended.catch(() => {});
    return { events, ended };
  }

  it('gives every event, and ends when the server ends it', async () => {
    await program.says({ stdout: `${lines.join('\n')}\n` });
    const { events, ended } = await watch();
    await ended;
    expect(events.map(event => JSON.stringify(event))).toEqual(lines);
    expect((await program.arguments()).at(-1)).toBe(
      '--raw=/api/v1/namespaces/smoke/pods?watch=true&labelSelector=a%3Db&resourceVersion=7&timeoutSeconds=60',
    );
  });

  it('that breaks off in the middle of a line fails, after the events before it', async () => {
    await program.says({
      stdout: `${lines[0]}\n${lines[1]?.slice(0, 500)}`,
      stderr: 'error: unexpected EOF\n',
      code: 1,
    });
    const { events, ended } = await watch();
    expect((await failureOf(ended)).code).toBe('CLUSTER_UNREACHABLE');
    expect(events).toHaveLength(1);
  });

  it('that says something else than JSON fails, and its program is ended', async () => {
    await program.says({ stdout: 'please log in\n', thenHangs: true });
    const { ended } = await watch();
    expect((await failureOf(ended)).message).toContain('please log in');
  });

  it('that the server refuses fails with its words', async () => {
    await program.says({ stderr: 'Error from server (Forbidden): pods is forbidden\n', code: 1 });
    const { ended } = await watch();
    expect((await failureOf(ended)).code).toBe('CLUSTER_REFUSED');
  });

  it('ends with its program when it is cancelled', async () => {
    await program.says({ stdout: `${lines[0]}\n`, thenHangs: true });
    const cancel = new AbortController();
    const reason = new Error('enough');
    const ended = program.kubectl.watchPods('a=b', '7', () => cancel.abort(reason), cancel.signal);
    expect(await failureOf(ended)).toBe(reason);
  });
});

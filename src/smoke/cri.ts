import { within } from '../abort.ts';
import { ERRORS, SideloadError } from '../errors.ts';
import { asObject } from '../image/json.ts';
import type { NodeFacts } from '../node/facts.ts';
import { runScript, type Script, type Sections } from '../node/script.ts';
import { parseObject } from '../runtime/cri.ts';
import type { SshConnection } from '../ssh/connect.ts';
import { diagnose } from './diagnosis.ts';
import { namesOnNode } from './held.ts';
import { CONTAINER, RUN_LABEL } from './pod.ts';
import type { SmokeOptions, SmokeResult, SmokeTarget } from './smoke.ts';
import { fail, join, type SmokeExpect, sandboxCode, startCode, type Verdict } from './verdict.ts';

export interface CriOptions {
  readonly runId: string;
  /** For each image. */
  readonly timeoutMs: number;
  readonly command: readonly string[];
  readonly expect: SmokeExpect;
  /** Cancels the job; what was started is removed all the same. */
  readonly signal: AbortSignal;
  readonly onResult: (result: SmokeResult) => void;
  readonly provenOn: SmokeOptions['provenOn'];
}

/** How long the removal of what was started may take once the job has been cancelled. */
const CLEAN_UP_MS = 60_000;
/** Longer than the node's own limits: whoever waits for the node learns from it, unless it is gone. */
const MARGIN_MS = 60_000;
const WORD = 'by the runtime’s word, no kubelet was asked';

const FUNCTIONS = `
cri() { as_root $CRICTL --timeout 30s --runtime-endpoint "unix://$SOCKET" --image-endpoint "unix://$SOCKET" "$@"; }
take_away() { # take_away LABEL: the sandboxes that have it; a kubelet that is at it too makes a removal fail
  for container in $(cri ps -q --label "$1" 2>/dev/null); do
    cri stop --timeout 1 "$container" >/dev/null 2>&1 # CRI-O waits for half a minute otherwise
  done
  for attempt in 1 2 3 4 5 6 7 8 9 10; do
    left=$(cri pods -q --label "$1" 2>/dev/null) && [ -z "$left" ] && return
    for pod in $left; do
      cri stopp "$pod" >/dev/null 2>&1
      cri rmp -f "$pod" >/dev/null 2>&1
    done
    sleep 0.2
  done
  left=$(cri pods -q --label "$1")
}
`;

/**
 * One sandbox, one container, and what becomes of it. A kubelet kills sandboxes that it has not made itself, at the next
 * turn of its housekeeping, every two seconds (`HandlePodCleanups`; crictl's documentation warns of it): first what runs in
 * them, by a signal. So an end with 0 or with the number of a signal counts when the sandbox lives on, or when it comes
 * in the quiet time just after such a turn; else it is tried again. What is refused counts the third time, unless it is about
 * the image or the program. Running counts after two seconds, or one, if a kubelet is at work.
 */
const SMOKE = `${FUNCTIONS}
now() { read -r up rest </proc/uptime; printf '%s' "\${up%.*}\${up#*.}"; }
state_of() { sed -n "s/.*\\"state\\": *\\"\\($1_[A-Z]*\\)\\".*/\\1/p" | head -n 1; }
is_ready() { [ "$(cri inspectp -o json "$pod" 2>/dev/null | state_of SANDBOX)" = SANDBOX_READY ]; }
stays_ready() { # for a second: a sandbox that is being killed is ready for a while yet
  looks=0
  while is_ready; do looks=$((looks + 1)); [ $looks -lt 6 ] || return 0; sleep 0.2; done
  return 1
}
is_final() { # is_final SAID: of the image or the program, and not of a sandbox that is being killed
  case $1 in
  *exec:* | *'exec format'* | *'executable file'*) return 0 ;;
  *'no such image'* | *'image not known'* | *image*'not found'* | *'not present locally'*) return 0 ;;
  esac
  again && stays_ready
}
again() { refusals=$((refusals + 1)); [ $refusals -gt 2 ]; } # what is said once or twice may be the kubelet's doing
tell() { section outcome; printf '%s' "$1"; }
directory=/var/log/$NAME # below pods/ there, a kubelet takes away what it does not know
left=
clean() {
  trap - EXIT; trap '' HUP INT TERM PIPE
  take_away "kube-sideload/pod=$NAME"
  as_root rm -rf "$directory"
  section left; printf '%s' "$left"
}
trap clean EXIT; trap 'exit 1' HUP INT TERM PIPE
as_root mkdir -p "$directory"
printf '%s' "$CONTAINER_CONFIG" | as_root tee "$directory/container.json" >/dev/null
no_pull=
case $(cri create --help 2>&1) in *--no-pull*) no_pull=--no-pull ;; esac
begun=$(now) settle=200 attempt=0 quiet=0 refusals=0
while :; do
  attempt=$((attempt + 1)) running= last= status= container=
  printf '%s' "$POD_CONFIG" | sed "s/@ATTEMPT@/$attempt/" | as_root tee "$directory/pod.json" >/dev/null
  said=$(cri runp "$directory/pod.json" 2>&1) || { again || continue; tell sandbox; section said; printf '%s' "$said"; break; }
  pod=$(printf '%s\\n' "$said" | tail -n 1)
  if ! said=$(cri create $no_pull "$pod" "$directory/container.json" "$directory/pod.json" 2>&1); then
    if is_final "$said"; then tell create; section said; printf '%s' "$said"; break; fi
  else
    container=$(printf '%s\\n' "$said" | tail -n 1)
    if ! said=$(cri start "$container" 2>&1); then
      if is_final "$said"; then tell start; section said; printf '%s' "$said"; break; fi
      container=
    fi
    while [ -n "$container" ]; do
      echo # to a runner that has gone, it ends this script
      status=$(cri inspect -o json "$container" 2>/dev/null)
      state=$(printf '%s\\n' "$status" | state_of CONTAINER)
      now=$(now)
      [ -z "$state" ] || seen=$status
      case $state in
      CONTAINER_RUNNING)
        last=$now running=\${running:-$now}
        if [ "$EXPECT" != completed ] && [ $((now - running)) -ge $settle ]; then tell running; break 2; fi ;;
      CONTAINER_EXITED)
        code=$(printf '%s\\n' "$status" | sed -n 's/.*"exitCode": *\\([0-9]*\\).*/\\1/p' | head -n 1)
        case $code in 0|137|143) ;; *) tell exited; break 2 ;; esac
        case $status in *OOMKilled*) tell exited; break 2 ;; esac
        if [ "$now" -lt $quiet ]; then tell exited; break 2; fi
        if stays_ready; then tell exited; break 2; fi
        # Whoever does not heed the first signal is killed a second later.
        quiet=$(($(now) + 100)); [ "$code" != 137 ] || quiet=$(($(now) + 50))
        break ;;
      '') break ;;
      esac
      if [ $((now - begun)) -ge "$LIMIT" ]; then tell timeout; break 2; fi
      sleep 0.2
    done
    if [ "$EXPECT" != completed ] && [ -n "$running" ] && [ $((last - running)) -ge 100 ]; then tell running; break; fi
  fi
  settle=100
  if [ $attempt -ge 8 ] || [ $(($(now) - begun)) -ge "$LIMIT" ]; then tell taken; section said; printf '%s' "$said"; break; fi
done
section attempts; printf '%s' "$attempt"
section status; printf '%s' "$seen"
section log; [ -z "$container" ] || cri logs --tail 20 "$container" 2>&1
trap - EXIT
clean
`;

const REMOVE = `${FUNCTIONS}
left=
take_away "$LABEL"
as_root find /var/log -maxdepth 1 -name "$NAME-*" -exec rm -rf {} +
section left; printf '%s' "$left"
`;

/**
 * Starts every image on one node through its `crictl`, one after the other, and takes it away again, whatever happens.
 * @throws SideloadError CRICTL_NOT_FOUND; REMOTE_COMMAND_FAILED when something cannot be taken away; those of the
 *   connection; the reason of `signal` when it is aborted
 */
export async function runByCri(
  connection: SshConnection,
  facts: NodeFacts,
  targets: readonly SmokeTarget[],
  options: CriOptions,
): Promise<void> {
  assertCrictl(facts);
  try {
    for (const [index, target] of targets.entries()) {
      options.onResult(await runOne(connection, facts, target, index, options));
    }
  } catch (thrown) {
    const remove = (signal: AbortSignal) => removeByCri(connection, facts, options.runId, signal);
    await within(CLEAN_UP_MS, undefined, remove).catch(() => {});
    throw thrown;
  }
}

/** @throws SideloadError CRICTL_NOT_FOUND */
export function assertCrictl({ tools }: NodeFacts): void {
  if (tools.crictl === undefined) {
    throw new SideloadError('CRICTL_NOT_FOUND', '`smoke: cri` starts images with crictl, and the node has none');
  }
}

/** Takes away what a run has started on a node. @throws SideloadError REMOTE_COMMAND_FAILED when something stays */
export async function removeByCri(
  connection: SshConnection,
  facts: NodeFacts,
  runId: string,
  signal: AbortSignal,
): Promise<void> {
  if (facts.tools.crictl !== undefined) {
    const variables = { ...place(facts), LABEL: `${RUN_LABEL}=${runId}`, NAME: podName(runId) };
    assertGone(await runScript(connection, { body: REMOVE, variables }, signal, 'removing smoke containers'));
  }
}

async function runOne(
  connection: SshConnection,
  facts: NodeFacts,
  target: SmokeTarget,
  index: number,
  options: CriOptions,
): Promise<SmokeResult> {
  const startedAt = Date.now();
  const { signal, timeoutMs } = options;
  const script = smokeScript(facts, target, index, options);
  const sections = await runScript(connection, script, signal, `starting ${target.reference}`, timeoutMs + MARGIN_MS);
  assertGone(sections);
  const verdict = judgeCri(sections, target.imageId, options.expect);
  const isAboutName = verdict.state === 'failed' && verdict.code === 'SMOKE_IMAGE_NEVER_PULL';
  const { node, nodeName, reference, spelling, imageId } = target;
  const error =
    verdict.state === 'failed'
      ? diagnose(verdict, {
          node,
          nodeName,
          reference,
          spelling,
          imageId,
          pod: undefined,
          events: [],
          log: (sections.get('outcome') === 'exited' && sections.get('log')) || '',
          object: undefined,
          held: isAboutName ? await namesOnNode(connection, facts, signal).catch(() => []) : [],
          proven: isAboutName ? await options.provenOn(target, undefined).catch(() => undefined) : undefined,
        })
      : undefined;
  return { target, error, message: verdict.message, durationMs: Date.now() - startedAt };
}

function assertGone(sections: Sections): void {
  const left = sections.get('left') ?? '';
  if (left !== '') {
    throw new SideloadError('REMOTE_COMMAND_FAILED', `crictl cannot remove the sandbox ${left}`, {
      hint: `Remove it on the node: \`crictl stopp ${left}; crictl rmp ${left}\`.`,
    });
  }
}

/** The script that starts one image; its answer is for {@link judgeCri}. */
function smokeScript(
  facts: NodeFacts,
  { spelling }: Pick<SmokeTarget, 'spelling'>,
  index: number,
  { runId, timeoutMs, command, expect }: Pick<CriOptions, 'runId' | 'timeoutMs' | 'command' | 'expect'>,
): Script {
  const name = `${podName(runId)}-${index}`;
  const labels = { 'app.kubernetes.io/managed-by': 'kube-sideload', [RUN_LABEL]: runId, 'kube-sideload/pod': name };
  // runtime.v1 PodSandboxConfig; the namespaces as a kubelet asks for them: network and IPC of the pod, PIDs of the container.
  const pod = {
    metadata: { name, namespace: 'kube-sideload', uid: `${name}-@ATTEMPT@`, attempt: 0 },
    labels,
    log_directory: `/var/log/${name}`,
    linux: { security_context: { namespace_options: { network: 0, pid: 1, ipc: 0 } } },
  };
  const container = {
    metadata: { name: CONTAINER, attempt: 0 },
    image: { image: spelling },
    ...(command.length > 0 ? { command } : {}),
    labels,
    log_path: 'smoke.log',
    linux: { security_context: { namespace_options: { network: 0, pid: 1, ipc: 0 } } },
  };
  return {
    body: SMOKE,
    variables: {
      ...place(facts),
      NAME: name,
      POD_CONFIG: JSON.stringify(pod),
      CONTAINER_CONFIG: JSON.stringify(container),
      EXPECT: expect,
      LIMIT: String(Math.ceil(timeoutMs / 10)),
    },
  };
}

/** What the answer to {@link smokeScript} says about the image, in the words of the pods' verdicts. */
export function judgeCri(sections: Sections, imageId: string, expect: SmokeExpect): Verdict {
  const said = clean(sections.get('said') ?? '');
  const outcome = sections.get('outcome') ?? '';
  if (outcome === 'sandbox') {
    return fail(sandboxCode(said), `RunPodSandbox: ${said}`);
  }
  if (outcome === 'create' || outcome === 'start') {
    const isMissing =
      outcome === 'create' && /no such image|image not known|image .*not found|not present locally/i.test(said);
    const call = outcome === 'create' ? 'CreateContainer' : 'StartContainer';
    const isNoName = outcome === 'create' && /short[- ]name/i.test(said);
    const code = isMissing ? 'SMOKE_IMAGE_NEVER_PULL' : isNoName ? 'SMOKE_IMAGE_INSPECT' : startCode(said);
    return fail(code, `${call}: ${said}`);
  }
  const { imageRef, exitCode, reason, message } = statusOf(sections.get('status') ?? '');
  // CRI-O writes image IDs without their algorithm, and may give a repository digest, which says nothing of the config.
  const id = /^(?:docker:\/\/)?(?:sha256:)?([0-9a-f]{64})$/.exec(imageRef)?.[1];
  if (id !== undefined && `sha256:${id}` !== imageId) {
    return fail('SMOKE_OTHER_IMAGE', `the runtime started image sha256:${id}, CI built ${imageId}`);
  }
  if (outcome === 'running' && expect !== 'completed') {
    return { state: 'passed', message: `Running, ${WORD}` };
  }
  if (outcome === 'exited' && exitCode === 0) {
    return expect === 'running'
      ? fail('SMOKE_ENDED', 'ended with exit code 0, and `smoke-expect: running` wants it to go on')
      : { state: 'passed', message: `Completed with exit code 0, ${WORD}` };
  }
  if (outcome === 'exited' && (reason === 'StartError' || reason === 'ContainerCannotRun')) {
    return fail(startCode(message ?? ''), join(reason, message));
  }
  if (outcome === 'exited') {
    return reason === 'OOMKilled'
      ? fail('SMOKE_OOM', join(reason, message))
      : fail('SMOKE_CRASHED', `exit code ${exitCode ?? 'unknown'} (${join(reason, message)})`);
  }
  if (outcome === 'taken') {
    const often = `${sections.get('attempts') ?? 'several'} times`;
    return {
      ...fail(
        'SMOKE_TIMEOUT',
        `the sandbox was taken away ${often} before the container could be judged; crictl said at last: ${said}`,
      ),
      hint: 'A kubelet kills within two seconds what it has not started itself: use `smoke: pod` on nodes of a cluster that can be reached, or `smoke-expect: started`.',
    };
  }
  return fail(
    'SMOKE_TIMEOUT',
    outcome === 'timeout' || outcome === 'running'
      ? 'last seen: Running'
      : `crictl said nothing that can be judged: ${said}`,
  );
}

function statusOf(json: string): {
  readonly imageRef: string;
  readonly exitCode: number | undefined;
  readonly reason: string | undefined;
  readonly message: string | undefined;
} {
  const status = asObject(parseObject(json).status);
  const text = (value: unknown) => (typeof value === 'string' && value !== '' ? value : undefined);
  return {
    imageRef: text(status.imageRef) ?? '',
    exitCode: typeof status.exitCode === 'number' ? status.exitCode : undefined,
    reason: text(status.reason),
    message: text(status.message),
  };
}

/** What the runtime said, out of what crictl logs around it. */
function clean(said: string): string {
  const fatal = /level=fatal msg="((?:[^"\\]|\\.)*)"/.exec(said)?.[1];
  return (
    (fatal ?? said).replaceAll('\\n', ' ').replaceAll('\\"', '"').replaceAll(/\s+/g, ' ').trim() ||
    ERRORS.SMOKE_START.title
  );
}

function place({ tools, criSocket }: NodeFacts): Readonly<Record<string, string>> {
  return { CRICTL: tools.crictl?.join(' ') ?? '', SOCKET: criSocket };
}

function podName(runId: string): string {
  return `kube-sideload-${runId}`;
}

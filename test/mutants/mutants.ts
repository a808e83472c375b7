/** Checks of the source, each turned off by itself: `scripts/mutate.ts` sees whether the tests notice. */
export interface Mutant {
  /** What is missing then. */
  readonly without: string;
  readonly file: string;
  /** In the file exactly once. */
  readonly text: string;
  readonly replacement: string;
  /** Which tests must fail. */
  readonly by: Tests;
}

interface Tests {
  readonly project: 'unit' | 'node' | 'cluster' | 'runtimes' | 'faults';
  readonly file: string;
  /** Of the test, as far as it tells it from others. */
  readonly name: string;
  /** For `runtimes`: the nodes that it needs, as in `LAB_KINDS`. */
  readonly kinds?: string;
}

const unit = (file: string, name: string): Tests => ({ project: 'unit', file: `test/unit/${file}.test.ts`, name });
const cluster = (file: string, name: string): Tests => ({
  project: 'cluster',
  file: `test/cluster/${file}.test.ts`,
  name,
});
const runtimes = (file: string, kinds: string, name: string): Tests => ({
  project: 'runtimes',
  file: `test/runtimes/${file}.test.ts`,
  name,
  kinds,
});

const PINNING = 'containerd,containerd-1.7,containerd-1.6,crio,docker';

/** A row of {@link MUTANTS}: what is missing, where, the text, what stands there instead, and who must notice. */
type Row = readonly [without: string, file: string, text: string, replacement: string, by: Tests];

const ROWS: readonly Row[] = [
  // What others say.
  [
    'tearing old commands apart',
    'src/report/text.ts',
    ".replaceAll(/##(?=\\w*\\[)/g, '## ')",
    '',
    unit('hostile-texts', 'an old command within a line is a text and nothing else in a log of GitHub’s'),
  ],
  [
    'the search for secrets after what is not seen has gone',
    'src/host/secrets.ts',
    'harmless(text),\n      );',
    'text,\n      );',
    unit('hostile-texts', 'secrets are found after what is not seen has gone'),
  ],
  [
    'the record’s own way through it',
    'src/report/report.ts',
    'return WORDED.has(field) ? redact(value) : harmless(value);',
    'return value;',
    unit('report/publish', 'keeps secrets out of outputs and the document'),
  ],
  // The names that pods write.
  [
    'the name that a short one means on CRI-O',
    'src/node/short-names.ts',
    'names.set(meaning.reference, { image, reference: meaning.reference, spelling });',
    '',
    unit('node/short-names', 'are one where a short name means the full one, and a second where it does not'),
  ],
  [
    'CRI-O’s own word on a short name',
    'src/node/short-names.ts',
    'if (answer?.refusal !== undefined) {',
    'if (false) {',
    unit('node/short-names', 'is nothing where CRI-O says so'),
  ],
  // The story.
  [
    'the errors of the preflight',
    'src/sideload.ts',
    'node.error = errorOf(node.findings) ?? node.error;',
    '',
    cluster('plan', 'has all nodes and all reasons at once'),
  ],
  [
    'the end after a stage with an error',
    'src/sideload.ts',
    'if (isChecked && (error !== undefined || nodes.some(node => node.error !== undefined))) {',
    'if (false) {',
    cluster('nodes-from-cluster', 'stop the job, on all nodes, when one is not ready'),
  ],
  [
    'the control plane’s turn after the others',
    'src/sideload.ts',
    'if (nodes.some(node => node.error !== undefined)) {\n            break;',
    'if (false) {\n            break;',
    cluster('gate', 'the control plane gets no image that another node has refused'),
  ],
  [
    'all or none, when a lock is not to be had',
    'src/sideload.ts',
    'if (nodes.some(node => node.error !== undefined)) {\n          return;',
    'if (false) {\n          return;',
    runtimes('lock', 'containerd,crio', 'is waited for as long as the user says'),
  ],
  [
    'the way back when a job has failed',
    'src/sideload.ts',
    'if (hasFailed && settings.atomic && !isSettled && nodes.some(hasMoved)) {',
    'if (false) {',
    runtimes('atomic', 'containerd,crio', 'puts back what every node had when a smoke test fails'),
  ],
  [
    'nodes with an error, when it is decided whether to go back',
    'src/sideload.ts',
    'const hasFailed = error !== undefined || nodes.some(node => node.error !== undefined);',
    'const hasFailed = error !== undefined;',
    runtimes('atomic', 'containerd,crio', 'puts back what every node had when a smoke test fails'),
  ],
  [
    '`atomic: false`',
    'src/sideload.ts',
    'if (hasFailed && settings.atomic && !isSettled && nodes.some(hasMoved)) {',
    'if (hasFailed && !isSettled && nodes.some(hasMoved)) {',
    runtimes('atomic', 'containerd,crio', 'leaves the nodes that are fine as they are'),
  ],
  [
    'the kubelets',
    'src/sideload.ts',
    'await smokeByKubelet(nodes, cluster, settings.smoke, run, host);',
    '',
    runtimes('push', 'containerd,crio,rhcos-layout', 'moves a tag, as a user with sudo'),
  ],
  [
    'the start by the CRI',
    'src/sideload.ts',
    'await smokeByCri(nodes, settings.smoke, run, host);',
    '',
    runtimes('cri', 'containerd,crio', 'fails when the program crashes'),
  ],
  [
    'the question whether a node has the crictl for it',
    'src/sideload.ts',
    'assertCrictl(ready(node).facts);',
    '',
    runtimes('cri', 'containerd,containerd-no-crictl', 'is refused before anything is sent'),
  ],
  [
    'the cluster’s word before anything is sent',
    'src/sideload.ts',
    'await askCluster(cluster, nodes, settings, run, host);',
    '',
    cluster('gate', 'a namespace that is missing'),
  ],
  [
    'nodes that are not listed',
    'src/sideload.ts',
    'cluster: settings.shard === undefined ? cluster?.objects : undefined,',
    'cluster: undefined,',
    cluster('nodes-from-cluster', 'is compared with the cluster'),
  ],
  [
    'what sudo refuses',
    'src/sideload.ts',
    'node.missing = await missingRights(node, extras, run.signal);',
    '',
    runtimes('privileges', 'containerd,crio,docker', 'gets an error for each one that a push needs'),
  ],
  [
    'the locks',
    'src/sideload.ts',
    'await locks.take(settings.lockTimeoutMs);',
    '',
    runtimes('lock', 'containerd,crio', 'take turns on all nodes'),
  ],
  [
    'the question whether the locks have held',
    'src/sideload.ts',
    'await locks.confirm();',
    '',
    runtimes('lock', 'containerd,crio', 'that has run out, and that another job has by the time of the verdict'),
  ],
  [
    'pins',
    'src/sideload.ts',
    'await pinImages(node, run);',
    '',
    runtimes('pin', PINNING, 'are so where the runtime can'),
  ],
  [
    'what is said of nodes without pins',
    'src/sideload.ts',
    'isPinning: settings.pin,',
    'isPinning: false,',
    runtimes('pin', PINNING, 'are so where the runtime can'),
  ],
  [
    'the end of pins after a push that does not pin',
    'src/sideload.ts',
    'const pinned = settings.pin ? [] : nodes.filter(isPinned);',
    'const pinned: readonly Node[] = isPinned === undefined ? nodes : [];',
    runtimes('pin', PINNING, 'are so no longer after a push that does not pin'),
  ],
  [
    'the last look at the nodes',
    'src/sideload.ts',
    "'Look at the nodes a last time': async () => {\n        await look(nodes);",
    "'Look at the nodes a last time': async () => {\n        for (const node of nodes)\n          node.seen = node.images.map(({ reference }) => ({\n            reference,\n            imageId: '',\n            drift: undefined,\n            error: undefined,\n          }));",
    runtimes('proven-last', 'containerd,crio,docker', 'fails when the image is removed before it ends'),
  ],
  [
    'the look after old releases are gone',
    'src/sideload.ts',
    "await look(nodes.filter(({ retention }) => retention?.some(({ fate }) => fate === 'removed')));",
    '',
    runtimes('proven-last', 'containerd,crio,docker', 'fails when the image goes while old releases are removed'),
  ],
  [
    'what nobody puts back, once old releases are gone',
    'src/sideload.ts',
    'isSettled = true;',
    '',
    runtimes('proven-last', 'containerd,crio,docker', 'fails when the image goes while old releases are removed'),
  ],
  [
    'the last look, in what is called a success',
    'src/report/report.ts',
    'error === undefined && isDone && isProven &&',
    'error === undefined && isDone &&',
    unit('report/publish', 'is one that nobody has looked at in the end'),
  ],
  [
    'images that somebody else has put there, when names are put back',
    'src/node/promote.ts',
    'isKept && now !== undefined && now !== own && now !== idOf(before)',
    'isKept && now === undefined && now !== own',
    unit('node/promote', 'is not, when somebody else has given it to another image since'),
  ],
  [
    'the record, when names are put back',
    'src/node/promote.ts',
    'await forgetNoted(node, reference => !(failed.has(reference) || taken.has(reference)), signal);',
    '',
    runtimes('proven-last', 'containerd,crio,docker', 'fails when the image is removed before it ends'),
  ],
  [
    'the machine behind two addresses',
    'src/sideload.ts',
    'for (const [node, fault] of same) node.error ??= fault;',
    '',
    runtimes('proven-last', 'containerd,crio,docker', 'at two addresses is one node'),
  ],
  [
    'the record of what is ours',
    'src/sideload.ts',
    'const refusal = await noteImages(node, run);',
    'const refusal = undefined;',
    runtimes('retention', 'containerd,crio,docker', 'are recorded on the node as they come'),
  ],
  [
    'the comparison of `check`',
    'src/sideload.ts',
    "await checkNode(node, wanted, 'DRIFT', run);",
    '',
    runtimes('check', 'containerd,crio,docker', 'is found and named on each node'),
  ],
  [
    'the post step’s way back',
    'src/sideload.ts',
    'await settleLeft(node, run.id, isSettled, run.signal, host.info);',
    '',
    runtimes('atomic', 'containerd,crio', 'is kept by the post step when the job was killed'),
  ],
  [
    'the post step’s knowledge of the end',
    'src/sideload.ts',
    "const isSettled = host.state('settled') === 'true';",
    'const isSettled = false;',
    runtimes('atomic', 'containerd,crio', 'is not what the post step makes of a job that had come to its end'),
  ],
  [
    'the pins that the post step takes away',
    'src/sideload.ts',
    'if (settings.pin && !isSettled) {',
    'if (false) {',
    runtimes('pin', PINNING, 'also by the post step of a job that was killed'),
  ],
  [
    'the locks that the post step gives up',
    'src/sideload.ts',
    'await releaseLocks(node, run.id, run.signal);\n    if',
    'if',
    runtimes('lock', 'containerd,crio', 'goes with the post step when the job was killed'),
  ],
  [
    'what the post step takes from the nodes',
    'src/sideload.ts',
    'await removeStaged(node, run.id, run.signal);',
    '',
    cluster('cancel', 'killed with one node done and another not'),
  ],
  [
    'what the post step takes from runtimes',
    'src/sideload.ts',
    'await removeByCri(connection, facts, run.id, run.signal);',
    '',
    runtimes('cri', 'containerd,crio', 'is cleaned up by the post step'),
  ],
  [
    'what the post step takes from the cluster',
    'src/sideload.ts',
    'await deletePods(cluster.kubectl, run.id);',
    '',
    cluster('cancel', 'killed with its pods running'),
  ],
  [
    'the end of a cancelled job between stages',
    'src/sideload.ts',
    'run.signal.throwIfAborted();\n      // Until',
    '// Until',
    cluster('cancel', 'leaves nothing behind while connecting'),
  ],
  // The verdicts, and where they are noted.
  [
    'the node’s share in a verdict',
    'src/gate.ts',
    'node.error ??= error;',
    '',
    runtimes('cri', 'containerd,crio', 'fails when the program crashes'),
  ],
  // What is asked of a node, after every command that ended well.
  [
    'the verification after the import',
    'src/node/send.ts',
    'const fault = refusal ?? (await faultAt(node, target, stage, sending.run.signal));',
    'const fault = refusal;',
    runtimes('atomic', 'containerd,crio', 'that it has imported an image'),
  ],
  [
    'the importer’s exit code',
    'src/node/send.ts',
    'return code === 0 ? undefined :',
    'return code >= 0 ? undefined :',
    runtimes('atomic', 'containerd,crio', 'and its refusal is an error'),
  ],
  [
    'the room for an archive',
    'src/node/send.ts',
    'assertRoom(facts, target.reference, { archiveBytes, layersBytes: unpackedBytes([target]) });',
    '',
    runtimes('push', 'containerd,crio,rhcos-layout', 'is sent nothing that /var/tmp has no room for'),
  ],
  [
    'the whole image for a node that has less than it says',
    'src/node/send.ts',
    'if (!isThin || (refusal',
    'if (true || (refusal',
    runtimes('delta', 'containerd', 'gets the whole image after all, once, and the log says so (containerd)'),
  ],
  [
    'the verification after the move',
    'src/node/promote.ts',
    "if (fault !== undefined) {\n        throw new SideloadError('VERIFY_FAILED'",
    "if (false) {\n        throw new SideloadError('VERIFY_FAILED'",
    unit('node/promote', 'afterwards is an error, although every command ended well'),
  ],
  [
    'what is kept before the move',
    'src/node/promote.ts',
    'if (atomic && names !== undefined) {',
    'if (false) {',
    runtimes('atomic', 'containerd,crio', 'puts back what every node had when a smoke test fails'),
  ],
  [
    'images that another job has moved away',
    'src/node/promote.ts',
    'if (node.images.some(isAway)) {',
    'if (false) {',
    runtimes('lock', 'containerd,crio', 'send again what the one had found there'),
  ],
  [
    'locks that another job has by the time of the way back',
    'src/node/promote.ts',
    'const lost = await renewLocks(node, runId, signal);',
    'const lost: Refusal[] = [];',
    runtimes('lock', 'containerd,crio', 'that another job has taken over is not used to put anything back'),
  ],
  [
    'the question whether all is as it was',
    'src/node/promote.ts',
    "if (state !== 'unmarked' && (state === '' || imageId !== held.get(before)?.imageId)) {",
    'if (false) {',
    unit('node/promote', 'is an error of its own when'),
  ],
  [
    'what a killed job has left to the next one',
    'src/locks.ts',
    'await settleOthers(node, taken, run, log);',
    '',
    runtimes('lock', 'containerd,crio', 'runs out, and the next job first puts back'),
  ],
  [
    'the locks that go although nothing else can be done',
    'src/node/steps.ts',
    'await within(LET_GO_MS, undefined, signal => releaseLocks(node, runId, signal)).catch(() => {});',
    'void LET_GO_MS;',
    runtimes('limits', 'containerd,containerd-1.7,crio', 'its locks are let go'),
  ],
  [
    'the end of the wait for a lock',
    'src/locks.ts',
    'throw lockedBy(refusal, `and still does',
    'return; throw lockedBy(refusal, `and still does',
    runtimes('lock', 'containerd,crio', 'is waited for as long as the user says'),
  ],
  [
    'the renewal of locks',
    'src/locks.ts',
    'renewing = Promise.all(nodes().map(node => renewOrNote(node, run.id)));',
    '',
    runtimes('lock', 'containerd,crio', 'is renewed while the job lives'),
  ],
  [
    'respect for a lock',
    'src/node/lock.ts',
    'elif is_over; then',
    'elif true; then',
    unit('node/lock', 'is one run’s until it gives it up'),
  ],
  [
    'the CRI’s word on pins',
    'src/node/pin.ts',
    "=== '') {",
    "=== 'never') {",
    unit('node/pin', 'an image counts as pinned when the CRI says'),
  ],
  [
    'the containers that keep an image',
    'src/node/retention.ts',
    '{ names: used.names, ids: new Set([...used.ids, ...ids]) }',
    '{ names: new Set(), ids: new Set() }',
    runtimes('retention', 'containerd,crio,docker', 'go, and not one in use'),
  ],
  [
    'an answer about containers that did not come',
    'src/runtime/containers.ts',
    'ps -a -o json 2>/dev/null || exit 1',
    'ps -a -o json 2>/dev/null || true',
    runtimes('retention', 'containerd,crio,docker', 'stay when the containers cannot be asked for'),
  ],
  [
    'the dry run',
    'src/node/retention.ts',
    'if (isDryRun) {',
    'if (false) {',
    runtimes('retention', 'containerd,crio,docker', 'are named by a dry run, and stay'),
  ],
  [
    'the look whether what was removed is gone',
    'src/node/retention.ts',
    'if (still.length > 0) {',
    'if (false) {',
    unit('node/retention', 'that are there all the same are an error'),
  ],
  [
    'the record’s word on what is ours',
    'src/node/retention.ts',
    "one.outcome === 'sent' || isRecorded(one)",
    'true || isRecorded(one)',
    unit('node/retention', 'has what was there only when it had put it there'),
  ],
  [
    'what a cancelled job takes from the nodes',
    'src/node/steps.ts',
    'if (node.staged.size > 0 || node.kept.length > 0 || node.lock !== undefined) {',
    'if (false) {',
    runtimes(
      'push',
      'containerd,crio,rhcos-layout',
      'leaves nothing on any runtime when it is cancelled while sending',
    ),
  ],
  [
    'patience with a node that is away when it is put in order',
    'src/node/steps.ts',
    'failures > settings.retries',
    'failures > 0',
    { project: 'faults', file: 'test/faults/faults.test.ts', name: 'the power fails when the image has arrived' },
  ],
  [
    'patience with a runtime that the kubelet has lost',
    'src/smoke/verdict.ts',
    '  if (RUNTIME_AWAY.test(said)) {',
    '  if (RUNTIME_AWAY.test(said) && false) {',
    unit('smoke/verdict', 'a runtime that is away'),
  ],
  // Scripts that run on nodes.
  [
    'patience with a runtime that does not answer',
    'src/runtime/cri.ts',
    'while [ $attempt -lt 40 ] && [ $errors -lt 5 ]; do',
    'while [ $attempt -lt 1 ]; do',
    unit('runtime/answer', 'is the same when the runtime is silent'),
  ],
  [
    'the difference between silence and absence',
    'src/runtime/cri.ts',
    '  give_up $kind "$why"\n}',
    '  said=; return 1\n}',
    unit('runtime/answer', 'is not known'),
  ],
  [
    'the difference between refused access and silence',
    'src/runtime/cri.ts',
    '      *:refused) break ;;\n',
    '',
    unit('runtime/answer', 'is not asked for again by who may not ask'),
  ],
  [
    'the difference between an error and silence',
    'src/runtime/cri.ts',
    '*) errors=$((errors + 1)) ;;',
    '*) kind=silent ;;',
    unit('runtime/answer', 'is not waited for when the runtime answers with an error'),
  ],
  [
    'another attempt at an import that was cut off',
    'src/node/send.ts',
    "  'RUNTIME_LOST',\n",
    '',
    {
      project: 'faults',
      file: 'test/faults/faults.test.ts',
      name: 'the runtime is restarted during an import (containerd)',
    },
  ],
  [
    'the look whether an address is that of the node',
    'src/preflight.ts',
    'differs?.isCertain !== true',
    'true',
    unit('preflight', 'the address of one node with the name of another'),
  ],
  [
    'containerd’s word on unpacked layers',
    'src/runtime/containerd.ts',
    String.raw`section "check $number"; printf '%s\\n' "$said" | sed -n 2p`,
    `section "check $number"; echo ' true'`,
    { project: 'node', file: 'test/node/push.test.ts', name: 'repairs an image whose snapshots are gone' },
  ],
  [
    'the CRI’s word on containerd',
    'src/runtime/containerd.ts',
    '    inspect_by_cri "$number" "$reference"\n',
    '',
    runtimes('atomic', 'containerd,crio', 'when its CRI does not know the image (containerd)'),
  ],
  [
    'the CRI’s word on Docker',
    'src/runtime/docker.ts',
    '    inspect_by_cri "$number" "$reference"\n',
    '',
    runtimes('atomic', 'containerd,docker', 'when its CRI does not know the image (docker)'),
  ],
  [
    'the names that containerd’s CRI gives',
    'src/runtime/forget.ts',
    'for name in $left; do take_name "$name" >&2 || exit 1; done',
    ':',
    runtimes('retention', 'containerd,crio,docker', 'go, and not one in use|leave nothing behind in the runtime'),
  ],
];

export const MUTANTS: readonly Mutant[] = ROWS.map(([without, file, text, replacement, by]) => ({
  without,
  file,
  text,
  replacement,
  by,
}));

import { SideloadError, toSideloadError } from '../errors.ts';
import type { Run } from '../run.ts';
import { CRI, variables } from '../runtime/cri.ts';
import { runtimeOf } from '../runtime/detect.ts';
import { pinFault } from '../runtime/pin.ts';
import { scriptAlone } from './lock.ts';
import { type Node, notingError, ready } from './node.ts';
import { runScript, type Script } from './script.ts';

/** The CRI hears of a pin a moment after the runtime: it is asked for ten seconds. Without crictl nobody can be. */
const ASK = `${CRI}
number=0
for reference in $REFERENCES; do
  section "pinned $number"
  [ -n "$CRICTL" ] || printf unasked
  for late in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
    [ -n "$CRICTL" ] || break
    ask_cri "$reference" && printf '%s' "$said" | grep -q '"pinned": *true' && printf yes && break
    sleep 0.5
  done
  number=$((number + 1))
done`;

/**
 * Pins the images of the run on a node that can, and has the CRI confirm it.
 * @throws SideloadError PIN_FAILED
 */
export async function pinImages(node: Node, run: Run): Promise<void> {
  const { connection, facts } = ready(node);
  const images = node.images.filter(({ isSandbox }) => !isSandbox);
  if (pinFault(facts) !== undefined || images.length === 0) {
    return;
  }
  const references = images.map(({ reference }) => reference);
  node.hasPinned = true;
  await change(node, 'pin $REFERENCES', references, run.id, run.signal).catch((thrown: unknown) => {
    const { code, message, cause } = toSideloadError(thrown);
    throw code === 'REMOTE_COMMAND_FAILED' ? new SideloadError('PIN_FAILED', message, { cause }) : thrown;
  });
  const asked: Script = { body: ASK, variables: variables(facts, references) };
  const sections = await runScript(connection, asked, run.signal, 'reading what is pinned');
  for (const [number, image] of images.entries()) {
    await notingError(node, image, async () => {
      if (sections.get(`pinned ${number}`) === '') {
        throw new SideloadError('PIN_FAILED', `${image.reference}: \`crictl inspecti\` says that it is not pinned`);
      }
    });
  }
}

/** Takes pins away that this tool has set. */
export async function unpinImages(
  node: Node,
  references: readonly string[],
  runId: string,
  signal: AbortSignal,
): Promise<void> {
  if (references.length > 0 && pinFault(ready(node).facts) === undefined) {
    await change(node, 'unpin $REFERENCES', references, runId, signal);
  }
}

/** Takes away the pins that a run has set which came to no good end: what was pinned before it stays so. */
export async function unpinOf(node: Node, ended: string, runId: string, signal: AbortSignal): Promise<void> {
  if (pinFault(ready(node).facts) === undefined) {
    await change(node, `unpin_of ${ended}`, [], runId, signal);
  }
}

async function change(
  node: Node,
  words: string,
  references: readonly string[],
  runId: string,
  signal: AbortSignal,
): Promise<void> {
  const { connection, facts } = ready(node);
  const body = `${runtimeOf(facts.runtime.name).pins() ?? ''}\n${words}`;
  const script = scriptAlone('pins', runId, { body, variables: variables(facts, references) });
  await runScript(connection, script, signal, 'changing pins');
}

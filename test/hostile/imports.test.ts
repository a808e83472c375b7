import { afterEach, expect, inject, it } from 'vitest';
import { smokePods } from '../cluster/kubernetes.ts';
import { build } from '../engines.ts';
import type { LabNode } from '../lab/index.ts';
import { must } from '../node/people.ts';
import { leftOnNode, push, reach } from '../shipped.ts';

const lab = inject('lab');
/** Whose imports have the stage name in their command lines. */
const nodes = lab.nodes.filter(({ runtime }) => runtime !== 'docker');

/** Waits for an import, and takes its stage name into its own command line, for ten minutes. */
const COPYCAT = `for look in $(seq 6000); do
  name=$(cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' '\\n' | grep -om1 'kube-sideload\\.invalid/[0-9a-z]\\+') && break
  sleep 0.01
done
exec sh -c 'sleep 600; :' "$name"
`;
/** Who does that: another user; root of another PID namespace; and root, by a program that is none of ours. */
const COPYCATS = [
  'setpriv --reuid 65534 --regid 65534 --clear-groups sh /run/copycat',
  'unshare --pid --fork sh /run/copycat',
  'sh /run/viewer',
];

async function copy(node: LabNode): Promise<void> {
  const viewer = COPYCAT.replace("exec sh -c 'sleep 600; :'", 'exec tail -f /dev/null --');
  const starts = COPYCATS.map(words => `setsid ${words} >/dev/null 2>&1 </dev/null &`);
  await must(
    node,
    `cat >/run/copycat <<'END'\n${COPYCAT}END\ncat >/run/viewer <<'END'\n${viewer}END\n${starts.join('\n')}`,
  );
}

/** How many of them live, with the name of an import. */
async function living(node: LabNode): Promise<string> {
  return (await must(node, `pgrep -cf '[k]ube-sideload.invalid/' || :`)).trim();
}

afterEach(async () => {
  for (const node of nodes) {
    // Also those that have found no name; in two steps, as a shell that names their files would end itself.
    await must(node, `pkill -KILL -f '/run/[c]opycat|/run/[v]iewer|[k]ube-sideload.invalid/' || :`);
    await must(node, 'rm -f /run/copycat /run/viewer');
  }
  expect(smokePods(lab)).toEqual([]);
  expect(await leftOnNode(lab)).toEqual([]);
});

it('is neither held up nor failed by processes of others that have the name of its import, and ends none of them', async () => {
  for (const node of nodes) await copy(node);
  build(lab, 'docker', 'copied:1', 'copied');
  const inputs = {
    ...reach(
      lab,
      nodes.map(({ address, name }) => `${address}=${name}`),
    ),
    images: 'docker.io/library/copied:1',
  };
  const pushed = await push(inputs, { lab });
  expect(pushed.nodes.map(node => [node.error?.message, node.images.map(({ outcome }) => outcome)])).toEqual(
    nodes.map(() => [undefined, ['sent']]),
  );
  expect(pushed.code).toBe(0);
  for (const node of nodes) expect(await living(node), node.name).toBe(`${COPYCATS.length}`);
});

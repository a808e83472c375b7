import type { NodeFacts } from '../node/facts.ts';
import { runScript } from '../node/script.ts';
import { STAGE_PREFIX } from '../runtime/staging.ts';
import type { SshConnection } from '../ssh/connect.ts';

const LIST = `
section names
if [ -n "$CTR" ]; then
  as_root $CTR --address "$SOCKET" --namespace k8s.io images ls -q 2>/dev/null
elif [ -n "$DOCKER" ]; then
  as_root $DOCKER image ls --format '{{.Repository}}:{{.Tag}}' 2>/dev/null
elif [ -n "$CRICTL" ]; then
  as_root $CRICTL --timeout 5s --runtime-endpoint "unix://$SOCKET" --image-endpoint "unix://$SOCKET" images -o json 2>/dev/null |
    tr ',[]' '\\n\\n\\n' | sed -n 's/^[^"]*"\\([^"]*[:@][^"]*\\)" *$/\\1/p'
fi
`;

/** The names under which a node has images: for explanations, and never a proof. */
export async function namesOnNode(
  connection: SshConnection,
  { tools, criSocket }: NodeFacts,
  signal: AbortSignal,
): Promise<readonly string[]> {
  const command = (name: keyof NodeFacts['tools']) => tools[name]?.join(' ') ?? '';
  const variables = {
    CRICTL: command('crictl'),
    CTR: command('ctr'),
    DOCKER: command('docker'),
    SOCKET: criSocket,
  };
  const sections = await runScript(connection, { body: LIST, variables }, signal, 'reading which names it has');
  return (sections.get('names') ?? '')
    .split('\n')
    .filter(name => /[^:@]+[:@]/.test(name) && !name.startsWith('sha256:') && !name.startsWith(STAGE_PREFIX));
}

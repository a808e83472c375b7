/** A registry on a node, for the way that pushes there through an SSH tunnel. */
import { copyFile, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { join } from 'node:path';
import type { LabNode } from '../test/lab/index.ts';
import { enterMust } from '../test/lab/machine.ts';
import { ensureProgram } from '../test/lab/programs.ts';
import { startService } from '../test/lab/services.ts';

/** Where it listens on the node. */
export const REGISTRY_PORT = 5000;
const STORE = '/var/lib/registry';

/** Starts the registry of the distribution project on a node. It stays up: its start counts for no measurement. */
export async function raiseRegistry(node: LabNode, log: (line: string) => void): Promise<void> {
  const program = (await ensureProgram('registry', log)).get('registry') ?? '';
  const configuration = [
    'version: 0.1',
    'log: { level: error, accesslog: { disabled: true } }',
    `storage: { filesystem: { rootdirectory: ${STORE} } }`,
    `http: { addr: ':${REGISTRY_PORT}' }`,
    '',
  ];
  await copyFile(program, join(node.root, 'usr/local/bin/registry'));
  await writeFile(join(node.root, 'etc/registry.yaml'), configuration.join('\n'));
  await startService(node, {
    name: 'registry',
    argv: ['/usr/local/bin/registry', 'serve', '/etc/registry.yaml'],
    listen: { address: node.address, port: REGISTRY_PORT },
  });
}

/** Makes it forget everything. It keeps nothing in memory. */
export async function emptyRegistry(node: LabNode): Promise<void> {
  await enterMust(node, ['rm', '-rf', STORE]);
}

/** A port of this machine that nobody listens on. Docker remembers pushes by it, so one serves a whole run. */
export function freePort(): Promise<number> {
  return new Promise((resolve, reject) => {
    const server = createServer().once('error', reject);
    server.listen(0, '127.0.0.1', () => {
      const address = server.address();
      server.close(() => resolve(typeof address === 'object' && address !== null ? address.port : 0));
    });
  });
}

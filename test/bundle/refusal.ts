import { createServer } from 'node:net';
import { join } from 'node:path';
import { expect } from 'vitest';
import type { ErrorCode } from '../../src/errors.ts';
import { EXIT, type ExitCode } from '../../src/host/host.ts';
import type { Inputs, Outcome } from '../shipped.ts';
import { KEYS } from '../ssh/server.ts';
import { dockerArchive, sampleImage, sampleLayer, writeTar } from '../unit/image/archives.ts';

/**
 * What every failed run owes its user: an exit code, the code of the error, what to do next, no stack trace, and nothing
 * left on the machine.
 */
export function expectRefusal(
  outcome: Outcome,
  code: ErrorCode,
  message: RegExp,
  exitCode: ExitCode = EXIT.failed,
): void {
  expect(outcome.log).toMatch(message);
  expect(outcome.log).toContain(`[${code}]`);
  expect(outcome.log).toMatch(/Next step: \S.*\S \[/);
  expect(outcome.log).not.toMatch(/^\s+at .+:\d+:\d+/m);
  expect(outcome.log).not.toContain('[INTERNAL]');
  expect(outcome).toMatchObject({ code: exitCode, signal: null, leftOnRunner: [] });
}

/** A port of this machine on which nobody listens. */
export async function closedPort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1');
  await new Promise(resolve => server.once('listening', resolve));
  const address = server.address();
  await new Promise(resolve => server.close(resolve));
  return typeof address === 'object' && address !== null ? address.port : 0;
}

/** Inputs with an image that can be read, and a node that cannot be reached; the image lies in the directory. */
export async function unreachable(directory: string): Promise<Inputs> {
  const port = await closedPort();
  const archive = dockerArchive([[['app:1'], sampleImage([await sampleLayer('etc/one')])]], 'docker');
  return {
    archive: await writeTar(join(directory, 'app.tar'), archive),
    nodes: `127.0.0.1:${port}=w1`,
    'ssh-private-key': KEYS.user.privateKey,
    'ssh-known-hosts': `[127.0.0.1]:${port} ${KEYS.ed25519.publicKey}`,
    smoke: 'none',
  };
}

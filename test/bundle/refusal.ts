import { createServer } from 'node:net';
import { expect } from 'vitest';
import type { ErrorCode } from '../../src/errors.ts';
import { EXIT, type ExitCode } from '../../src/host/host.ts';
import type { Outcome } from '../shipped.ts';

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

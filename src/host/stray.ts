import { format } from 'node:util';
import { ERRORS, toSideloadError } from '../errors.ts';
import { describe } from '../report/publish.ts';
import { EXIT, type Host } from './host.ts';

/**
 * Sends through the host what would reach people past it: what libraries print, warnings of Node and of libraries, and what
 * nobody has caught, which ends the process as Node does. All of them may quote a node, or have a secret in them.
 */
export function catchStray(host: Host): void {
  for (const method of ['log', 'info', 'debug', 'warn', 'error', 'trace'] as const) {
    console[method] = (...values: readonly unknown[]) => host.info(format(...values));
  }
  process.removeAllListeners('warning');
  process.on('warning', ({ name, message }) => host.info(`${name}: ${message}`));
  process.on('uncaughtException', thrown => {
    const error = toSideloadError(thrown);
    host.error(describe(error), ERRORS[error.code].title);
    host.info(String(thrown instanceof Error ? thrown.stack : thrown));
    process.exit(EXIT.failed);
  });
}

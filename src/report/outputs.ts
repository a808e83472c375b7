import type { OutputName } from '../host/host.ts';
import { bytesSent, driftOf, heldOf, type Report } from './report.ts';
import { jsonWithin } from './room.ts';

/** Together with the others well below what a job on GitHub may have, 1 MB of UTF-16. */
const MAX_CHARACTERS = { nodes: 300_000, drift: 150_000 };

/**
 * What each output says of a run, in every mode and however it ended; the README has the same as a table. An output is what
 * is so at the end, never what was asked for. One that is absent is not set: for CI systems it is empty.
 */
export function outputsOf(report: Report): Readonly<Partial<Record<OutputName, string>>> {
  const held = heldOf(report);
  return {
    images: Object.keys(held).join('\n'),
    'image-ids': JSON.stringify(held),
    nodes: jsonWithin(report.nodes, MAX_CHARACTERS.nodes),
    'bytes-sent': String(bytesSent(report)),
    changed: String(report.changed),
    ...(report.bundle !== undefined && { bundle: report.bundle.path }),
    ...(report.mode === 'check' && { drift: jsonWithin(driftOf(report), MAX_CHARACTERS.drift) }),
  };
}

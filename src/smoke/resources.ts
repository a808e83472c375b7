import { SideloadError } from '../errors.ts';
import type { Quantities } from './pod.ts';

const DEFAULT_REQUESTS: Quantities = { cpu: '10m', memory: '16Mi' };

/**
 * Reads `cpu=10m`, `limits.memory=256Mi` and the like. A request that is not given is small.
 * @throws SideloadError INPUT_INVALID, naming every item that is none
 */
export function parseResources(items: readonly string[]): {
  readonly requests: Quantities;
  readonly limits: Quantities;
} {
  const requests: Record<string, string> = {};
  const limits: Record<string, string> = {};
  const faults: string[] = [];
  for (const item of items) {
    // Kubernetes: apimachinery/pkg/api/resource, Quantity
    const match =
      /^(?:(limits|requests)\.)?(cpu|memory|ephemeral-storage)=(\d+(?:\.\d+)?(?:m|[kMGTPE]|[KMGTPE]i)?)$/.exec(item);
    const [, which = 'requests', name = '', quantity = ''] = match ?? [];
    if (match === null) {
      faults.push(JSON.stringify(item));
    } else if (which === 'limits') {
      limits[name] = quantity;
    } else {
      requests[name] = quantity;
    }
  }
  if (faults.length > 0) {
    throw new SideloadError('INPUT_INVALID', `\`smoke-resources\` has ${faults.join(', ')}`, {
      hint: 'write `cpu`, `memory` or `ephemeral-storage`, with `limits.` in front for a limit, as in `cpu=50m,limits.memory=256Mi`',
    });
  }
  return { requests: { ...DEFAULT_REQUESTS, ...requests }, limits };
}

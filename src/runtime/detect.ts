import type { RuntimeName } from '../node/facts.ts';
import { containerd } from './containerd.ts';
import type { Runtime } from './runtime.ts';

/** A runtime is a row here and a file of its own. */
const RUNTIMES: Readonly<Record<RuntimeName, Runtime>> = { containerd };

export function runtimeOf(name: RuntimeName): Runtime {
  return RUNTIMES[name];
}

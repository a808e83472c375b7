import type { RuntimeName } from '../node/facts.ts';
import { containerd } from './containerd.ts';
import { crio } from './crio.ts';
import { docker } from './docker.ts';
import type { Runtime } from './runtime.ts';

/** A runtime is a row here and a file of its own. */
const RUNTIMES: Readonly<Record<RuntimeName, Runtime>> = { containerd, 'cri-o': crio, docker };

export function runtimeOf(name: RuntimeName): Runtime {
  return RUNTIMES[name];
}

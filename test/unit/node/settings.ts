import type { NodeSettings } from '../../../src/settings.ts';

/** A node of the list, as the settings have it when nothing is said but its name. */
export function nodeSettings(label: string, changes: Partial<NodeSettings> = {}): NodeSettings {
  return {
    label,
    host: label,
    port: 22,
    user: 'root',
    jump: [],
    sudo: 'auto',
    kubernetesName: undefined,
    criSocket: undefined,
    ...changes,
  };
}

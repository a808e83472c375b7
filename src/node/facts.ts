import { SideloadError } from '../errors.ts';
import { fromUname, type Platform } from '../image/platform.ts';
import type { Sections } from './script.ts';

/** What a node said of itself, in one round trip. */
export interface NodeFacts {
  readonly platform: Platform;
  /** The name that the node's kubelet registers: `--hostname-override`, else the host name in lower case. */
  readonly kubernetesName: string;
  readonly privilege: 'root' | 'sudo';
  /** Absolute path of the socket behind which the kubelet's runtime listens, and who named it. */
  readonly criSocket: string;
  readonly criSocketOrigin: CriSocketOrigin;
  readonly runtime: { readonly name: RuntimeName; readonly version: string };
  /** Absolute paths of the runtime's client programs on the node. */
  readonly ctr: string | undefined;
  readonly crictl: string | undefined;
  /** Flags that this `ctr images import` knows, by its own help. */
  readonly importFlags: ReadonlySet<string>;
  /** The snapshotter of the CRI plugin, when it is not `overlayfs`. */
  readonly snapshotter: string | undefined;
  /** References under which runs have staged images and not yet removed them. */
  readonly staged: readonly string[];
  /** The disk on which the runtime keeps images. */
  readonly disk: { readonly path: string; readonly freeBytes: number };
}

export type CriSocketOrigin = 'input' | 'kubelet command line' | 'kubelet config file' | 'well-known socket';
export type RuntimeName = 'containerd';

/**
 * Turns the sections of the probe script into facts.
 * @throws SideloadError SUDO_REFUSED, RUNTIME_NOT_FOUND, RUNTIME_NOT_RUNNING, RUNTIME_UNSUPPORTED or PROBE_FAILED.
 */
export function parseFacts(sections: Sections, label: string): NodeFacts {
  const fail = (code: ConstructorParameters<typeof SideloadError>[0], message: string, hint?: string) =>
    new SideloadError(code, message, { node: label, hint });
  const text = (name: string) => sections.get(name) ?? '';

  const refusal = sections.get('sudo-refused');
  if (refusal !== undefined) {
    throw fail('SUDO_REFUSED', `\`sudo -n\` refused: ${refusal || 'without a word'}`);
  }
  const platform = fromUname(text('machine'));
  if (platform === undefined) {
    throw fail('PROBE_FAILED', `unknown machine ${JSON.stringify(text('machine'))} (uname -m)`);
  }
  const criSocket = text('socket');
  if (criSocket === '') {
    throw fail('RUNTIME_NOT_FOUND', `no kubelet runs, and none of the well-known CRI sockets exists`);
  }
  const origin = text('socket-origin') as CriSocketOrigin;
  if (text('socket-state') !== 'present') {
    throw fail('RUNTIME_NOT_RUNNING', `the CRI socket ${criSocket} (from: ${origin}) does not exist`);
  }
  const ctr = text('ctr') || undefined;
  const crictl = text('crictl') || undefined;
  if (ctr === undefined && crictl === undefined) {
    throw fail('RUNTIME_NOT_FOUND', `neither ctr nor crictl is installed on the node; the socket is ${criSocket}`);
  }
  const criName = /^RuntimeName: *(\S+)/m.exec(text('cri-version'))?.[1];
  const version = serverVersion(text('ctr-version')) ?? /^RuntimeVersion: *(\S+)/m.exec(text('cri-version'))?.[1];
  if (criName !== undefined && criName !== 'containerd') {
    throw fail('RUNTIME_UNSUPPORTED', `the runtime behind ${criSocket} is ${criName}`);
  }
  if (version === undefined) {
    const said = text('ctr-version') || text('cri-version');
    throw fail(
      'RUNTIME_NOT_RUNNING',
      `the runtime behind ${criSocket} does not answer${said === '' ? '' : `: ${said}`}`,
    );
  }
  if (ctr === undefined) {
    throw fail('RUNTIME_NOT_FOUND', `containerd runs, but its client \`ctr\` is not installed on the node`);
  }
  // POSIX df -P: file system, 1024-blocks, used, available, capacity, mount point.
  const [, freeKib, mountPoint] = /\s\d+\s+\d+\s+(\d+)\s+\d+%\s+(\S.*)$/.exec(text('disk')) ?? [];
  if (freeKib === undefined || mountPoint === undefined) {
    throw fail('PROBE_FAILED', `cannot tell the free disk space: ${text('disk')}`);
  }
  return {
    platform,
    kubernetesName: text('kubernetes-name'),
    privilege: text('uid') === '0' ? 'root' : 'sudo',
    criSocket,
    criSocketOrigin: origin,
    runtime: { name: 'containerd', version },
    ctr,
    crictl,
    importFlags: new Set(text('import-help').match(/--[a-z][a-z-]+/g) ?? []),
    snapshotter: text('snapshotter') || undefined,
    staged: text('staged')
      .split(/\s+/)
      .filter(reference => reference !== ''),
    disk: { path: mountPoint, freeBytes: Number(freeKib) * 1024 },
  };
}

/** `ctr version` prints the client first; only the version under `Server:` proves that the daemon answered. */
function serverVersion(text: string): string | undefined {
  return /^Server:\s*\n\s*Version:\s*(\S+)/m.exec(text)?.[1];
}

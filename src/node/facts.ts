import { type ErrorCode, SideloadError } from '../errors.ts';
import { fromUname, type Platform } from '../image/platform.ts';
import { type KubeletFacts, parseKubelet } from './kubelet.ts';
import { sudoHint } from './root.ts';
import type { Sections } from './script.ts';

/** What a machine says of itself, whatever its runtime does. */
export interface MachineFacts {
  readonly platform: Platform;
  /** The name that the node's kubelet registers: `--hostname-override`, else the host name in lower case. */
  readonly kubernetesName: string;
  /** Whether commands run as root, become root's one by one, or do without (`none`). */
  readonly privilege: 'root' | 'sudo' | 'doas' | 'none';
  readonly kubelet: KubeletFacts;
}

/** What a node said of itself, in one round trip. */
export interface NodeFacts extends MachineFacts {
  /** By the layout of sockets and programs; `unknown` for one that is not in `distributions.ts`. */
  readonly distribution: string;
  /** Absolute path of the socket behind which the kubelet's runtime listens, and who named it. */
  readonly criSocket: string;
  readonly criSocketOrigin: CriSocketOrigin;
  readonly runtime: { readonly name: RuntimeName; readonly version: string };
  /** Client programs on the node: an absolute path, and the words that a multi-call binary wants after it. */
  readonly tools: Readonly<Partial<Record<ToolName, readonly string[]>>>;
  /** Flags that this `ctr images import` knows, by its own help. */
  readonly importFlags: ReadonlySet<string>;
  /** The snapshotter of containerd's CRI plugin; `undefined` when it could not be found out. */
  readonly snapshotter: string | undefined;
  /** References under which runs have staged images and not yet removed them. */
  readonly staged: readonly string[];
  /** The disk on which the runtime keeps images. */
  readonly disk: { readonly path: string; readonly sizeBytes: number; readonly freeBytes: number };
  /** The image that every pod's sandbox is made of, and whether the CRI has it; `undefined` when that is not known. */
  readonly sandbox: { readonly reference: string; readonly isHeld: boolean } | undefined;
}

export type CriSocketOrigin = 'input' | 'kubelet command line' | 'kubelet config file' | 'well-known socket';
const RUNTIME_NAMES = ['containerd', 'cri-o', 'docker'] as const;
export type RuntimeName = (typeof RUNTIME_NAMES)[number];
const TOOL_NAMES = ['ctr', 'crictl', 'skopeo', 'podman', 'docker'] as const;
type ToolName = (typeof TOOL_NAMES)[number];

/** What each runtime is spoken to with: one of these must be on the node. */
const CLIENTS: Readonly<Record<RuntimeName, readonly ToolName[]>> = {
  containerd: ['ctr'],
  'cri-o': ['skopeo', 'podman'],
  docker: ['docker'],
};

const PRIVILEGES: Readonly<Record<string, MachineFacts['privilege']>> = { 'sudo -n': 'sudo', 'doas -n': 'doas' };

/**
 * What the sections of the probe script say about the machine.
 * @throws SideloadError SUDO_REFUSED or PROBE_FAILED
 */
export function parseMachine(sections: Sections, label: string): MachineFacts {
  const fail = (code: ErrorCode, message: string) => new SideloadError(code, message, { node: label });
  const text = (name: string) => sections.get(name) ?? '';
  const refusal = sections.get('sudo-refused');
  if (refusal !== undefined) {
    const message = `\`${text('as-root')}\` refused: ${refusal || 'without a word'}`;
    throw new SideloadError('SUDO_REFUSED', message, { node: label, hint: sudoHint(refusal) });
  }
  const platform = fromUname(text('machine'));
  if (platform === undefined) {
    throw fail('PROBE_FAILED', `unknown machine ${JSON.stringify(text('machine'))} (uname -m)`);
  }
  return {
    platform,
    kubernetesName: text('kubernetes-name'),
    privilege: text('uid') === '0' ? 'root' : (PRIVILEGES[text('as-root')] ?? 'none'),
    kubelet: parseKubelet(text('kubelet-configuration'), text('kubelet-gc-threshold')),
  };
}

/**
 * Turns the sections of the probe script into facts.
 * @throws SideloadError RUNTIME_NOT_FOUND, RUNTIME_NOT_RUNNING, RUNTIME_UNSUPPORTED, PROBE_FAILED, and those of
 * {@link parseMachine}
 */
export function parseFacts(sections: Sections, label: string): NodeFacts {
  const fail = (code: ErrorCode, message: string) => new SideloadError(code, message, { node: label });
  const text = (name: string) => sections.get(name) ?? '';
  const machine = parseMachine(sections, label);
  const criSocket = text('socket');
  if (criSocket === '') {
    throw fail('RUNTIME_NOT_FOUND', 'no kubelet runs, and none of the well-known CRI sockets exists');
  }
  const origin = text('socket-origin') as CriSocketOrigin;
  if (text('socket-state') !== 'present') {
    throw fail('RUNTIME_NOT_RUNNING', `the CRI socket ${criSocket} (from: ${origin}) does not exist`);
  }
  const tools = Object.fromEntries(
    TOOL_NAMES.flatMap(name => (text(name) === '' ? [] : [[name, text(name).split(' ')] as const])),
  );
  const criName = /^RuntimeName: *(\S+)/m.exec(text('cri-version'))?.[1];
  const runtime = RUNTIME_NAMES.find(name => name === (criName ?? text('runtime')));
  if (runtime === undefined && criName !== undefined) {
    throw fail('RUNTIME_UNSUPPORTED', `the runtime behind ${criSocket} is ${criName}`);
  }
  if (runtime === undefined && Object.keys(tools).length === 0) {
    throw fail('RUNTIME_NOT_FOUND', `the node has no client program for the runtime behind ${criSocket}`);
  }
  const version = serverVersion(text('client-version')) ?? /^RuntimeVersion: *(\S+)/m.exec(text('cri-version'))?.[1];
  if (runtime === undefined || version === undefined) {
    const said = text('client-version') || text('cri-version');
    throw fail(
      'RUNTIME_NOT_RUNNING',
      `the runtime behind ${criSocket} does not answer${said === '' ? '' : `: ${said}`}`,
    );
  }
  const clients = CLIENTS[runtime];
  if (!clients.some(client => tools[client] !== undefined)) {
    throw fail('RUNTIME_NOT_FOUND', `${runtime} runs, but ${clients.join(' or ')} is not installed on the node`);
  }
  // POSIX df -P: file system, 1024-blocks, used, available, capacity, mount point.
  const [, sizeKib, freeKib, mountPoint] = /\s(\d+)\s+\d+\s+(\d+)\s+\d+%\s+(\S.*)$/.exec(text('disk')) ?? [];
  if (sizeKib === undefined || freeKib === undefined || mountPoint === undefined) {
    throw fail('PROBE_FAILED', `cannot tell the free disk space: ${text('disk')}`);
  }
  return {
    ...machine,
    distribution: text('distribution') || 'unknown',
    criSocket,
    criSocketOrigin: origin,
    runtime: { name: runtime, version },
    tools,
    importFlags: new Set(text('import-help').match(/--[a-z][a-z-]+/g) ?? []),
    snapshotter: text('snapshotter') || undefined,
    staged: `${text('staged')}\n${text('staged-imports')}`.split(/\s+/).filter(reference => reference !== ''),
    disk: { path: mountPoint, sizeBytes: Number(sizeKib) * 1024, freeBytes: Number(freeKib) * 1024 },
    sandbox: sandboxOf(text('sandbox-image'), text('sandbox-state')),
  };
}

/** crictl says `no such image`; anything else that went wrong says nothing about the image. */
function sandboxOf(reference: string, state: string): NodeFacts['sandbox'] {
  const isHeld = state === 'held';
  return reference === '' || !(isHeld || /no such image|not found/i.test(state)) ? undefined : { reference, isHeld };
}

/** `ctr version` and `docker version` print the client first; what stands under `Server:` proves that a daemon answered. */
function serverVersion(text: string): string | undefined {
  return /^Server:[\s\S]*?^\s*Version:\s*(\S+)/m.exec(text)?.[1];
}

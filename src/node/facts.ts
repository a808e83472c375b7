import { type ErrorCode, SideloadError } from '../errors.ts';
import { fromUname, type Platform } from '../image/platform.ts';
import { faultOf, kindOf } from '../runtime/fault.ts';
import { DISTRIBUTIONS } from './distributions.ts';
import { checked, type Grammar, isA } from './grammar.ts';
import { type KubeletFacts, parseKubelet } from './kubelet.ts';
import { parseAddresses } from './other-machine.ts';
import { rootHint } from './root.ts';
import { SEARCH_PATH, type Sections } from './script.ts';
import { type Disk, parseDisk } from './space.ts';

/** What a machine says of itself, whatever its runtime does. */
export interface MachineFacts {
  readonly platform: Platform;
  /**
   * The name that the node's kubelet registers: `--hostname-override`, else the host name, in lower case; `undefined` when
   * that is no name that a node can have.
   */
  readonly kubernetesName: string | undefined;
  /** `/etc/machine-id`; `undefined` where the machine has none. */
  readonly machineId: string | undefined;
  /** IP addresses that the machine has. */
  readonly addresses: readonly string[];
  /**
   * The same for whatever is reached at several addresses, by several users: this boot of this kernel, and the processes that
   * are seen there. `undefined` where the machine does not tell.
   */
  readonly identity: string | undefined;
  /**
   * Whether commands run as root, become root's one by one, or do without (`none`); `user` where sudo allows `podman load`
   * and `podman image inspect`, and not everything else.
   */
  readonly privilege: 'root' | 'sudo' | 'doas' | 'none' | 'user';
  readonly kubelet: KubeletFacts;
  /** Whether sudo lets the user run some commands as root, and not all. */
  readonly isNarrow: boolean;
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
  /** Words in front of a command that shall leave disk and processor to others; empty where the node has no such programs. */
  readonly politeness: readonly string[];
  /** Flags that this `ctr images import` knows, by its own help. */
  readonly importFlags: ReadonlySet<string>;
  /** The snapshotter of containerd's CRI plugin; `undefined` when it could not be found out. */
  readonly snapshotter: string | undefined;
  /** Changes when the runtime is started anew; empty when that cannot be seen. */
  readonly instance: string;
  /** References under which runs have staged images and not yet removed them. */
  readonly staged: readonly string[];
  /** Image IDs that containerd had for names when it was first asked, as its CRI makes them (`sha256:…`). */
  readonly imageIds: readonly string[];
  /** Leases of containerd that imports have written down, and that may be left (`leases.ts`). */
  readonly leases: readonly string[];
  /** Where the runtime keeps images, by the CRI's own word (`imagefsinfo`), else its default. Absolute path. */
  readonly imageRoot: string;
  /** The disk on which that is. */
  readonly disk: Disk;
  /** The disk on which an archive lies while it is imported; `undefined` for a runtime that reads a stream. */
  readonly workDisk: Disk | undefined;
  /** The image that every pod's sandbox is made of, and whether the CRI has it; `undefined` when that is not known. */
  readonly sandbox: { readonly reference: string; readonly isHeld: boolean } | undefined;
}

const ORIGINS = [
  'input',
  'kubelet command line',
  'kubelet config file',
  'kubelet settings of the distribution',
  'well-known socket',
] as const;
export type CriSocketOrigin = (typeof ORIGINS)[number];
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

/** Of programs that a node has or has not. */
const POLITENESS = [
  ['nice', '-n', '10'],
  ['ionice', '-c', '2', '-n', '7'],
] as const;

const PRIVILEGES: Readonly<Record<string, MachineFacts['privilege']>> = { 'sudo -n': 'sudo', 'doas -n': 'doas' };

/**
 * The boot ID and the PID namespace, with the host name for machines that were copied while they ran. A machine ID would
 * not do: whoever copies a disk copies it, too. On nodes that share a kernel (kind, the lab) the boot ID alone would not.
 */
const IDENTITY = /^[0-9a-f-]{36}\npid:\[\d+\]\n\S+$/;

/**
 * What the sections of the probe script say about the machine.
 * @throws SideloadError SUDO_REFUSED or PROBE_FAILED
 */
export function parseMachine(sections: Sections, label: string): MachineFacts {
  const fail = (code: ErrorCode, message: string) => new SideloadError(code, message, { node: label });
  const text = (name: string) => sections.get(name) ?? '';
  const refusal = sections.get('sudo-refused');
  const allowed = text('sudo-allows').split(/\s+/);
  const mayLoad = allowed.includes('load') && allowed.includes('inspect');
  if (refusal !== undefined && !mayLoad) {
    const message = refusalText(text('as-root'), refusal, allowed);
    throw new SideloadError('SUDO_REFUSED', message, { node: label, hint: rootHint(text('as-root'), refusal) });
  }
  const platform = fromUname(text('machine'));
  if (platform === undefined) {
    throw fail('PROBE_FAILED', `unknown machine ${JSON.stringify(text('machine'))} (uname -m)`);
  }
  // The kubelet writes it in lower case, whatever it is given (component-helpers: node/util.GetHostname).
  const name = text('kubernetes-name').toLowerCase();
  return {
    platform,
    kubernetesName: isA('node name', name) ? name : undefined,
    identity: IDENTITY.test(text('identity').trim()) ? text('identity').trim() : undefined,
    machineId: /^[0-9a-f]{32}$/.exec(text('machine-id'))?.[0],
    addresses: parseAddresses(text('addresses')),
    privilege: refusal !== undefined ? 'user' : text('uid') === '0' ? 'root' : (PRIVILEGES[text('as-root')] ?? 'none'),
    kubelet: parseKubelet(text('kubelet-configuration'), text('kubelet-gc-threshold')),
    isNarrow: text('narrow') === 'yes' && refusal === undefined,
  };
}

function refusalText(command: string, refusal: string, allowed: readonly string[] = []): string {
  const said = `\`${command}\` refused: ${refusal || 'without a word'}`;
  return allowed.includes('load')
    ? `${said}\nit allows \`podman load\`, but not \`podman image inspect\`, and nobody could say what the node has`
    : said;
}

/**
 * Turns the sections of the probe script into facts.
 * @throws SideloadError SUDO_RIGHT_MISSING, RUNTIME_AMBIGUOUS, RUNTIME_NOT_FOUND, RUNTIME_NOT_RUNNING, RUNTIME_REFUSED, RUNTIME_ERROR,
 * RUNTIME_UNSUPPORTED, PROBE_FAILED, and those of {@link parseMachine}
 */
export function parseFacts(sections: Sections, label: string): NodeFacts {
  const fail = (code: ErrorCode, message: string) => new SideloadError(code, message, { node: label });
  const text = (name: string) => sections.get(name) ?? '';
  const machine = parseMachine(sections, label);
  const check = (grammar: Grammar, value: string, what: string) => checked(grammar, value, what, label);
  const criSocket = text('socket') && check('path', text('socket'), 'the CRI socket');
  const unread = lines(text('kubelet-unread'))
    .map(path => (isA('path', path) ? path : JSON.stringify(path.slice(0, 100))))
    .join(', ');
  if (machine.isNarrow && unread !== '') {
    throw fail('SUDO_RIGHT_MISSING', `sudo does not let the user read how the kubelet is configured: ${unread}`);
  }
  const candidates = lines(text('candidates'));
  if (candidates.length > 0) {
    throw fail('RUNTIME_AMBIGUOUS', ambiguity(candidates));
  }
  if (text('socket-refused') === 'yes') {
    throw fail('SUDO_RIGHT_MISSING', `sudo does not let the user look for the runtime: \`test -S ${criSocket}\``);
  }
  if (text('hidden') !== '') {
    const what = criSocket === '' ? 'a runtime’s socket' : criSocket;
    throw fail('RUNTIME_REFUSED', `${text('user')} may not look for ${what}: ${text('hidden')} is closed to it`);
  }
  if (criSocket === '') {
    throw fail(
      'RUNTIME_NOT_FOUND',
      `no kubelet runs, and none of the well-known CRI sockets exists${ignored(text('kubelets-ignored'))}`,
    );
  }
  const origin = ORIGINS.find(one => one === text('socket-origin'));
  if (origin === undefined) {
    throw fail('PROBE_FAILED', 'the node does not say where it has the CRI socket from');
  }
  if (text('socket-state') !== 'present') {
    throw fail('RUNTIME_NOT_RUNNING', `the CRI socket ${criSocket} (from: ${origin}) does not exist`);
  }
  const tools = Object.fromEntries(
    TOOL_NAMES.flatMap(name => {
      const [program = '', ...words] = text(name).split(' ');
      const whats = `the program ${name} of the node`;
      return program === ''
        ? []
        : [[name, [check('path', program, whats), ...words.map(word => check('word', word, whats))]] as const];
    }),
  );
  const criName = /^RuntimeName: *([\w.-]{1,64})$/m.exec(text('cri-version'))?.[1];
  const runtime = RUNTIME_NAMES.find(name => name === (criName ?? text('runtime')));
  if (runtime === undefined && criName !== undefined) {
    throw fail('RUNTIME_UNSUPPORTED', `the runtime behind ${criSocket} is ${criName}`);
  }
  if (runtime === undefined && Object.keys(tools).length === 0) {
    throw new SideloadError('RUNTIME_NOT_FOUND', `the node has no client program for the runtime behind ${criSocket}`, {
      node: label,
      hint: `Install what the runtime is spoken to with, in a directory of ${SEARCH_PATH}: ctr, skopeo or podman (and crictl), or docker.`,
    });
  }
  const refusal = [text('client-version'), text('cri-version')].find(said => kindOf(said) === 'refused');
  if (refusal !== undefined && machine.privilege !== 'user' && !/^(sudo|doas): /m.test(refusal)) {
    const user = machine.privilege === 'none' ? text('user') : 'root';
    const runtime = `the runtime behind ${criSocket}`;
    const { code, message, hint } = faultOf('refused', refusal, { node: label, user, runtime });
    throw new SideloadError(code, `${message}\n${text('sockets')}`.trim(), { node: label, hint });
  }
  if (machine.privilege === 'user' && runtime !== 'cri-o') {
    throw fail('SUDO_REFUSED', refusalText(text('as-root'), text('sudo-refused')));
  }
  if (runtime === 'cri-o' && tools.crictl === undefined && machine.privilege !== 'user') {
    throw new SideloadError(
      'RUNTIME_NOT_FOUND',
      'the runtime is CRI-O, and the node has no crictl, which alone says what CRI-O holds',
      {
        node: label,
        hint: 'Install crictl on the node (package cri-tools), in a directory where the user’s PATH or /usr/local/bin has it.',
      },
    );
  }
  // Where sudo does not allow crictl, podman's store is all that answers.
  const unasked = machine.privilege === 'user' && tools.crictl === undefined ? 'of unknown version' : undefined;
  const version =
    serverVersion(text('client-version')) ?? /^RuntimeVersion: *(\S+)/m.exec(text('cri-version'))?.[1] ?? unasked;
  if (runtime === undefined || version === undefined) {
    const said = text('client-version') || text('cri-version');
    if (machine.isNarrow && /^sudo: /m.test(said)) {
      throw fail('SUDO_RIGHT_MISSING', `the runtime behind ${criSocket} does not answer: ${said}`);
    }
    const kind = said !== '' && kindOf(said) === 'error' ? 'error' : 'silent';
    throw faultOf(kind, said, { node: label, user: text('user'), runtime: `the runtime behind ${criSocket}` });
  }
  const clients = CLIENTS[runtime];
  if (!clients.some(client => tools[client] !== undefined)) {
    throw new SideloadError(
      'RUNTIME_NOT_FOUND',
      `${runtime} runs, but ${clients.join(' or ')} is not installed on the node`,
      { node: label, hint: `Install ${clients.join(' or ')} on the node, in a directory of ${SEARCH_PATH}.` },
    );
  }
  const disk = parseDisk(text('disk'));
  if (disk === undefined) {
    throw fail('PROBE_FAILED', `cannot tell the free disk space: ${text('disk')}`);
  }
  return {
    ...machine,
    distribution: DISTRIBUTIONS.find(({ name }) => name === text('distribution'))?.name ?? 'unknown',
    criSocket,
    criSocketOrigin: origin,
    runtime: {
      name: runtime,
      version: version === unasked ? version : check('version', version, `the version of ${runtime}`),
    },
    tools,
    politeness: POLITENESS.flatMap(words => (` ${text('politeness')} `.includes(` ${words.join(' ')} `) ? words : [])),
    importFlags: new Set(text('import-help').match(/--[a-z][a-z-]+/g) ?? []),
    snapshotter: text('snapshotter') === '' ? undefined : check('snapshotter', text('snapshotter'), 'the snapshotter'),
    instance: text('instance'),
    // What is no reference is not ours.
    staged: `${text('staged')}\n${text('staged-imports')}`
      .split(/\s+/)
      .filter(reference => isA('reference', reference)),
    imageIds: text('image-ids')
      .split('\n')
      .filter(imageId => /^sha256:[0-9a-f]{64}$/.test(imageId)),
    leases: text('leases')
      .split('\n')
      .filter(lease => /^lease-[0-9]+-[\w-]{4}$/.test(lease)),
    imageRoot: check('path', text('image-root'), 'where the runtime keeps its images'),
    disk,
    workDisk: parseDisk(text('work-disk')),
    sandbox: sandboxOf(text('sandbox-image'), text('sandbox-state')),
  };
}

function lines(text: string): readonly string[] {
  return text.split('\n').filter(line => line !== '');
}

/** Each candidate is a socket, and the name of a node where it is a kubelet's; empty where it goes by its default. */
function ambiguity(candidates: readonly string[]): string {
  const shown = candidates.slice(0, 10).map(candidate => {
    const [socket = '', name = ''] = candidate.trimStart().split(' ');
    return [
      isA('path', socket) ? socket : 'a default or nameless socket',
      ...(isA('node name', name) ? [`of ${name}`] : []),
    ].join(' ');
  });
  return `any of these could be the runtime of the kubelet: ${shown.join(', ')}`;
}

function ignored(count: string): string {
  return /^[1-9]\d*$/.test(count)
    ? `; ${count} processes named kubelet are not believed, as they are not root’s of the node itself`
    : '';
}

/** crictl says `no such image`; anything else that went wrong says nothing about the image. */
function sandboxOf(reference: string, state: string): NodeFacts['sandbox'] {
  const isHeld = state === 'held';
  return !isA('reference', reference) || !(isHeld || /no such image|not found/i.test(state))
    ? undefined
    : { reference, isHeld };
}

/** `ctr version` and `docker version` print the client first; what stands under `Server:` proves that a daemon answered. */
function serverVersion(text: string): string | undefined {
  return /^Server:[\s\S]*?^\s*Version:\s*(\S+)/m.exec(text)?.[1];
}

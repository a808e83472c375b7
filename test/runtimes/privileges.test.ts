import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, inject, it } from 'vitest';
import { LAYOUTS, type Layout, rightsFor, rulesFor, sudoersCommand } from '../../scripts/privileges.ts';
import { type ClusterRight, type Extra, NODE_RIGHTS, type Right, SMOKE_RIGHTS } from '../../src/privileges.ts';
import { criImageId, kubeconfigOf, kubectl, kubectlThat, smokePods } from '../cluster/kubernetes.ts';
import { archive, build } from '../engines.ts';
import { type LabNode, setRate } from '../lab/index.ts';
import { must } from '../node/people.ts';
import { blocksOf } from '../pipelines/documents.ts';
import {
  crictl,
  type Inputs,
  leftOnNode,
  type Outcome,
  plan,
  prune,
  push,
  reach,
  referencesOn,
  runAction,
  runPost,
} from '../shipped.ts';

const lab = inject('lab');
const files = resolve(import.meta.dirname, '..', '..', 'docs', 'privileges');
const directory = mkdtempSync(join(tmpdir(), 'kube-sideload-privileges-'));

const USER = 'kube-sideload';
const SUDOERS = `/etc/sudoers.d/${USER}`;
const LOG = '/var/log/sudo-of-kube-sideload';
const WORK = '/root/privileges';
const LAYOUT_OF: Readonly<Record<string, string>> = {
  containerd: 'containerd',
  crio: 'cri-o',
  docker: 'docker',
  'k3s-layout': 'k3s',
  'rke2-layout': 'rke2',
  'k0s-layout': 'k0s',
  'microk8s-layout': 'microk8s',
};

interface Narrow {
  readonly node: LabNode;
  readonly layout: Layout;
}

const narrow: readonly Narrow[] = lab.nodes.flatMap(node => {
  const layout = LAYOUTS.find(({ name }) => name === LAYOUT_OF[node.kind]);
  return layout === undefined ? [] : [{ node, layout }];
});
/** One of each runtime. */
const three = narrow.filter(({ node }) => ['containerd', 'crio', 'docker'].includes(node.kind));
const pinning = three.filter(({ node }) => node.kind !== 'docker');
const crio = narrow.find(({ node }) => node.kind === 'crio') ?? expect.unreachable();

/** What happens on no node here: what it takes would have to happen within the moment in which a name is put back. */
const UNSEEN = ['podman untag', 'docker image rm --force'];

function textOf({ name }: Layout): string {
  return readFileSync(join(files, `sudoers.${name}`), 'utf8');
}

/** The same with the marks taken away from what is for `keep`, or for `pin`. */
function textFor(layout: Layout, extra: Extra): string {
  const parts = textOf(layout).split('\n\n');
  return parts
    .map(part =>
      part.includes(`Only for \`${extra}\``) ? part.replaceAll(/^#(?=kube-sideload ALL| {4})/gm, '') : part,
    )
    .join('\n\n');
}

/** Gives the user these rights, and no others. */
async function permit({ node }: Narrow, text: string): Promise<void> {
  await must(
    node,
    `cat >${SUDOERS}.new <<'END'\n${text}END\nvisudo -c -q -f ${SUDOERS}.new && mv ${SUDOERS}.new ${SUDOERS}`,
  );
}

/** The same without one command: the line goes, or the command out of its line. */
function without(text: string, command: string): string {
  const words = text.split(' NOPASSWD: ');
  const parts = words.map(part => {
    const [rule = '', ...rest] = part.split('\n\n');
    const commands = rule.split(', \\\n    ').filter(one => one.trim() !== command);
    return [
      commands.length === 0 || commands.join() === '' ? '/nonexistent' : commands.join(', \\\n    '),
      ...rest,
    ].join('\n\n');
  });
  return parts.join(' NOPASSWD: ');
}

/**
 * Has sudo write down what it is asked. What it would want a password for it refuses to `sudo -n` without a word in its
 * log: with `!authenticate` it refuses that for not being allowed, and writes it down.
 */
async function log({ node }: Narrow, options = ''): Promise<void> {
  const line = `Defaults:${USER} logfile=${LOG}, loglinelen=0${options}`;
  await must(node, `echo '${line}' >/etc/sudoers.d/logged; chmod 440 /etc/sudoers.d/logged; touch ${LOG}`);
}

/** What sudo has been asked to run, by its own log; whatever it refused begins with `refused`. */
async function asked({ node }: Narrow): Promise<readonly string[]> {
  const lines = (await must(node, `cat ${LOG}; : >${LOG}`)).split('\n');
  return (
    lines
      .map(line => /^.*? : kube-sideload : (.*?)PWD=.*? ; COMMAND=(.*)$/.exec(line) ?? [])
      .filter(([, , command = 'list']) => command !== 'list' && !command.startsWith('list '))
      // It writes arguments that have a space in quotes, and a backslash twice.
      .map(([, said = '', command = '']) => [said, command.replaceAll("'", '').replaceAll('\\\\', '\\')] as const)
      .map(([said, command]) => (said === '' ? command : `refused (${said.trim()}) ${command}`))
  );
}

/** sudo matches the arguments as one text, with a space between them. */
function matches(command: string, pattern: string): boolean {
  const [, program = '', args = ''] = /^(\S+) ?([\s\S]*)$/.exec(command) ?? [];
  const [, ofProgram = '', ofArgs = ''] = /^\^(\S+)\$ (.*)$/.exec(pattern) ?? [];
  return new RegExp(`^${ofProgram}$`).test(program) && (ofArgs === '""' ? args === '' : new RegExp(ofArgs).test(args));
}

function inputsFor(nodes: readonly Narrow[], more: Inputs = {}): Inputs {
  return {
    ...reach(
      lab,
      nodes.map(({ node }) => `${node.address}=${node.name}`),
    ),
    'ssh-user': USER,
    namespace: USER,
    ...more,
  };
}

function outcomes({ nodes }: Outcome): readonly unknown[] {
  return nodes.map(node => [node.node, node.error?.message, node.findings, node.images.map(image => image.outcome)]);
}

let kubeconfig = '';
/** What the documentation says to do on each node. */
const [documented = expect.unreachable(), ...documentedInCluster] = blocksOf('docs/privileges/README.md').map(
  ({ text }) => text,
);

beforeAll(async () => {
  for (const one of narrow) {
    await must(
      one.node,
      `mkdir ${WORK} && cd ${WORK} && cp /home/deploy/.ssh/authorized_keys ci.pub
cat >sudoers.containerd <<'END'
${textOf(one.layout)}END
${documented}
rm -rf ${WORK} /var/lib/kube-sideload /run/kube-sideload`,
    );
  }
  // As distributions have them, and as CRI-O makes the second one.
  await must(crio.node, 'mkdir -p /var/cache/containers; chmod 700 /root /var/cache/containers');
  for (const one of narrow) await log(one);
  kubectl(lab, ['apply', '-f', join(files, 'rbac.yaml')]);
  // What a controller would make.
  const account = { apiVersion: 'v1', kind: 'ServiceAccount', metadata: { name: 'default', namespace: USER } };
  kubectl(lab, ['apply', '-f', '-'], JSON.stringify(account));
  kubeconfig = kubeconfigOf(lab, USER, USER);
});

afterAll(async () => {
  rmSync(directory, { recursive: true, force: true });
  // Not the namespace: nobody here would bring its end about.
  kubectl(lab, [`--namespace=${USER}`, 'delete', 'rolebinding,role,serviceaccount', '--all']);
  kubectl(lab, ['delete', 'clusterrolebinding,clusterrole', USER]);
  for (const { node } of narrow) {
    await must(
      node,
      `userdel --remove ${USER} 2>/dev/null; rm -rf /var/lib/kube-sideload /run/kube-sideload ${SUDOERS} /etc/sudoers.d/logged ${LOG}`,
    );
  }
});

afterEach(async () => {
  expect(smokePods(lab)).toEqual([]);
  expect(await leftOnNode(lab)).toEqual([]);
});

const NAME = 'narrow:1';
const REFERENCE = `docker.io/library/${NAME}`;

describe('a user with the rights of docs/privileges, and no others', () => {
  const seen = new Map<Narrow, string[]>();
  afterEach(async () => {
    for (const one of narrow) {
      seen.set(one, [...(seen.get(one) ?? []), ...(await asked(one))]);
    }
  });
  const there = () => inputsFor(narrow, { kubeconfig });
  const everywhere = (outcome: string) => narrow.map(({ node }) => [node.name, undefined, [], [outcome]]);

  it('brings an image, and nothing twice', async () => {
    const gzipped = { reference: REFERENCE, layers: [{ fillBytes: 300_000 }], compression: 'gzip' } as const;
    const image = await archive(directory, gzipped);
    for (const outcome of ['sent', 'present']) {
      const pushed = await push({ ...there(), archive: image.file }, { lab });
      expect(outcomes(pushed)).toEqual(everywhere(outcome));
      expect(pushed.nodes.map(node => node.images[0]?.smoke)).toEqual(narrow.map(() => 'Running'));
      expect(pushed.log).toContain('as sudo for some commands');
      expect(pushed.code).toBe(0);
    }
    for (const { node } of narrow) {
      expect(await criImageId(lab, node, REFERENCE), node.kind).toBe(image.id);
    }
  });

  it('is refused nothing from here on without a line in the log', async () => {
    for (const one of narrow) await log(one, ', !authenticate');
    await must(crio.node, `su ${USER} -c 'sudo -n id' && exit 1; exit 0`);
    expect(await asked(crio)).toEqual([expect.stringMatching(/^refused \(command not allowed ;\) .*\/id$/)]);
  });

  it('moves a name, sends what is missing alone, and cleans up after runs long ago', async () => {
    // A lock that has run out, and what is left of a run that was about to replace it.
    const held = `other1:1:1:${REFERENCE}`;
    const lock = `/run/kube-sideload/${createHash('sha256').update(REFERENCE).digest('hex')}`;
    const long = `${(1_600_000_000).toString(36)}abcdef`;
    const stage = `kube-sideload.invalid/${long}:0`;
    for (const { node, layout } of narrow) {
      const { runtime } = layout.distribution;
      const left = {
        containerd: `setsid sh -c 'sleep 600; :' ${stage} >/dev/null 2>&1 &`,
        'cri-o': `mkdir -p -m 700 /var/tmp/kube-sideload.${long}.abcdef/of/root; chown ${USER} /var/tmp/kube-sideload.${long}.abcdef`,
        docker: '',
      };
      await must(node, left[runtime] || ':');
      await must(node, `ln -s ${held} ${lock} && ln -s ${held} ${lock}.other1.1`);
    }
    const layers = [{ fillBytes: 300_000 }, { files: { 'etc/second': '2' } }];
    const image = await archive(directory, { reference: REFERENCE, layers, dockerManifest: true });
    const pushed = await push({ ...there(), archive: image.file }, { lab });
    expect(outcomes(pushed)).toEqual(everywhere('sent'));
    expect(pushed.nodes.filter(node => node.bytesSent > 100_000)).toEqual([]);
    expect(pushed.code).toBe(0);
    for (const { node } of narrow) {
      expect(await criImageId(lab, node, REFERENCE), node.kind).toBe(image.id);
    }
  });

  it('puts back what was there when a pod does not start, and says that the image is gone', async () => {
    build(lab, 'docker', 'narrow:2', 'two');
    const removes = three
      .filter(({ node }) => node.runtime !== 'crio')
      .map(({ node }) => {
        const socket = `unix://${node.root}${node.criSocket.replace(/^\/var\/run/, '/run')}`;
        return `${lab.bin}/crictl --config /dev/null --runtime-endpoint ${socket} --image-endpoint ${socket} rmi docker.io/library/narrow:2`;
      });
    const kubectlPath = kubectlThat(lab, directory, 'removes', removes.join('\n'));
    const pushed = await push(
      {
        ...inputsFor(three, { kubeconfig }),
        images: 'docker.io/library/narrow:2',
        source: 'docker',
        kubectl: kubectlPath,
      },
      { lab },
    );
    expect(pushed.log).toContain('SMOKE_IMAGE_NEVER_PULL');
    expect(pushed.log).toContain('and it is gone since');
    expect(pushed.nodes.map(node => node.images[0]?.outcome)).toEqual(three.map(() => 'restored'));
    for (const { node } of three) {
      expect(await referencesOn(lab, node.name), node.kind).not.toContain('docker.io/library/narrow:2');
    }
  });

  it.for(['SIGTERM', 'SIGKILL'] as const)(
    'leaves nothing after a %s, with the post step',
    async (signal, { expect }) => {
      const image = await archive(directory, {
        reference: 'docker.io/library/narrow:3',
        layers: [{ fillBytes: 8_000_000, seed: signal }],
        dockerManifest: true,
      });
      await Promise.all(three.map(({ node }) => setRate(node, '16mbit')));
      try {
        const inputs = { ...inputsFor(three, { kubeconfig }), archive: image.file };
        let isKilled = false;
        const onLine = (line: string, pid: number) => {
          if (!isKilled && line.startsWith('::group::Send what')) {
            isKilled = true;
            setTimeout(() => process.kill(pid, signal), 1000);
          }
        };
        const main = await runAction(inputs, { lab, onLine });
        expect(isKilled).toBe(true);
        expect(main.code).not.toBe(0);
        const post = await runPost(main, inputs, { lab });
        expect(post.code).toBe(0);
        expect(post.log).not.toContain('::warning');
      } finally {
        await Promise.all(three.map(({ node }) => setRate(node, undefined)));
      }
      for (const { node } of three) {
        expect(await referencesOn(lab, node.name), node.kind).not.toContain(image.reference);
      }
    },
  );

  it.for([
    ['cri-o-skopeo', 'podman'],
    ['cri-o-podman', 'skopeo'],
  ] as const)('pushes to CRI-O with sudoers.%s, where %s is missing', async ([name, missing], { expect }) => {
    const layout = LAYOUTS.find(one => one.name === name) ?? expect.unreachable();
    const one = { node: crio.node, layout };
    await must(one.node, `mv /usr/bin/${missing} /usr/bin/${missing}.away`);
    try {
      await permit(one, textOf(layout));
      build(lab, 'docker', 'narrow:4', 'four');
      const pushed = await push(
        { ...inputsFor([one], { kubeconfig }), images: 'docker.io/library/narrow:4', source: 'docker' },
        { lab },
      );
      build(lab, 'docker', 'narrow:4', name);
      const moved = await push(
        { ...inputsFor([one], { kubeconfig }), images: 'docker.io/library/narrow:4', source: 'docker' },
        { lab },
      );
      expect([outcomes(pushed), outcomes(moved)].flat()).toEqual(
        [1, 2].map(() => [one.node.name, undefined, [], ['sent']]),
      );
      const commands = await asked(one);
      expect(unmatched(commands, layout)).toEqual([]);
      const rights = rightsFor(layout).filter(({ clients, without: cost }) => clients && !cost);
      expect(
        unused(
          commands,
          layout,
          rights.filter(({ isFor }) => isFor === undefined),
        ),
      ).toEqual([]);
    } finally {
      await permit(crio, textOf(crio.layout));
      await must(one.node, `mv /usr/bin/${missing}.away /usr/bin/${missing}`);
    }
  });

  it('removes old releases with the lines for it', async () => {
    build(lab, 'docker', 'narrow:5', `${Date.now()}`);
    const pushed = await push(
      { ...inputsFor(three, { smoke: 'none' }), images: 'docker.io/library/narrow:5', source: 'docker' },
      { lab },
    );
    expect(pushed.code).toBe(0);
    for (const one of three) {
      await permit(one, textFor(one.layout, 'keep'));
    }
    const pruned = await prune({ ...inputsFor(three), images: 'narrow', keep: '1' }, { lab });
    expect(pruned.nodes.map(node => [node.node, node.error?.message])).toEqual(
      three.map(({ node }) => [node.name, undefined]),
    );
    for (const { retention = [] } of pruned.nodes) {
      expect(retention.map(({ fate }) => fate)).toContain('removed');
    }
    for (const one of three) await permit(one, textOf(one.layout));
  });

  it('pins images, and lets go of them, with the lines for it', async () => {
    const isPinned = ({ node }: Narrow) =>
      crictl(lab, node, ['inspecti', '-o', 'json', 'docker.io/library/narrow:6']).then(text => {
        const { status } = JSON.parse(text) as { status: { pinned?: boolean } };
        return status.pinned === true;
      });
    const pins = () => Promise.all(pinning.map(isPinned));
    const place = async (seed: string, more: Inputs, command?: string[]) => {
      build(lab, 'docker', 'narrow:6', seed, command);
      const inputs = {
        ...inputsFor(pinning, { smoke: 'none' }),
        images: 'docker.io/library/narrow:6',
        source: 'docker',
        ...more,
      };
      const pushed = await push(inputs, { lab });
      expect(pushed.nodes.map(({ findings }) => findings)).toEqual(pinning.map(() => []));
      return pushed;
    };
    for (const one of pinning) await permit(one, textFor(one.layout, 'pin'));
    // One that fails lets go of the pins that it has set.
    const smoked = { pin: 'true', smoke: 'pod', kubeconfig };
    const failed = await place('failing', smoked, ['/bin/busybox', 'sh', '-c', 'exit 3']);
    expect(failed.nodes.map(node => node.images[0]?.outcome)).toEqual(pinning.map(() => 'restored'));
    // The second one moves a name that is pinned.
    for (const seed of ['first', 'second']) {
      expect((await place(seed, { pin: 'true' })).code).toBe(0);
      expect(await pins()).toEqual(pinning.map(() => true));
    }
    expect((await place('second', {})).code).toBe(0);
    await expect.poll(pins, { timeout: 5000 }).toEqual(pinning.map(() => false));
    for (const one of pinning) await permit(one, textOf(one.layout));
  });

  it.for(narrow)('is never refused, and has no right that nothing makes use of ($node.kind)', (one, { expect }) => {
    const commands = seen.get(one) ?? [];
    expect(unmatched(commands, one.layout)).toEqual([]);
    const rights = rightsFor(one.layout).filter(
      right => three.includes(one) || (right.without === undefined && right.isFor === undefined),
    );
    expect(unused(commands, one.layout, rights)).toEqual([]);
  });
});

/** Commands that no line of the layout's file is for. */
function unmatched(commands: readonly string[], layout: Layout): readonly string[] {
  const patterns = rightsFor(layout).flatMap(right => right.commands.map(command => sudoersCommand(command, layout)));
  return [...new Set(commands.filter(command => !patterns.some(pattern => matches(command, pattern))))];
}

/** Commands of the rights that have not been run. */
function unused(commands: readonly string[], layout: Layout, rights: readonly Right[]): readonly string[] {
  return rights
    .flatMap(right => right.commands)
    .filter(([program]) => program !== 'crictl' || commands.some(one => one.includes('crictl')))
    .filter(command => !UNSEEN.some(words => command.join(' ').startsWith(words)))
    .map(command => sudoersCommand(command, layout))
    .filter(pattern => !commands.some(command => matches(command, pattern)));
}

describe('a user who lacks one of these rights', () => {
  beforeAll(async () => {
    for (const one of narrow) await log(one);
  });

  /** By runtime, each command that every push asks for, as the file has it. */
  const commandsOf = ({ layout }: Narrow, isWanted: (right: Right) => boolean) =>
    rightsFor(layout)
      .filter(right => right.isFor === undefined && isWanted(right))
      .flatMap(right => right.commands.map(command => ({ right, command: sudoersCommand(command, layout) })));
  const rounds = (isWanted: (right: Right) => boolean) => {
    const lists = three.map(one => commandsOf(one, isWanted));
    const longest = Math.max(...lists.map(list => list.length));
    return Array.from({ length: longest }, (_, round) => lists.map(list => list[round % list.length]));
  };

  afterAll(async () => {
    for (const one of three) await permit(one, textOf(one.layout));
  });

  async function take(lacking: readonly ({ readonly command: string } | undefined)[]): Promise<void> {
    for (const [index, one] of three.entries()) {
      const text = textOf(one.layout);
      const less = without(text, lacking[index]?.command ?? '');
      expect(less).not.toBe(text);
      await permit(one, less);
    }
  }

  it('gets an error for each one that a push needs, before a byte is sent', async () => {
    const image = await archive(directory, { reference: 'docker.io/library/lacking:1' });
    for (const lacking of rounds(right => right.without === undefined)) {
      await take(lacking);
      const pushed = await push({ ...inputsFor(three, { smoke: 'none' }), archive: image.file }, { lab });
      expect(pushed.code).toBe(1);
      for (const [index, node] of pushed.nodes.entries()) {
        const { command = '' } = lacking[index] ?? {};
        expect(`${node.error?.code} ${node.error?.message}`, command).toMatch(/^(SUDO_RIGHT_MISSING|SUDO_REFUSED) /);
      }
      expect(pushed.outputs['bytes-sent']).toBe('0');
    }
  });

  it('gets an error for each one that `pin` needs, with `pin` alone', async () => {
    const image = await archive(directory, { reference: 'docker.io/library/lacking:1' });
    for (const one of pinning) {
      const inputs = { ...inputsFor([one], { smoke: 'none' }), archive: image.file };
      const rights = rightsFor(one.layout).filter(({ isFor }) => isFor === 'pin');
      for (const command of rights.flatMap(right => right.commands)) {
        const line = sudoersCommand(command, one.layout);
        const less = without(textFor(one.layout, 'pin'), line);
        expect(less).not.toBe(textFor(one.layout, 'pin'));
        await permit(one, less);
        const planned = await plan({ ...inputs, pin: 'true' }, { lab });
        expect(planned.nodes[0]?.findings, line).toMatchObject([{ code: 'SUDO_RIGHT_MISSING', severity: 'error' }]);
      }
      await permit(one, textOf(one.layout));
      expect((await plan(inputs, { lab })).nodes[0]?.findings).toEqual([]);
    }
  });

  it('gets a warning for each one that a push can do without', async () => {
    const image = await archive(directory, { reference: 'docker.io/library/lacking:2' });
    const inputs = { ...inputsFor(three, { smoke: 'none' }), archive: image.file };
    for (const lacking of rounds(right => right.without !== undefined)) {
      await take(lacking);
      const planned = await plan(inputs, { lab });
      expect(planned.code).toBe(0);
      for (const [index, { findings }] of planned.nodes.entries()) {
        const { right, command = '' } = lacking[index] ?? {};
        expect(findings, command).toMatchObject([
          { code: 'SUDO_RIGHT_MISSING', severity: 'warning', message: expect.stringContaining(right?.without ?? '?') },
        ]);
      }
    }
  });

  it('pushes and moves a name without all that it can do without', async () => {
    for (const one of three) {
      const parts = textOf(one.layout).split('\n\n');
      await permit(one, `${parts.filter(part => !/^#.*(Optional|Only for)/m.test(part)).join('\n\n')}\n`);
    }
    for (const seed of ['first', 'second']) {
      build(lab, 'docker', 'lacking:3', seed);
      const inputs = { ...inputsFor(three, { kubeconfig }), images: 'docker.io/library/lacking:3', source: 'docker' };
      const pushed = await push(inputs, { lab });
      expect(pushed.nodes.map(node => [node.error?.message, node.images[0]?.outcome, node.images[0]?.smoke])).toEqual(
        three.map(() => [undefined, 'sent', 'Running']),
      );
      expect(pushed.log.match(/no lock, so another job may move the same references meanwhile: sudo/g)).toHaveLength(
        three.length,
      );
      expect(pushed.code).toBe(0);
    }
  });

  it('is told of all of them at once', async () => {
    const image = await archive(directory, { reference: 'docker.io/library/lacking:1' });
    for (const one of three) await permit(one, `${textOf(one.layout).split('\n\n').slice(0, 4).join('\n\n')}\n`);
    const planned = await plan({ ...inputsFor(three, { smoke: 'none' }), archive: image.file }, { lab });
    expect(planned.code).toBe(1);
    for (const node of planned.nodes) {
      expect(node.findings.filter(({ severity }) => severity === 'error').length).toBeGreaterThan(2);
    }
  });
});

describe('a service account with the rights of rbac.yaml', () => {
  const [one = expect.unreachable()] = three;
  const REQUESTS = [...SMOKE_RIGHTS, ...NODE_RIGHTS].flatMap(right =>
    right.verbs.map(verb => ({ ...right, verb, name: `${verb} ${right.resource}` })),
  );

  function grant(kind: 'Role' | 'ClusterRole', rules: readonly object[]): void {
    const metadata = { name: USER, ...(kind === 'Role' && { namespace: USER }) };
    const role = { apiVersion: 'rbac.authorization.k8s.io/v1', kind, metadata, rules };
    kubectl(lab, ['apply', '-f', '-'], JSON.stringify(role));
  }

  afterEach(() => {
    grant('Role', rulesFor(SMOKE_RIGHTS));
    grant('ClusterRole', rulesFor(NODE_RIGHTS));
  });
  const inputs = { ...inputsFor([one]), images: 'docker.io/library/granted:1', source: 'docker' };

  it.for(REQUESTS)('that lacks `$name` fails, or says what it does without', async request => {
    const { resource, verb, without: cost } = request;
    const less = (list: readonly ClusterRight[]) =>
      list
        .map(right =>
          right.resource === resource ? { ...right, verbs: right.verbs.filter(other => other !== verb) } : right,
        )
        .filter(({ verbs }) => verbs.length > 0);
    grant('Role', rulesFor(less(SMOKE_RIGHTS)));
    grant('ClusterRole', rulesFor(less(NODE_RIGHTS)));
    build(lab, 'docker', 'granted:1', 'granted');
    if (cost === undefined) {
      const pushed = await push({ ...inputs, kubeconfig }, { lab });
      expect(pushed.code).toBe(1);
      expect(pushed.log).toContain('CLUSTER_REFUSED');
      expect(pushed.log).toContain(`cannot ${verb} resource "pods"`);
      expect(pushed.outputs['bytes-sent']).toBe('0');
    } else {
      const planned = await plan({ ...inputs, kubeconfig }, { lab });
      expect(planned.code).toBe(0);
      expect(planned.log).toMatch(new RegExp(`^the credentials (cannot|may not) ${verb} .*${resource}`, 'm'));
    }
  });

  it('gets its token for an hour from an account that may do nothing but make it', async () => {
    const issuer = kubeconfigOf(lab, USER, `${USER}-issuer`);
    const as = (args: string) => `kubectl --kubeconfig=${issuer} --namespace=${USER} ${args}`;
    const token = join(directory, 'token');
    const [, made = expect.unreachable()] = documentedInCluster;
    const env = { ...process.env, PATH: `${lab.bin}:${process.env.PATH}` };
    const sh = (text: string, variables = {}) =>
      spawnSync('sh', ['-ec', text], { encoding: 'utf8', env: { ...env, ...variables } });
    expect(sh(made, { ISSUER_KUBECONFIG: issuer, TOKEN_FILE: token, JOB_USER: 'root' })).toMatchObject({ status: 0 });
    expect(statSync(token).mode & 0o777).toBe(0o600);
    const [, claims = ''] = readFileSync(token, 'utf8').split('.');
    const { exp, iat } = JSON.parse(Buffer.from(claims, 'base64url').toString()) as { exp: number; iat: number };
    expect(exp - iat).toBe(3600);
    for (const more of ['create token default', 'get pods', `create token ${USER}-issuer`, 'get secrets', 'get sa']) {
      const refused = sh(as(more));
      expect(refused.status, more).not.toBe(0);
      expect(refused.stderr, more).toMatch(/is forbidden: User .*:kube-sideload-issuer" cannot/);
    }
    const config = JSON.parse(readFileSync(kubeconfig, 'utf8')) as { users: { user: object }[] };
    const withFile = join(directory, 'token-file.conf');
    writeFileSync(withFile, JSON.stringify({ ...config, users: [{ name: USER, user: { tokenFile: token } }] }));
    build(lab, 'docker', 'granted:1', 'granted');
    const pushed = await push({ ...inputs, kubeconfig: withFile }, { lab });
    expect(pushed.nodes[0]?.images[0]?.smoke).toBe('Running');
    expect(pushed.code).toBe(0);
  });

  it('that lacks all that is optional has its pod judged all the same', async () => {
    grant('Role', rulesFor(SMOKE_RIGHTS.filter(right => right.without === undefined)));
    grant('ClusterRole', []);
    build(lab, 'docker', 'granted:1', 'granted');
    const pushed = await push({ ...inputs, kubeconfig }, { lab });
    expect(pushed.nodes[0]?.images[0]?.smoke).toBe('Running');
    expect(pushed.code).toBe(0);
  });
});

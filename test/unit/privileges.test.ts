import { describe, expect, it } from 'vitest';
import { LAYOUTS, type Layout, rightsFor, sudoersCommand } from '../../scripts/privileges.ts';
import type { NodeFacts } from '../../src/node/facts.ts';
import { askedRights } from '../../src/privileges.ts';

/** What a node of a layout says of itself. */
function factsOf({ distribution, clients }: Layout): NodeFacts {
  const words = (text: string) => {
    const [program = '', ...rest] = text.split(' ');
    const directory = program === 'microk8s' ? '/snap/bin' : '/usr/local/bin';
    return [program.startsWith('/') ? program : `${directory}/${program}`, ...rest];
  };
  const { runtime, client, crictl, socket, root } = distribution;
  return {
    runtime: { name: runtime, version: '1' },
    tools: {
      crictl: words(crictl),
      ...(runtime === 'containerd' && { ctr: words(client) }),
      ...(runtime === 'docker' && { docker: words(client) }),
      ...(clients?.includes('skopeo') && { skopeo: ['/usr/bin/skopeo'] }),
      ...(clients?.includes('podman') && { podman: ['/usr/bin/podman'] }),
    },
    criSocket: socket,
    imageRoot: {
      containerd: `${root}/io.containerd.snapshotter.v1.overlayfs`,
      'cri-o': `${root}/storage/overlay-images`,
      docker: root,
    }[runtime],
    platform: { os: 'linux', architecture: 'arm64' },
  } as Partial<NodeFacts> as NodeFacts;
}

/** As sudo compares: the program by its path, the arguments as one text. */
function isAllowed(layout: Layout, command: string): boolean {
  const [program = '', ...args] = command.split(' ');
  const path = program.startsWith('/') ? program : `/usr/bin/${program}`;
  return rightsFor(layout)
    .flatMap(right => right.commands.map(one => sudoersCommand(one, layout)))
    .map(text => /^\^(\S+)\$ (?:""|\^(.*)\$)$/.exec(text) ?? expect.unreachable(text))
    .some(
      ([, ofProgram = '', ofArgs = '']) =>
        new RegExp(`^${ofProgram}$`).test(path) && new RegExp(`^${ofArgs}$`).test(args.join(' ')),
    );
}

describe.each(LAYOUTS.map(layout => [layout.name, layout] as const))('sudoers.%s', (_name, layout) => {
  it('allows all that a run asks sudo for', () => {
    const asked = askedRights(factsOf(layout), true).map(({ command }) => command);
    expect(asked.length).toBeGreaterThan(15);
    expect(asked.filter(command => !isAllowed(layout, command))).toEqual([]);
  });

  it.each([
    'true now',
    'cat /etc/shadow',
    'cat /var/lib/kubelet/config.yaml /etc/shadow',
    'sh -c id',
    'env TMPDIR=/tmp sh',
    'rm -rf /var/tmp/kube-sideload.0.0 /etc',
    'rm -rf /var/tmp/kube-sideload.0.0/../../../etc',
    'tee /etc/passwd',
    'mv -f /etc/shadow /var/lib/kube-sideload/images',
    'pkill -TERM -f .',
    'kill 1',
    'ctr --address /run/containerd/containerd.sock --namespace k8s.io run --privileged app:1 root',
    'ctr --address /run/containerd/containerd.sock --namespace k8s.io images rm app:1 --sync other:1',
    'crictl --runtime-endpoint unix:///run/crio/crio.sock runp /tmp/pod.json',
    'podman run --privileged app:1',
    'skopeo copy docker-archive:/etc/shadow containers-storage:app:1',
    'docker run --privileged app:1',
    'docker image rm app:1 --force',
  ])('does not allow `%s`', command => {
    expect(isAllowed(layout, command)).toBe(false);
  });
});

import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, inject, it } from 'vitest';
import { smokePods } from '../cluster/kubernetes.ts';
import { archive } from '../engines.ts';
import { until } from '../lab/command.ts';
import type { LabNode } from '../lab/index.ts';
import { must } from '../node/people.ts';
import { leftOnNode, plan, push, reach } from '../shipped.ts';

const lab = inject('lab');
const directory = mkdtempSync(join(tmpdir(), 'kube-sideload-processes-'));
const PLACE = '/run/impostors';
/** Root's alone to read. */
const CANARY = 'canary-of-a-file-of-root';
/** What a shell would run, and the file that would be there then. */
const SOCKET = `${PLACE}/x;touch\${IFS}${PLACE}/executed;.sock`;
const FLAGS = [
  `--container-runtime-endpoint=unix://${SOCKET}`,
  `--hostname-override=${CANARY}`,
  `--config=${PLACE}/secret`,
  `--address=${SOCKET}`,
].map(flag => `'${flag}'`);

/** Who can be called `kubelet` or `containerd` without being root of the node, by the words before its command. */
const IMPOSTORS = {
  'of another user': 'setpriv --reuid 65534 --regid 65534 --clear-groups',
  'of another PID namespace': 'unshare --pid --fork',
  'of another user namespace': 'unshare --user --map-root-user',
  'of another user namespace, where everybody has the same number': `sh -c 'unshare --user "$@" &
for look in $(seq 500); do
  [ "$(readlink /proc/$!/ns/user)" = "$(readlink /proc/$$/ns/user)" ] || break; sleep 0.01
done
for map in uid_map gid_map; do echo 0 0 4294967295 >/proc/$!/$map; done; wait' sh`,
  'of root without some capability': 'setpriv --inh-caps -sys_admin --bounding-set -sys_admin',
  'of root in the cgroup of a pod': `sh -c 'for group in /sys/fs/cgroup/pids /sys/fs/cgroup; do
  mkdir -p $group/kubepods/impostor && echo $$ >$group/kubepods/impostor/cgroup.procs && break
done 2>/dev/null; exec "$@"' sh`,
  'with another root directory': `unshare --mount sh -c 'cd ${PLACE} && mkdir -p root none &&
  mount -t overlay none -o lowerdir=/:${PLACE}/none root && mount --rbind /run root/run && exec chroot root "$@"' sh`,
} as const;

/** Starts each of them as both programs; resolves when they have these names. */
async function impersonate(
  node: LabNode,
  impostors: readonly string[],
  flags: readonly string[] = FLAGS,
): Promise<void> {
  const before = await kubelets(node);
  const started = impostors.flatMap(words =>
    ['kubelet', 'containerd'].map(
      name => `setsid ${words} ${PLACE}/${name} ${flags.join(' ')} >/dev/null 2>&1 </dev/null &`,
    ),
  );
  // Whoever lists /proc sees them before the real ones.
  await must(node, `echo 9999 >/proc/sys/kernel/ns_last_pid\n${started.join('\n')}`);
  await until(`impostors on ${node.name}`, 10_000, async () => {
    return (await kubelets(node)) === before + impostors.length || undefined;
  });
}

async function kubelets(node: LabNode): Promise<number> {
  return Number(await must(node, 'pgrep -c -x kubelet || :'));
}

beforeAll(async () => {
  for (const node of lab.nodes) {
    await must(
      node,
      `mkdir ${PLACE} && cd ${PLACE} && printf '#!/bin/sh\\nwhile :; do sleep 600; done\\n' >kubelet && chmod 755 kubelet && cp kubelet containerd
umask 077; printf 'containerRuntimeEndpoint: unix:///${CANARY}.sock\\nsandbox_image = "${CANARY}/pause:1"\\n' >secret`,
    );
  }
});
afterEach(async () => {
  for (const node of lab.nodes) {
    await must(
      node,
      `pkill -KILL -f '${PLACE}/[kc]' || :
for group in /sys/fs/cgroup/pids /sys/fs/cgroup; do
  for try in $(seq 50); do [ ! -d $group/kubepods/impostor ] || rmdir $group/kubepods/impostor $group/kubepods 2>/dev/null || sleep 0.1; done
done`,
    );
  }
  expect(smokePods(lab)).toEqual([]);
  expect(await leftOnNode(lab)).toEqual([]);
});
afterAll(async () => {
  for (const node of lab.nodes) await must(node, `rm -rf ${PLACE}`);
  rmSync(directory, { recursive: true, force: true });
});

const names = lab.nodes.map(({ name }) => name);

describe('processes called kubelet and containerd', () => {
  it('are not believed, nor is a file read for them, when they are not root of the node itself', async () => {
    await Promise.all(lab.nodes.map(node => impersonate(node, Object.values(IMPOSTORS))));
    const image = await archive(directory, { reference: 'docker.io/library/impostors:1' });
    const inputs = { ...reach(lab), archive: image.file };
    const planned = await plan({ ...inputs, 'ssh-user': 'root' }, { lab });
    const pushed = await push({ ...inputs, 'ssh-user': 'deploy' }, { lab });
    for (const { code, nodes, log } of [planned, pushed]) {
      expect(nodes.map(node => [node.kubernetesName, node.error?.message, node.findings])).toEqual(
        names.map(name => [name, undefined, []]),
      );
      expect(log.match(/\(from: kubelet config file\)/g)).toHaveLength(names.length);
      expect(log).not.toContain(CANARY);
      expect(code).toBe(0);
    }
    expect(pushed.nodes.map(node => node.images[0]?.outcome)).toEqual(names.map(() => 'sent'));
    for (const node of lab.nodes) expect(await must(node, `ls ${PLACE}`)).not.toContain('executed');
  });

  it('are an error when two of root differ, unless `cri-socket` says which', async () => {
    const image = await archive(directory, { reference: 'docker.io/library/impostors:two' });
    const [node = expect.unreachable()] = lab.nodes;
    const inputs = { ...reach(lab, [`${node.address}=${node.name}`]), archive: image.file };
    // One that agrees with the real one is no question, and a pipe is no file to read.
    await must(node, `mkfifo ${PLACE}/pipe`);
    await impersonate(node, [''], [`--config=${PLACE}/pipe`, `--container-runtime-endpoint=${node.criSocket}`]);
    expect((await plan(inputs, { lab })).code).toBe(0);
    await impersonate(node, [''], [`--container-runtime-endpoint=unix:///run/other.sock`]);
    const planned = await plan(inputs, { lab });
    expect(planned.nodes[0]?.error).toMatchObject({ code: 'RUNTIME_AMBIGUOUS' });
    expect(planned.nodes[0]?.error?.message).toContain('/run/other.sock');
    expect(planned.nodes[0]?.error?.message).toContain(node.criSocket);
    expect(planned.log).toContain('`cri-socket`');
    const told = await plan({ ...inputs, 'cri-socket': node.criSocket }, { lab });
    expect(told.nodes[0]).toMatchObject({ kubernetesName: node.name, findings: [] });
    expect(told.code).toBe(0);
  });
});

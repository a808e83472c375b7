/** What a run can leave on a node that no list of references shows. */
import { enter, type LabNode } from './lab/index.ts';

/**
 * Leases and ingests of containerd, once it has collected what nothing holds: `leases delete --sync` waits for that. Nothing else
 * pulls in a lab. ctr lies beside containerd, wherever a layout has that.
 */
const CONTAINERD = `
ctr=$(readlink "/proc/$(pgrep -ox containerd)/exe") && ctr="\${ctr%/*}/ctr --address $0 --namespace k8s.io" || exit 0
$ctr leases delete --sync "$($ctr leases create)" >/dev/null
$ctr leases ls -q | sed -n 's/^[0-9]*-[0-9A-Za-z_-]\\{4\\}$/lease &/p'
$ctr content active | sed -n '1d; s/^\\([^\\t ]*\\).*/ingest \\1/p'
ls -d /var/lib/kube-sideload/lease-* 2>/dev/null
$ctr images ls -q | grep '^kube-sideload'`;

/** Layers that no image and no container is made of, or that were not stored to their end, in root's storage. */
const CRIO = `
cd /var/lib/containers/storage
for file in images layers containers; do echo "$file $(cat overlay-$file/$file.json 2>/dev/null | tr -d '\\n')"; done`;

/** Not images without a name: what a name named before it moved has none from then on. */
const DOCKER = `
ls -d /var/lib/docker/tmp/* /var/lib/docker/image/overlay2/layerdb/tmp/* 2>/dev/null`;

const FILES = `
find /tmp /var/tmp /root /home -mindepth 1 -newer /proc/1 -type f ! -path '*/.ssh/*'
pgrep -af '[k]ube-sideload.invalid|^docker load|[ /]docker load'
ls -d /var/tmp/kube-sideload.* 2>/dev/null
ls -l /run/kube-sideload 2>/dev/null | grep '^l'`;

const UNSEEN = { containerd: CONTAINERD, crio: CRIO, docker: DOCKER };

interface Layer {
  readonly id: string;
  readonly parent?: string;
  readonly flags?: Readonly<Record<string, unknown>>;
}

/** A line for each thing that a run has left, besides references. */
export async function unseenOn(node: LabNode): Promise<readonly string[]> {
  const { stdout } = await enter(node, [
    'sh',
    '-c',
    `{ ${FILES}\n${UNSEEN[node.runtime]}\n} 2>&1; true`,
    node.criSocket,
  ]);
  const lines = stdout.split('\n').filter(line => line !== '');
  return node.runtime === 'crio' ? [...lines.filter(line => !JSON_LINE.test(line)), ...strayLayers(lines)] : lines;
}

const JSON_LINE = /^(images|layers|containers) (.*)$/;

function strayLayers(lines: readonly string[]): readonly string[] {
  const parsed = new Map<string, readonly Record<string, unknown>[]>(
    lines.flatMap(line => {
      const [, name, text = ''] = JSON_LINE.exec(line) ?? [];
      return name === undefined ? [] : [[name, JSON.parse(text || '[]')]];
    }),
  );
  const layers = (parsed.get('layers') ?? []) as unknown as readonly Layer[];
  const parents = new Map(layers.map(({ id, parent }) => [id, parent]));
  const used = new Set<string>();
  const tops = [...(parsed.get('images') ?? []), ...(parsed.get('containers') ?? [])].flatMap(one => [
    one.layer,
    ...((one['mapped-layers'] as readonly unknown[] | undefined) ?? []),
  ]);
  for (const top of tops) {
    for (let id = top as string | undefined; id !== undefined && !used.has(id); id = parents.get(id)) used.add(id);
  }
  return layers.flatMap(({ id, flags }) => [
    ...(used.has(id) ? [] : [`layer ${id} of no image`]),
    ...(flags?.incomplete === true ? [`layer ${id} is incomplete`] : []),
  ]);
}

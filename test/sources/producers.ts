/** Programs that write images, besides those that the lab's runner has, and two more daemons to ask for images. */
import { cp, mkdir, readdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { cached } from '../lab/cache.ts';
import { must } from '../lab/command.ts';
import { entering, type Lab } from '../lab/index.ts';
import { systemPath } from '../lab/machine.ts';
import { type Log, step } from '../lab/progress.ts';
import { ensureRootfs, sid } from '../lab/rootfs.ts';
import { type Service, startService } from '../lab/services.ts';

/** Of the runner's own suite; what they need besides is in its root filesystem. */
const PACKAGES = ['buildah', 'docker-buildx'];
const goModule = join(import.meta.dirname, 'go');

/** Docker with containerd's image store, beside the classic one. */
const CONTAINERD_STORE = {
  features: { 'containerd-snapshotter': true },
  bridge: 'none',
  iptables: false,
  ip6tables: false,
  'ip-forward': false,
};
const DOCKER_SOCKET = '/run/docker-second.sock';
const CONTAINERD_SOCKET = '/run/containerd-alone/containerd.sock';

/** The programs that tests run, by the name of a file in {@link binOf}. */
type Producer = 'docker-containerd' | 'buildah' | 'ctr' | 'nerdctl' | 'crane' | 'ko';

/** The path of a producer's wrapper, which runs it in the runner (or here, when it needs nothing of the runner). */
export function producer(lab: Lab, name: Producer): string {
  return join(binOf(lab), name);
}

function binOf(lab: Lab): string {
  return join(lab.directory, 'producers', 'bin');
}

/** Puts the producers into the runner and starts the daemons; `down` ends them with everything else. */
export async function furnishRunner(lab: Lab, log: Log): Promise<void> {
  const built = await ensureProducers(log);
  const home = join(lab.directory, 'producers');
  await cp(built, home, { recursive: true });
  await mkdir(binOf(lab));
  const write = (name: Producer, lines: readonly string[]) =>
    writeFile(join(binOf(lab), name), `#!/bin/sh\n${lines.join('\n')}\n`, { mode: 0o755 });
  const inRunner = async (path: string, ...environment: readonly string[]) => [
    `export PATH=${systemPath} ${environment.join(' ')}`,
    `exec ${(await entering(lab.runner, [path])).map(quote).join(' ')} "$@"`,
  ];

  const dockerConfig = join(home, 'docker');
  await mkdir(dockerConfig);
  const plugins = join(home, 'debian', 'usr', 'libexec', 'docker', 'cli-plugins');
  await writeFile(join(dockerConfig, 'config.json'), JSON.stringify({ cliPluginsExtraDirs: [plugins] }));
  await write(
    'docker-containerd',
    await inRunner('/usr/bin/docker', `DOCKER_HOST=unix://${DOCKER_SOCKET}`, `DOCKER_CONFIG=${quote(dockerConfig)}`),
  );
  await write('buildah', await inRunner(join(home, 'debian', 'usr', 'bin', 'buildah'), 'HOME=/root'));
  await write('ctr', await inRunner('/usr/bin/ctr', `CONTAINERD_ADDRESS=${CONTAINERD_SOCKET}`));
  await write('nerdctl', emulatedNerdctl(join(binOf(lab), 'ctr')));
  for (const name of ['crane', 'ko'] as const) await write(name, [`exec ${quote(join(home, 'go', name))} "$@"`]);
  await startDaemons(lab, home);
}

async function startDaemons(lab: Lab, home: string): Promise<void> {
  const dockerFile = join(home, 'daemon.json');
  await writeFile(dockerFile, JSON.stringify(CONTAINERD_STORE));
  const containerdFile = join(home, 'containerd.toml');
  await writeFile(
    containerdFile,
    [
      'version = 3',
      // On the lab's disk: an overlay cannot lie on the runner's own overlay.
      "root = '/var/lib/containers/containerd-alone'",
      "state = '/run/containerd-alone'",
      "disabled_plugins = ['io.containerd.grpc.v1.cri', 'io.containerd.cri.v1.runtime', 'io.containerd.cri.v1.images']",
      '[grpc]',
      `address = '${CONTAINERD_SOCKET}'`,
      '',
    ].join('\n'),
  );
  const dockerd: Service = {
    name: 'dockerd-second',
    argv: [
      'dockerd',
      ...['--config-file', dockerFile],
      ...['--data-root', '/var/lib/docker/second'],
      ...['--exec-root', '/run/docker-second'],
      ...['--pidfile', '/run/docker-second.pid'],
      ...['--host', `unix://${DOCKER_SOCKET}`],
    ],
    socket: DOCKER_SOCKET,
    readyWithinMs: 60_000,
  };
  const containerd: Service = {
    name: 'containerd-alone',
    argv: ['containerd', '--config', containerdFile],
    socket: CONTAINERD_SOCKET,
  };
  await Promise.all([startService(lab.runner, dockerd), startService(lab.runner, containerd)]);
}

/**
 * nerdctl's command line as far as it is used here, over a real containerd: neither Debian nor the Go module proxy has
 * nerdctl. `images --quiet` prints the target's digest (nerdctl: pkg/cmd/image/list.go), `save` calls the function of
 * containerd that `ctr images export --local` calls (nerdctl: pkg/cmd/image/save.go).
 */
function emulatedNerdctl(ctr: string): readonly string[] {
  return [
    'namespace=default',
    'if [ "$1" = --namespace ]; then namespace=$2; shift 2; fi',
    'case $1 in',
    `images) [ "$2 $3" = '--no-trunc --quiet' ] || exit 64`,
    `  ${quote(ctr)} -n "$namespace" images ls "name==\\"$4\\"" | awk 'NR > 1 { print $3 }' ;;`,
    'save) shift',
    '  all=; if [ "$1" = --all-platforms ]; then all=$1; shift; fi',
    `  exec ${quote(ctr)} -n "$namespace" images export --local $all - "$1" ;;`,
    '*) exit 64 ;;',
    'esac',
  ];
}

/** Builds and unpacks what is not there yet: `debian/` with packages, `go/` with programs. */
async function ensureProducers(log: Log): Promise<string> {
  const rootfs = await ensureRootfs(sid, log);
  const texts = await Promise.all(['go.mod', 'go.sum'].map(file => readFile(join(goModule, file), 'utf8')));
  return cached('producers', [sid.suite, ...PACKAGES, ...texts], log, directory =>
    step(log, 'build the producers of images (a minute or two, once)', async () => {
      await unpackPackages(rootfs, join(directory, 'debian'));
      const tools =
        /tool \(([^)]*)\)/
          .exec(texts[0] ?? '')?.[1]
          ?.trim()
          .split(/\s+/) ?? [];
      await mkdir(join(directory, 'go'));
      await must(['go', 'build', '-trimpath', '-ldflags', '-s -w', '-o', `${join(directory, 'go')}/`, ...tools], {
        cwd: goModule,
        env: { ...process.env, CGO_ENABLED: '0' },
        timeoutMs: 20 * 60_000,
      });
    }),
  );
}

/** Packages of the runner's suite, by this machine's apt and with the runner's idea of what is installed. */
async function unpackPackages(rootfs: string, directory: string): Promise<void> {
  const state = join(directory, 'apt');
  for (const part of ['lists/partial', 'archives/partial']) await mkdir(join(state, part), { recursive: true });
  const options = {
    'Acquire::Check-Valid-Until': 'false',
    'APT::Sandbox::User': 'root',
    'Dir::Etc::SourceList': join(rootfs, 'etc/apt/sources.list'),
    'Dir::Etc::SourceParts': '-',
    'Dir::Etc::TrustedParts': join(rootfs, 'etc/apt/trusted.gpg.d'),
    'Dir::State::Lists': join(state, 'lists'),
    'Dir::State::Status': join(rootfs, 'var/lib/dpkg/status'),
    'Dir::Cache::Archives': join(state, 'archives'),
    'Dir::Cache::PkgCache': '',
    'Dir::Cache::SrcPkgCache': '',
  };
  const apt = ['apt-get', '-q', '-y', ...Object.entries(options).map(([name, value]) => `-o${name}=${value}`)];
  await must([...apt, 'update'], { timeoutMs: 10 * 60_000 });
  await must([...apt, '--no-install-recommends', '--download-only', 'install', ...PACKAGES], {
    timeoutMs: 10 * 60_000,
  });
  for (const file of await readdir(join(state, 'archives'))) {
    if (file.endsWith('.deb')) await must(['dpkg-deb', '--extract', join(state, 'archives', file), directory]);
  }
  await must(['rm', '-rf', state]);
}

function quote(text: string): string {
  return `'${text.replaceAll("'", "'\\''")}'`;
}

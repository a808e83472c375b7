import { chmod, copyFile, mkdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { cached } from './cache.ts';
import { must, run } from './command.ts';
import { type Log, step } from './progress.ts';
import { which } from './requirements.ts';

/** The Go programs that Debian has no package for, by path. `pause` is the static program of the pause image. */
export interface Binaries {
  readonly kubelet: string;
  readonly kubeApiserver: string;
  readonly crictl: string;
  readonly pause: string;
  /** Kubernetes' version, such as `v1.36.3`. */
  readonly version: string;
}

const source = join(import.meta.dirname, 'k8s');

/**
 * Builds the lab's Kubernetes through the Go module proxy, once: everything in one `go build`, so that kubelet and
 * kube-apiserver share the packages they have in common (half of the time). A kubelet, kube-apiserver or crictl of the
 * same minor version that this machine already has on its PATH is taken instead.
 */
export async function ensureBinaries(log: Log): Promise<Binaries> {
  const sources = ['go.mod', 'go.sum', 'crictl/main.go', 'pause/main.go'];
  const texts = await Promise.all(sources.map(file => readFile(join(source, file), 'utf8')));
  const version = /k8s\.io\/kubernetes (v\S+)/.exec(texts[0] ?? '')?.[1];
  if (version === undefined) throw new Error(`${source}/go.mod names no version of k8s.io/kubernetes`);
  const own = {
    kubelet: await installed('kubelet', version),
    apiserver: await installed('kube-apiserver', version),
    crictl: await installed('crictl', version),
  };
  const recipe = [...texts, JSON.stringify(own)];
  const directory = await cached('kubernetes', recipe, log, directory => build(directory, version, own, log));
  const path = (name: string): string => join(directory, name);
  return {
    kubelet: path('kubelet'),
    kubeApiserver: path('kube-apiserver'),
    crictl: path('crictl'),
    pause: path('pause'),
    version,
  };
}

async function build(
  directory: string,
  version: string,
  own: {
    readonly kubelet: string | undefined;
    readonly apiserver: string | undefined;
    readonly crictl: string | undefined;
  },
  log: Log,
): Promise<void> {
  if (!(await which('go'))) throw new Error('building the lab’s Kubernetes needs Go (1.26 or later) on the PATH');
  const packages = [
    './pause',
    ...(own.crictl ? [] : ['./crictl']),
    ...(own.kubelet ? [] : ['k8s.io/kubernetes/cmd/kubelet']),
    ...(own.apiserver ? [] : ['k8s.io/kubernetes/cmd/kube-apiserver']),
  ];
  const [major = '', minor = ''] = version.slice(1).split('.');
  const set = (name: string, value: string): string => `-X k8s.io/component-base/version.${name}=${value}`;
  const ldflags = [
    '-s -w',
    set('gitVersion', version),
    set('gitMajor', major),
    set('gitMinor', minor),
    set('gitTreeState', 'clean'),
    `-X main.version=${version}-lab`,
  ];
  await mkdir(directory, { recursive: true });
  await step(log, `build Kubernetes ${version} from Go modules (several minutes, once)`, note =>
    must(
      [
        'setpriv',
        '--pdeathsig',
        'KILL',
        'unshare',
        '--pid',
        '--fork',
        '--kill-child',
        'go',
        'build',
        '-v',
        '-trimpath',
        '-mod=readonly',
        '-ldflags',
        ldflags.join(' '),
        '-o',
        `${directory}/`,
        ...packages,
      ],
      // Static programs: they run on every root filesystem, whatever its libc.
      { cwd: source, env: { ...process.env, CGO_ENABLED: '0' }, timeoutMs: 60 * 60_000, onLine: note },
    ),
  );
  for (const [name, path] of [
    ['kubelet', own.kubelet],
    ['kube-apiserver', own.apiserver],
    ['crictl', own.crictl],
  ] as const) {
    if (path === undefined) continue;
    await copyFile(path, join(directory, name));
    await chmod(join(directory, name), 0o755);
  }
}

/** The machine's own program, when it is of the wanted minor version. */
async function installed(name: string, version: string): Promise<string | undefined> {
  const path = await which(name);
  if (path === undefined) return undefined;
  const said = await run([path, '--version'], { timeoutMs: 10_000 }).catch(() => undefined);
  const minor = /v1\.\d+/.exec(version)?.[0];
  return said?.code === 0 && /v1\.\d+/.exec(said.stdout)?.[0] === minor ? path : undefined;
}

import { chmod, copyFile, mkdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { cached } from './cache.ts';
import { run } from './command.ts';
import { assertGo, goBuild } from './golang.ts';
import { type Log, step } from './progress.ts';
import { which } from './requirements.ts';

/** Kubernetes' own programs, by path. `pause` is the static program of the pause image. */
export interface Binaries {
  readonly kubelet: string;
  readonly kubeApiserver: string;
  readonly pause: string;
}

const source = join(import.meta.dirname, 'k8s');

/**
 * Builds the lab's Kubernetes through the Go module proxy, once: everything in one `go build`, so that kubelet and
 * kube-apiserver share the packages they have in common (half of the time). A kubelet or kube-apiserver of the same
 * minor version that this machine already has on its PATH is taken instead.
 */
export async function ensureBinaries(log: Log): Promise<Binaries> {
  const sources = ['go.mod', 'go.sum', 'pause/main.go'];
  const texts = await Promise.all(sources.map(file => readFile(join(source, file), 'utf8')));
  const version = /k8s\.io\/kubernetes (v\S+)/.exec(texts[0] ?? '')?.[1];
  if (version === undefined) throw new Error(`${source}/go.mod names no version of k8s.io/kubernetes`);
  const own: Own = {
    kubelet: await installed('kubelet', version),
    'kube-apiserver': await installed('kube-apiserver', version),
  };
  const recipe = [...texts, JSON.stringify(own)];
  const directory = await cached('kubernetes', recipe, log, directory => build(directory, version, own, log));
  const path = (name: string): string => join(directory, name);
  return { kubelet: path('kubelet'), kubeApiserver: path('kube-apiserver'), pause: path('pause') };
}

/** What this machine has already, by program. */
type Own = Readonly<Record<'kubelet' | 'kube-apiserver', string | undefined>>;

async function build(directory: string, version: string, own: Own, log: Log): Promise<void> {
  await assertGo();
  const [major = '', minor = ''] = version.slice(1).split('.');
  const versions = { gitVersion: version, gitMajor: major, gitMinor: minor, gitTreeState: 'clean' };
  await mkdir(directory, { recursive: true });
  await step(log, `build Kubernetes ${version} from Go modules (several minutes, once)`, note =>
    goBuild(
      {
        module: source,
        packages: [
          './pause',
          ...Object.entries(own).flatMap(([name, path]) =>
            path === undefined ? [`k8s.io/kubernetes/cmd/${name}`] : [],
          ),
        ],
        output: `${directory}/`,
        flags: ['-mod=readonly'],
        variables: Object.fromEntries(
          Object.entries(versions).map(([name, value]) => [`k8s.io/component-base/version.${name}`, value]),
        ),
      },
      note,
    ),
  );
  for (const [name, path] of Object.entries(own)) {
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

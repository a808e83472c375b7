import { chmod, copyFile, readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { cached } from './cache.ts';
import { must } from './command.ts';
import { assertGo, goBuild } from './golang.ts';
import { type Log, step } from './progress.ts';
import { ensureHeaders, ensureTools } from './requirements.ts';

/** A program that Debian has no package for, and whose authors publish it as a Go module. */
interface Program {
  readonly module: string;
  readonly version: string;
  /** The main package, below the module. */
  readonly main: string;
  /** Linker variables. */
  readonly variables?: Readonly<Record<string, string>>;
  readonly tags?: readonly string[];
  /** Modules of its go.mod that can't be had at that version, and the version that takes their place. */
  readonly replace?: Readonly<Record<string, string>>;
  /** The C libraries that it links, by pkg-config's name, and the Debian packages of their headers. */
  readonly libraries?: Readonly<Record<string, string>>;
  /** Programs in C beside it in the module, and the directory of their sources. */
  readonly helpers?: Readonly<Record<string, string>>;
}

const programs = {
  crictl: {
    module: 'sigs.k8s.io/cri-tools',
    version: 'v1.36.0',
    main: './cmd/crictl',
    variables: { 'sigs.k8s.io/cri-tools/pkg/version.Version': 'v1.36.0' },
  },
  crio: {
    module: 'github.com/cri-o/cri-o',
    version: 'v1.36.2',
    main: './cmd/crio',
    tags: ['containers_image_openpgp', 'exclude_graphdriver_btrfs', 'libsqlite3', 'seccomp'],
    // The release asks for v0.36.0-rc.0 of this one, which the proxy does not serve; v0.36.3 has another cri-api.
    replace: { 'k8s.io/cri-client': 'v0.36.0' },
    libraries: { libseccomp: 'libseccomp-dev', sqlite3: 'libsqlite3-dev' },
    helpers: { pinns: 'pinns/src' },
  },
  'cri-dockerd': {
    module: 'github.com/Mirantis/cri-dockerd',
    version: 'v0.4.0',
    main: '.',
    variables: { 'github.com/Mirantis/cri-dockerd/cmd/version.Version': '0.4.0' },
  },
  /** Of no node: the benchmarks put it on one, as what others push to. */
  registry: {
    module: 'github.com/distribution/distribution/v3',
    version: 'v3.1.2',
    main: './cmd/registry',
    variables: { 'github.com/distribution/distribution/v3/version.version': 'v3.1.2' },
  },
} as const satisfies Readonly<Record<string, Program>>;

export type ProgramName = keyof typeof programs;

/** Builds a program once, as its own go.mod and go.sum say. Returns it and its helpers, by name. */
export async function ensureProgram(name: ProgramName, log: Log): Promise<ReadonlyMap<string, string>> {
  const program: Program = programs[name];
  const directory = await cached(name, [JSON.stringify(program)], log, async directory => {
    await assertGo();
    if (program.libraries) await ensureHeaders(log, program.libraries);
    if (program.helpers) await ensureTools(log, { cc: 'gcc' });
    await step(log, `build ${name} ${program.version} from its Go module (minutes, once)`, note =>
      build(name, program, directory, note),
    );
  });
  return new Map([name, ...Object.keys(program.helpers ?? {})].map(file => [file, join(directory, file)]));
}

async function build(name: string, program: Program, directory: string, note: Log): Promise<void> {
  const { module, version, main, variables = {}, tags = [], replace = {}, helpers = {} } = program;
  const downloaded = await must(['go', 'mod', 'download', '-json', `${module}@${version}`], { timeoutMs: 10 * 60_000 });
  const source = (JSON.parse(downloaded) as { Dir: string }).Dir;
  // The module's own directory is read-only, and so is its go.mod there.
  const modfile = join(directory, 'go.mod');
  for (const file of ['go.mod', 'go.sum']) {
    await copyFile(join(source, file), join(directory, file));
    await chmod(join(directory, file), 0o644);
  }
  for (const [path, instead] of Object.entries(replace))
    await must(['go', 'mod', 'edit', `-replace=${path}=${path}@${instead}`, modfile]);
  await goBuild(
    {
      module: source,
      packages: [main],
      output: join(directory, name),
      // What a replacement brings is not in the module's go.sum: Go's checksum database vouches for it.
      flags: [
        `-modfile=${modfile}`,
        Object.keys(replace).length > 0 ? '-mod=mod' : '-mod=readonly',
        `-tags=${tags.join(',')}`,
      ],
      variables,
      cgo: program.libraries !== undefined,
    },
    note,
  );
  for (const [helper, sources] of Object.entries(helpers)) {
    const files = (await readdir(join(source, sources))).filter(file => file.endsWith('.c'));
    const paths = files.map(file => join(source, sources, file));
    await must(['cc', '-std=c99', '-Os', '-static', '-o', join(directory, helper), ...paths]);
  }
}

import { must } from './command.ts';
import type { Log } from './progress.ts';
import { which } from './requirements.ts';

export interface GoBuild {
  /** The directory of the main module. */
  readonly module: string;
  readonly packages: readonly string[];
  /** A file for one package, a directory that ends in a slash for several. */
  readonly output: string;
  readonly flags?: readonly string[];
  /** Linker variables, by their full names. */
  readonly variables?: Readonly<Record<string, string>>;
  /** Without cgo programs are static: they run on every root filesystem, whatever its libc. */
  readonly cgo?: boolean;
}

/** Runs `go build`, in a PID namespace that ends with us. @throws when there is no Go. */
export async function goBuild(
  { module, packages, output, flags = [], variables = {}, cgo = false }: GoBuild,
  note: Log,
): Promise<void> {
  const ldflags = ['-s -w', ...Object.entries(variables).map(([name, value]) => `-X ${name}=${value}`)];
  await must(
    [
      ...['setpriv', '--pdeathsig', 'KILL', 'unshare', '--pid', '--fork', '--kill-child'],
      ...['go', 'build', '-v', '-trimpath', ...flags],
      ...['-ldflags', ldflags.join(' '), '-o', output, ...packages],
    ],
    {
      cwd: module,
      env: { ...process.env, CGO_ENABLED: cgo ? '1' : '0', GOWORK: 'off' },
      timeoutMs: 60 * 60_000,
      onLine: note,
    },
  );
}

export async function assertGo(): Promise<void> {
  if (!(await which('go'))) throw new Error('the lab builds programs of its nodes: that needs Go (1.26 or later)');
}

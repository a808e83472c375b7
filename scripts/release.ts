/**
 * `node scripts/release.ts [--tag vX.Y.Z] DIRECTORY`: what a release consists of, from what is checked in, the same bytes on
 * every machine:
 *
 * - `kube-sideload.cjs`, the command line in one file, and `kube-sideload.licenses.txt` of what is in it
 * - `kube-sideload-VERSION.tar.gz`, the repository as it is at this commit, for servers without a way to ours
 * - `sbom.cdx.json`, the packages that are in `dist/` (CycloneDX)
 * - `SHA256SUMS` of these
 * - `NOTES.md`, this version's part of the changelog
 *
 * With a tag, version and changelog must agree with it.
 */
import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { chmodSync, copyFileSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { parseArgs } from 'node:util';

const root = resolve(import.meta.dirname, '..');
const read = (file: string) => readFileSync(join(root, file), 'utf8');

interface Sbom {
  serialNumber?: string;
  readonly metadata: { timestamp: string; component: { name: string; readonly 'bom-ref': string } };
  components: readonly {
    readonly group?: string;
    readonly name: string;
    readonly 'bom-ref': string;
    externalReferences?: readonly { readonly type: string }[];
  }[];
  dependencies: readonly { readonly ref: string; dependsOn: readonly string[] }[];
}

const { values, positionals } = parseArgs({ options: { tag: { type: 'string' } }, allowPositionals: true });
const [directory] = positionals;
if (directory === undefined) {
  throw new Error('name the directory for the release');
}
const { name, version } = JSON.parse(read('package.json')) as { name: string; version: string };
if (values.tag !== undefined && values.tag !== `v${version}`) {
  throw new Error(`the tag is ${values.tag}, and package.json says ${version}`);
}
const notes = notesOf(read('CHANGELOG.md'), values.tag === undefined ? 'Unreleased' : version);

mkdirSync(directory, { recursive: true });
const left = readdirSync(directory);
if (left.length > 0) {
  throw new Error(`${directory} is not empty: ${left.join(', ')}`);
}
const at = (file: string) => join(directory, file);
copyFileSync(join(root, 'dist', 'cli', 'index.js'), at(`${name}.cjs`));
chmodSync(at(`${name}.cjs`), 0o755);
copyFileSync(join(root, 'dist', 'cli', 'licenses.txt'), at(`${name}.licenses.txt`));
const archive = [
  'archive',
  '--format=tar.gz',
  `--prefix=${name}-${version}/`,
  `--output=${resolve(at(`${name}-${version}.tar.gz`))}`,
];
execFileSync('git', [...archive, 'HEAD'], { cwd: root });
writeFileSync(at('sbom.cdx.json'), sbom());
const sums = readdirSync(directory).map(
  file =>
    `${createHash('sha256')
      .update(readFileSync(at(file)))
      .digest('hex')}  ${file}`,
);
writeFileSync(at('SHA256SUMS'), `${sums.join('\n')}\n`);
writeFileSync(at('NOTES.md'), notes);

/** The part of the changelog below `## VERSION`, without the heading. @throws when there is none, or nothing in it */
function notesOf(changelog: string, wanted: string): string {
  const parts = changelog.split(/^## /m).map(part => part.split('\n'));
  const part = parts.find(([heading = '']) => heading.replaceAll(/[[\]]/g, '').split(/[ ,]/)[0] === wanted);
  const text = part?.slice(1).join('\n').trim();
  if (text === undefined || text === '') {
    throw new Error(`CHANGELOG.md says nothing of ${wanted}`);
  }
  return `${text}\n`;
}

/**
 * npm's own list, cut to what the bundles have in them by the licences that ncc has put beside them, and without what
 * changes from run to run and from machine to machine.
 */
function sbom(): string {
  const options = ['--sbom-format', 'cyclonedx', '--package-lock-only'];
  const text = execFileSync('npm', ['sbom', ...options], {
    cwd: root,
    encoding: 'utf8',
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  const bom = JSON.parse(text) as Sbom;
  const bundled = new Set(['action', 'cli'].flatMap(entry => read(`dist/${entry}/licenses.txt`).split('\n')));
  bom.components = bom.components.filter(component => bundled.has(component['bom-ref'].replace(/@[^@]*$/, '')));
  const refs = new Set([bom.metadata.component, ...bom.components].map(component => component['bom-ref']));
  bom.dependencies = bom.dependencies
    .filter(({ ref }) => refs.has(ref))
    .map(({ ref, dependsOn }) => ({ ref, dependsOn: dependsOn.filter(one => refs.has(one)) }));
  for (const component of bom.components) {
    // Where this machine got it from; the package's URL says what it is.
    component.externalReferences = component.externalReferences?.filter(({ type }) => type !== 'distribution') ?? [];
  }
  delete bom.serialNumber;
  const committed = ['show', '--no-patch', '--format=%cI', 'HEAD'];
  bom.metadata.timestamp = execFileSync('git', committed, { cwd: root, encoding: 'utf8' }).trim();
  bom.metadata.component.name = name;
  return `${JSON.stringify(bom, undefined, 2)}\n`;
}

/**
 * Writes what is made from the tables in `src/`: `action.yml`, the reusable workflow, GitLab's component, the tables of README.md, the
 * schemas, the files of `docs/privileges/`, `src/version.ts`.
 * With `--check` nothing is written, and any difference is an error. With `--pin` the reusable workflow names the action by the
 * commit that is checked out, for a release; else it goes on naming it as it does.
 */
import { execFileSync } from 'node:child_process';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { stringify } from 'yaml';
import { OUTPUTS } from '../src/host/host.ts';
import { INPUT_NAMES, inputSpec } from '../src/inputs.ts';
import { sideloadComponent } from './component.ts';
import { flowSvg } from './flow.ts';
import { inventorySchema } from './inventory-schema.ts';
import { PRIVILEGE_FILES } from './privileges.ts';
import { reportSchema } from './report-schema.ts';
import { type ActionRevision, sideloadWorkflow } from './workflow.ts';

const root = resolve(import.meta.dirname, '..');
const check = process.argv.includes('--check');
const read = (file: string) => readFileSync(join(root, file), 'utf8');
const SIDELOAD = '.github/workflows/sideload.yml';
const { version, description } = JSON.parse(read('package.json')) as { version: string; description: string };

function actionYaml(): string {
  const inputs = Object.fromEntries(
    INPUT_NAMES.map(name => {
      const { help, default: preset } = inputSpec(name);
      // The default is shown and not set here: a value that comes from here could not be told from the user's own.
      return [name, { description: preset === undefined ? help : `${help} Default: ${preset}.`, required: false }];
    }),
  );
  const outputs = Object.fromEntries(Object.entries(OUTPUTS).map(([name, text]) => [name, { description: text }]));
  const action = {
    name: 'kube-sideload',
    description,
    author: 'kube-sideload contributors',
    branding: { icon: 'upload-cloud', color: 'blue' },
    inputs,
    outputs,
    runs: { using: 'node24', main: 'dist/action/index.js', post: 'dist/action/index.js' },
  };
  return `# Generated from src/inputs.ts by \`npm run generate\`; do not edit.\n${stringify(action, { lineWidth: 0 })}`;
}

/** What stands after the `@`: the pin that a release has set, or the major tag when there has been none. */
function actionRevision(): ActionRevision {
  if (process.argv.includes('--pin')) {
    const head = execFileSync('git', ['rev-parse', 'HEAD'], { cwd: root, encoding: 'utf8' }).trim();
    return { revision: head, version: `v${version}` };
  }
  const [, commit, pinned] =
    /^ *uses: kube-sideload\/kube-sideload@([0-9a-f]{40}) # (v\S+)$/m.exec(read(SIDELOAD)) ?? [];
  return { revision: commit ?? `v${version.split('.')[0]}`, version: pinned };
}

function inputsTable(): string {
  const rows = INPUT_NAMES.map(name => {
    const { type, help, default: preset } = inputSpec(name);
    const choices = typeof type === 'object' ? ` One of ${type.oneOf.map(option => `\`${option}\``).join(', ')}.` : '';
    return `| \`${name}\` | ${`${help}${choices}`.replaceAll('|', String.raw`\|`)} | ${preset === undefined ? '' : `\`${preset}\``} |`;
  });
  return ['| input | meaning | default |', '| --- | --- | --- |', ...rows].join('\n');
}

function outputsTable(): string {
  const rows = Object.entries(OUTPUTS).map(([name, text]) => `| \`${name}\` | ${text} |`);
  return ['| output | meaning |', '| --- | --- |', ...rows].join('\n');
}

/** Replaces what stands between `<!-- NAME -->` and `<!-- /NAME -->`. */
function between(text: string, name: string, content: string): string {
  const [start, end] = [`<!-- ${name} -->\n`, `\n<!-- /${name} -->`];
  const [from, to] = [text.indexOf(start), text.indexOf(end)];
  if (from < 0 || to < from) {
    throw new Error(`README.md has no place for ${name}`);
  }
  return text.slice(0, from + start.length) + content + text.slice(to);
}

const generated: Readonly<Record<string, string>> = {
  'schemas/inventory.schema.json': inventorySchema('inventory'),
  'schemas/kube-sideload.schema.json': inventorySchema('config'),
  'schemas/report.schema.json': reportSchema(),
  'action.yml': actionYaml(),
  [SIDELOAD]: sideloadWorkflow(actionRevision()),
  'templates/sideload/template.yml': sideloadComponent(),
  'docs/flow.svg': flowSvg(),
  ...PRIVILEGE_FILES,
  'README.md': between(between(read('README.md'), 'inputs', inputsTable()), 'outputs', outputsTable()),
  'src/version.ts': `/** The version of this build; \`scripts/generate.ts\` keeps it equal to the one in package.json. */\nexport const VERSION = '${version}';\n`,
};

const stale: string[] = [];
for (const [file, content] of Object.entries(generated)) {
  let current = '';
  try {
    current = read(file);
  } catch {
    // A file that is not there yet differs.
  }
  if (current !== content) {
    stale.push(file);
    if (!check) {
      mkdirSync(dirname(join(root, file)), { recursive: true });
      writeFileSync(join(root, file), content);
    }
  }
}
if (check && stale.length > 0) {
  console.error(`not up to date: ${stale.join(', ')}; run \`npm run generate\``);
  process.exit(1);
}

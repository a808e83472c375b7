import { Document, type Scalar } from 'yaml';
import { OUTPUTS } from '../src/host/host.ts';
import { variableOf } from '../src/host/terminal.ts';
import { INPUT_NAMES, type InputName, inputSpec } from '../src/inputs.ts';

const DOWNLOAD = 'actions/download-artifact@634f93cb2916e3fdff6788551b99b062d0335ce0';
const DOWNLOAD_VERSION = 'v5.0.0';

/** The form of a manual run takes 25 inputs on github.com, and 10 on servers of before: one more makes the file invalid there. */
const MOST_MANUAL = 10;

/** The matrix is looked up, because an expression cannot count. */
const MOST_SHARDS = 16;

/** `shard` is the matrix's business. */
const INPUTS_HERE = INPUT_NAMES.filter(name => name !== 'shard');

interface WorkflowInput {
  readonly description: string;
  readonly type: string;
  readonly options?: readonly string[];
  readonly default?: string | number | boolean;
  readonly required?: boolean;
}

/** Inputs of the workflow that the action does not have, in the form of a call. */
const OWN: Readonly<Record<string, WorkflowInput>> = {
  artifact: {
    description:
      'An artifact of this run with the image; `archive` is then the file in it, or nothing when the artifact is a directory with an OCI layout.',
    type: 'string',
  },
  shards: {
    description: `How many runners share the nodes, ${MOST_SHARDS} at most. The outputs are empty with more than one.`,
    type: 'number',
    default: 1,
  },
  cluster: {
    description: 'A name for the cluster: runs with the same name wait for one another.',
    type: 'string',
    default: 'default',
  },
  'runs-on': {
    description: 'The runner, as JSON: `"self-hosted"`, or `["self-hosted", "linux", "edge"]`.',
    type: 'string',
    default: '"self-hosted"',
  },
  'timeout-minutes': { description: 'How long the whole job may take.', type: 'number', default: 60 },
};

const MANUAL_OWN = ['shards', 'cluster', 'runs-on'];

/** What GitHub's runner evaluates. */
const evaluated = (text: string) => `\${{ ${text} }}`;

/** How the workflow names the action: by a tag, or by a commit with the version that it is. */
export interface ActionRevision {
  readonly revision: string;
  readonly version: string | undefined;
}

/** `.github/workflows/sideload.yml`. */
export function sideloadWorkflow({ revision, version }: ActionRevision): string {
  const content = {
    name: 'sideload',
    on: {
      workflow_call: { inputs: callInputs(), secrets: secrets(), outputs: outputs() },
      workflow_dispatch: { inputs: manualInputs() },
    },
    permissions: {},
    concurrency: { group: `kube-sideload-${evaluated('inputs.cluster')}`, 'cancel-in-progress': false },
    jobs: { sideload: job(revision) },
  };
  const document = new Document(content, { aliasDuplicateObjects: false });
  document.commentBefore = [
    ' Generated from src/inputs.ts by `npm run generate`; do not edit.',
    ' Puts an image that is on the runner, or in an artifact of this run, on the nodes. Builds nothing.',
    ' docs/guides/github.md explains it; docs/guides/github-enterprise-server.md what to change on other servers.',
  ].join('\n');
  const comments = [DOWNLOAD_VERSION, version];
  for (const [step, text] of comments.entries()) {
    const uses = document.getIn(['jobs', 'sideload', 'steps', step, 'uses'], true) as Scalar;
    if (text !== undefined) uses.comment = ` ${text}`;
  }
  return document.toString({ lineWidth: 0 });
}

/** The words for an input, with the default that the action itself will use. */
function description(name: InputName): string {
  const { help, default: preset } = inputSpec(name);
  return preset === undefined ? help : `${help} Default: ${preset}.`;
}

function isBoolean(name: InputName): boolean {
  const { type } = inputSpec(name);
  return typeof type === 'object' && type.oneOf.length === 2 && type.oneOf.includes('true');
}

function isSecret(name: InputName): boolean {
  return inputSpec(name).type === 'secret';
}

/**
 * Texts and numbers are empty and 0 unless set, so that what the inventory says still counts. A boolean is always one of
 * two: it carries its default, and that one is passed on as not set.
 */
function callInput(name: InputName): WorkflowInput {
  const { type, default: preset } = inputSpec(name);
  if (isBoolean(name)) {
    return { description: description(name), type: 'boolean', default: preset === 'true' };
  }
  if (type === 'port') {
    return { description: description(name), type: 'number' };
  }
  return { description: description(name), type: 'string', ...(name === 'mode' && { default: preset ?? '' }) };
}

function callInputs(): Readonly<Record<string, WorkflowInput>> {
  const own = INPUTS_HERE.filter(name => !isSecret(name)).map(name => [name, callInput(name)] as const);
  return Object.fromEntries([...own, ...Object.entries(OWN)]);
}

function manualInputs(): Readonly<Record<string, WorkflowInput>> {
  const inputs = INPUTS_HERE.filter(name => inputSpec(name).manual === true).map(name => {
    const { type, default: preset } = inputSpec(name);
    if (typeof type !== 'object' || isBoolean(name)) {
      return [name, callInput(name)] as const;
    }
    const options = name === 'mode' ? type.oneOf : ['', ...type.oneOf];
    const form = { description: description(name), type: 'choice', options, default: name === 'mode' ? preset : '' };
    return [name, form as WorkflowInput] as const;
  });
  const all = [...inputs, ...MANUAL_OWN.map(name => [name, OWN[name] as WorkflowInput] as const)];
  if (all.length > MOST_MANUAL) {
    throw new Error(`the form of a manual run has ${all.length} inputs, ${MOST_MANUAL} at most: see \`manual\``);
  }
  return Object.fromEntries(all);
}

/** Under the names of the variables that the command line reads, so that repository secrets and `inherit` fit. */
function secrets(): Readonly<Record<string, object>> {
  const names = INPUTS_HERE.filter(name => isSecret(name) || inputSpec(name).sensitive === true);
  return Object.fromEntries(
    names.map(name => [variableOf(name), { description: inputSpec(name).help, required: false }]),
  );
}

/** One job's outputs cannot speak for several shards, and a wrong `changed: false` would be worse than none. */
function outputs(): Readonly<Record<string, object>> {
  return Object.fromEntries(
    Object.entries(OUTPUTS).map(([name, text]) => [
      name,
      {
        description: text,
        value: evaluated(`inputs.shards == 1 && jobs.sideload.outputs.${name} || ''`),
      },
    ]),
  );
}

function job(revision: string): object {
  const shards = Object.fromEntries(
    Array.from({ length: MOST_SHARDS }, (_, last) => [last + 1, Array.from({ length: last + 1 }, (_, i) => i + 1)]),
  );
  return {
    name: `${evaluated('inputs.mode')}${evaluated("inputs.shards > 1 && format(' {0}/{1}', matrix.shard, inputs.shards) || ''")}`,
    'runs-on': evaluated('fromJSON(inputs.runs-on)'),
    'timeout-minutes': evaluated(`inputs.timeout-minutes || ${OWN['timeout-minutes']?.default}`),
    strategy: {
      'fail-fast': false,
      matrix: { shard: evaluated(`fromJSON('${JSON.stringify(shards)}')[format('{0}', inputs.shards)]`) },
    },
    outputs: Object.fromEntries(Object.keys(OUTPUTS).map(name => [name, evaluated(`steps.sideload.outputs.${name}`)])),
    steps: [
      {
        name: 'Fetch the archive',
        if: "inputs.artifact != ''",
        uses: DOWNLOAD,
        with: { name: evaluated('inputs.artifact'), path: `${evaluated('runner.temp')}/kube-sideload-artifact` },
      },
      {
        name: 'Sideload',
        id: 'sideload',
        uses: `kube-sideload/kube-sideload@${revision}`,
        with: {
          ...Object.fromEntries(INPUTS_HERE.map(name => [name, evaluated(expression(name))])),
          shard: evaluated("inputs.shards > 1 && format('{0}/{1}', matrix.shard, inputs.shards) || ''"),
        },
      },
    ],
  };
}

/** What the action gets for an input; empty when it was not set. */
function expression(name: InputName): string {
  const { sensitive, default: preset } = inputSpec(name);
  if (isSecret(name)) {
    return `secrets.${variableOf(name)}`;
  }
  if (isBoolean(name)) {
    const other = preset === 'true' ? 'false' : 'true';
    return `format('{0}', inputs.${name}) == '${other}' && '${other}' || ''`;
  }
  if (name === 'archive') {
    return "inputs.artifact && format('{0}/kube-sideload-artifact/{1}', runner.temp, inputs.archive) || inputs.archive";
  }
  // An unset number is 0, and 0 is no port.
  return `${sensitive === true ? `secrets.${variableOf(name)} || ` : ''}inputs.${name}${inputSpec(name).type === 'port' ? " || ''" : ''}`;
}

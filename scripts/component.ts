import { Document } from 'yaml';
import { variableOf } from '../src/host/terminal.ts';
import { INPUT_NAMES, type InputName, inputSpec, isInputName } from '../src/inputs.ts';

interface ComponentInput {
  readonly description: string;
  readonly type?: 'string' | 'number' | 'boolean' | 'array';
  readonly options?: readonly string[];
  readonly regex?: string;
  readonly default: string | number;
}

const interpolated = (name: string) => `$[[ inputs.${name} ]]`;

/** Inputs of the component that the program does not have. */
const OWN: Readonly<Record<string, ComponentInput>> = {
  stage: { description: 'The stage of the job.', default: 'deploy' },
  'job-name': { description: 'The name of the job.', default: 'kube-sideload' },
  tool: {
    description:
      'Where the program is: `preinstalled` on the runner or in the image that the pipeline uses, in `job-image`, or in a `clone` of `component-project` at the revision of this component, which needs git and Node 20 or later in the job.',
    options: ['preinstalled', 'image', 'clone'],
    default: 'preinstalled',
  },
  program: {
    description: 'The program, for `preinstalled` and `image`: a name or a path.',
    regex: String.raw`^[\w./-]+$`,
    default: 'kube-sideload',
  },
  'job-image': {
    description: 'The image of the job, for `tool: image`.',
    default: '$CI_REGISTRY/kube-sideload/kube-sideload:latest',
  },
  'component-project': {
    description: 'The path of the project of this component on this server, for `tool: clone`.',
    regex: String.raw`^[\w.-]+(/[\w.-]+)+$`,
    default: 'kube-sideload/kube-sideload',
  },
  cluster: {
    description: 'A name for the cluster: jobs with the same name wait for one another.',
    regex: String.raw`^[\w.-]+$`,
    default: 'default',
  },
  shards: { description: 'How many jobs share the nodes.', type: 'number', default: 1 },
};

/** What the program writes for GitLab itself, once it can: input, file, kind of report. */
const REPORTS: readonly { readonly name: string; readonly file: string; readonly kind: string | undefined }[] = [
  { name: 'report-junit', file: 'kube-sideload.xml', kind: 'junit' },
  { name: 'report-dotenv', file: 'kube-sideload.env', kind: 'dotenv' },
  { name: 'report-json', file: 'kube-sideload.json', kind: undefined },
];

/** `shard` is the business of `parallel`; secrets are variables of the project and never inputs, which everybody may read. */
const INPUTS_HERE = INPUT_NAMES.filter(
  name => name !== 'shard' && inputSpec(name).type !== 'secret' && REPORTS.every(report => report.name !== name),
);

const COMMENT = ` Generated from src/inputs.ts by \`npm run generate\`; do not edit.
 Puts an image that the runner has, or an archive of an earlier job, on Kubernetes nodes. docs/guides/gitlab.md explains it.
 Needs GitLab 18.6 or later (\`spec: component\`). Secrets are variables of the project: ${INPUT_NAMES.filter(
   name => inputSpec(name).type === 'secret',
 )
   .map(variableOf)
   .join(', ')}.`;

/**
 * One shell script for every way to the program. Nothing of it comes from an input: values arrive as variables.
 * `git` gets the job's token from a credential helper, not from its command line, which other users of a runner can see.
 */
const SCRIPT = `set -eu
if [ -n "\${CI_NODE_INDEX:-}" ]; then
  export ${variableOf('shard')}="$CI_NODE_INDEX/$CI_NODE_TOTAL"
fi
if [ "$SIDELOAD_TOOL" = clone ]; then
  printf '\\033[0Ksection_start:%s:sideload_clone[collapsed=true]\\r\\033[0KFetch %s at %s\\n' "$(date +%s)" "$SIDELOAD_PROJECT" "$SIDELOAD_REVISION"
  sideload_clone="$(mktemp -d)"
  trap 'rm -rf "$sideload_clone"' EXIT
  git init --quiet "$sideload_clone"
  git -C "$sideload_clone" -c credential.helper= \\
    -c credential.helper='!f() { echo username=gitlab-ci-token; echo "password=$CI_JOB_TOKEN"; }; f' \\
    fetch --quiet --depth=1 "$CI_SERVER_URL/$SIDELOAD_PROJECT.git" "$SIDELOAD_REVISION"
  git -C "$sideload_clone" -c advice.detachedHead=false checkout --quiet FETCH_HEAD
  test "$(git -C "$sideload_clone" rev-parse HEAD)" = "$SIDELOAD_REVISION"
  printf '\\033[0Ksection_end:%s:sideload_clone\\r\\033[0K\\n' "$(date +%s)"
  node "$sideload_clone/dist/cli/index.js" "$${variableOf('mode')}"
else
  "$SIDELOAD_PROGRAM" "$${variableOf('mode')}"
fi
`;

/** `templates/sideload/template.yml`: two documents, the inputs and the jobs. */
export function sideloadComponent(): string {
  const spec = new Document(
    { spec: { component: ['name', 'sha'], inputs: inputs() } },
    { aliasDuplicateObjects: false },
  );
  spec.commentBefore = COMMENT;
  const jobs = new Document(job());
  return `${spec.toString({ lineWidth: 0 })}---\n${jobs.toString({ lineWidth: 0 })}`;
}

function inputs(): Readonly<Record<string, ComponentInput>> {
  return { ...OWN, ...Object.fromEntries(INPUTS_HERE.map(name => [name, componentInput(name)])) };
}

/** Empty is what is not set, as in every variable of CI, so that an inventory of the runner still counts. */
function componentInput(name: InputName): ComponentInput {
  const { type, help, default: preset } = inputSpec(name);
  const description = preset === undefined ? help : `${help} Default: ${preset}.`;
  if (name === 'mode') {
    return { description, options: typeof type === 'object' ? type.oneOf : [], default: preset ?? '' };
  }
  if (typeof type === 'object') {
    return { description, options: ['', ...type.oneOf], default: '' };
  }
  const regex = { port: String.raw`^\d{0,5}$`, seconds: String.raw`^(\d{1,6}[smh]?)?$`, path: String.raw`^[^\r\n]*$` };
  return { description, ...(type in regex && { regex: regex[type as keyof typeof regex] }), default: '' };
}

function job(): object {
  const reports = REPORTS.filter(({ name }) => isInputName(name));
  const of = (kind: string) => reports.filter(report => report.kind === kind).map(({ kind, file }) => [kind, file]);
  return {
    '.kube-sideload-preinstalled': { variables: { SIDELOAD_TOOL: 'preinstalled' } },
    '.kube-sideload-image': { variables: { SIDELOAD_TOOL: 'image' }, image: interpolated('job-image') },
    '.kube-sideload-clone': { variables: { SIDELOAD_TOOL: 'clone' } },
    [interpolated('job-name')]: {
      extends: `.kube-sideload-${interpolated('tool')}`,
      stage: interpolated('stage'),
      parallel: interpolated('shards'),
      // By shard, else the shards of one pipeline would wait for one another.
      resource_group: `kube-sideload-${interpolated('cluster')}-$CI_NODE_INDEX-of-$CI_NODE_TOTAL`,
      variables: {
        SIDELOAD_PROGRAM: interpolated('program'),
        SIDELOAD_PROJECT: interpolated('component-project'),
        SIDELOAD_REVISION: '$[[ component.sha ]]',
        ...Object.fromEntries(INPUTS_HERE.map(name => [variableOf(name), interpolated(name)])),
        ...Object.fromEntries(reports.map(({ name, file }) => [variableOf(name as InputName), file])),
      },
      script: [SCRIPT],
      ...(reports.length > 0 && {
        artifacts: {
          when: 'always',
          paths: reports.map(({ file }) => file),
          reports: Object.fromEntries([...of('junit'), ...of('dotenv')]),
        },
      }),
    },
  };
}

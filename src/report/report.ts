import * as v from 'valibot';
import { ERRORS, type ErrorCode, type SideloadError } from '../errors.ts';
import { harmless } from './text.ts';

/**
 * The record of a run, as valibot schemas: they type it here, and `schemas/report.schema.json` is made from them. Fields
 * may be added at any time; one that goes or changes its meaning raises {@link SCHEMA_VERSION}.
 */
export const SCHEMA_VERSION = 1;

const list = <const T extends v.GenericSchema>(item: T) => v.pipe(v.array(item), v.readonly());
const text = (description: string) => v.pipe(v.string(), v.description(description));
const count = (description: string) => v.pipe(v.number(), v.integer(), v.minValue(0), v.description(description));
const time = (description: string) => v.pipe(v.string(), v.isoTimestamp(), v.description(description));

/** A code of `src/errors.ts`; the published schema leaves the list open, since every version adds to it. */
const Code = v.pipe(
  v.string(),
  v.regex(/^[A-Z][A-Z0-9_]*$/),
  v.description('An error code; docs/troubleshooting.md explains each.'),
) as unknown as v.GenericSchema<ErrorCode>;

const errorEntries = {
  code: Code,
  message: text('What happened.'),
  hint: text('The next step.'),
};

const ErrorSchema = v.pipe(v.object(errorEntries), v.readonly());

const FindingSchema = v.pipe(
  v.object({
    node: text('The node as the user named it, or the Kubernetes name of one that is not in the list.'),
    severity: v.pipe(v.picklist(['error', 'warning']), v.description('An error stops the job, on all nodes.')),
    ...errorEntries,
  }),
  v.readonly(),
  v.description('Something that would go wrong on a node, or might, found before anything was sent.'),
);

const ImageSchema = v.pipe(
  v.object({
    reference: text('The fully qualified reference.'),
    spelling: v.optional(
      text('What pods write for it, and the smoke pod did; absent when that is the reference itself.'),
    ),
    imageId: text('Config digest that CI built for the platform of the node.'),
    isSandbox: v.optional(v.pipe(v.boolean(), v.description('Whether it was sent along for the sandboxes of pods.'))),
    outcome: v.pipe(
      v.picklist(['present', 'sent', 'restored', 'changed', 'none']),
      v.description(
        '`present`: the node held it already; `sent`: it was sent, and the reference named it; `restored`: it was there, the job failed, and the reference is again what it was before; `changed`: somebody else has given the reference to another image since, or taken it away; `none`: it did not get that far. `isHeld` says what is so at the end.',
      ),
    ),
    isHeld: v.optional(
      v.pipe(
        v.boolean(),
        v.description(
          'Whether the node held exactly this image under the reference when it was looked at last, which is the end of a push and all of a check; `false` when nobody has looked then, or when it was put back after that.',
        ),
      ),
    ),
    estimatedBytes: count(
      'What the layers that the node lacks amount to; 0 when it held the image already, or when the image is sent with another of its names.',
    ),
    isEstimateExact: v.pipe(
      v.boolean(),
      v.description(
        'Whether that is about what would be sent, or the most that it can be, as the layers are in the source.',
      ),
    ),
    bytesSent: count('Bytes of the archive that went over the connection.'),
    smoke: v.optional(
      text('The verdict of the kubelet, such as `Running`; absent when no smoke pod was asked to start.'),
    ),
    drift: v.optional(
      v.pipe(
        v.picklist(['missing', 'other-image', 'not-unpacked', 'not-pinned', 'no-platform']),
        v.description(
          'How the node differed from what should be there when it was looked at last; absent when it did not.',
        ),
      ),
    ),
    error: v.optional(ErrorSchema),
  }),
  v.readonly(),
  v.description('What became of one image on one node.'),
);

const RetentionSchema = v.pipe(
  v.object({
    reference: text('The fully qualified reference.'),
    imageId: text('What it named when it was put there.'),
    placedAt: time('When that was, by the clock of the runner.'),
    fate: v.pipe(
      v.picklist(['kept', 'in-use', 'changed', 'gone', 'removable', 'removed']),
      v.description(
        '`kept`: one of the newest releases; `in-use`: older, and some container was made from it; `changed`, `gone`: somebody gave the name to another image, or took it away; `removable`: older and unused, and still there; `removed`: it was, and is gone.',
      ),
    ),
  }),
  v.readonly(),
  v.description('A reference that this tool had put on the node.'),
);

const NodeSchema = v.pipe(
  v.object({
    node: text('The node as the user named it.'),
    address: text('Host and port that were connected to.'),
    kubernetesName: v.optional(text('`metadata.name` of the Kubernetes node, once known.')),
    platform: v.optional(text('Such as `linux/amd64`; absent when the node was not reached.')),
    runtime: v.optional(text('Name and version of the container runtime; absent when the node was not reached.')),
    images: list(ImageSchema),
    bytesSent: count('Sum over the images.'),
    startedAt: time('When the run turned to this node.'),
    endedAt: time('When the last thing was done or known of it.'),
    durationMs: count('Milliseconds between the two.'),
    findings: list(FindingSchema),
    retention: v.pipe(
      v.optional(list(RetentionSchema)),
      v.description('What became of what had been put there before; absent when that was not looked at.'),
    ),
    error: v.optional(ErrorSchema),
    otherErrors: v.pipe(
      v.optional(list(ErrorSchema)),
      v.description('What went wrong there besides, such as when it was put in order after the first error.'),
    ),
  }),
  v.readonly(),
  v.description('What became of one node.'),
);

const StageSchema = v.pipe(
  v.object({ title: text('As in the log.'), startedAt: time('When it began.'), durationMs: count('Milliseconds.') }),
  v.readonly(),
);

const Images = v.pipe(v.record(v.string(), v.pipe(v.record(v.string(), v.string()), v.readonly())), v.readonly());

const reportEntries = {
  run: v.optional(text('ID of the run; absent when the inputs were wrong and none began.')),
  mode: text('`push`, `plan`, and whatever else the `mode` input takes.'),
  startedAt: time('When the run began.'),
  endedAt: time('When it ended.'),
  stages: list(StageSchema),
  images: v.pipe(
    Images,
    v.description('What was asked for: image ID by platform, by reference. `held` is what is there.'),
  ),
  nodes: list(NodeSchema),
  findings: v.pipe(list(FindingSchema), v.description('About nodes of the cluster that are not in the list.')),
  bundle: v.optional(
    v.pipe(
      v.object({
        path: text('Where it is, as the user named it.'),
        sizeBytes: count('Of the whole file.'),
        digest: text('`sha256:…` of the whole file, for comparing it after it was carried.'),
      }),
      v.readonly(),
      v.description('The file that `mode: bundle` has written; absent otherwise, and when it was not completed.'),
    ),
  ),
  changed: v.pipe(
    v.boolean(),
    v.description(
      'Whether the references of any node moved; with `mode: plan` or `check`, would move in a push; with `prune`, whether any went.',
    ),
  ),
  error: v.pipe(
    v.optional(ErrorSchema),
    v.description('What stopped the run as a whole, when it was no fault of a single node.'),
  ),
  otherErrors: v.pipe(
    v.optional(list(ErrorSchema)),
    v.description('What would have stopped it besides `error`, as far as it came to light in the same run.'),
  ),
};

const ReportSchema = v.pipe(v.object(reportEntries), v.readonly());

/** The file of `report-json`: the record, who wrote it, and for which job. */
export const DocumentSchema = v.pipe(
  v.object({
    schemaVersion: v.pipe(v.literal(SCHEMA_VERSION), v.description('Raised when a field goes or changes its meaning.')),
    tool: v.pipe(
      v.object({ name: v.literal('kube-sideload'), version: text('Of the bundle that ran.') }),
      v.readonly(),
    ),
    ci: v.pipe(
      v.optional(
        v.pipe(
          v.object({
            system: text('`github`, `gitea`, `gitlab`, `jenkins`; `unknown` when only a commit is known.'),
            commit: v.optional(text('The commit that the job was for.')),
            ref: v.optional(text('Its branch or tag.')),
            run: v.optional(text('The number of the run in the CI system.')),
            runUrl: v.optional(text('The page of the job or its run.')),
          }),
          v.readonly(),
        ),
      ),
      v.description('The job around the run, as far as its environment says; absent outside of CI.'),
    ),
    succeeded: v.pipe(v.boolean(), v.description('Whether every node did what the mode asks for.')),
    durationMs: count('Milliseconds from start to end.'),
    bytesSent: count('Sum over the nodes.'),
    ...reportEntries,
    held: v.optional(
      v.pipe(
        Images,
        v.description(
          'What all nodes were seen to hold at the end of a push or check that succeeded; with `mode: bundle` what the file holds: image ID by platform, by reference. Empty otherwise.',
        ),
      ),
    ),
  }),
  v.readonly(),
);

export type ErrorReport = v.InferOutput<typeof ErrorSchema>;
export type Finding = v.InferOutput<typeof FindingSchema>;
export type ImageReport = v.InferOutput<typeof ImageSchema>;
export type RetentionReport = v.InferOutput<typeof RetentionSchema>;
export type NodeReport = v.InferOutput<typeof NodeSchema>;
export type StageReport = v.InferOutput<typeof StageSchema>;
/** The record of a run, complete before the job fails. */
export type Report = v.InferOutput<typeof ReportSchema>;
export type ReportDocument = v.InferOutput<typeof DocumentSchema>;

export function errorReport({ code, message, hint }: SideloadError): ErrorReport {
  return { code, message, hint };
}

export function bytesSent(report: Report): number {
  return report.nodes.reduce((sum, node) => sum + node.bytesSent, 0);
}

/** Whether every node did what the mode asks for; a push has not before it has seen all of it at the end. */
export function succeeded({ mode, nodes, bundle, error }: Report): boolean {
  const isDone = nodes.length > 0 || bundle !== undefined;
  const isProven = mode !== 'push' || nodes.every(({ images }) => images.every(({ isHeld }) => isHeld === true));
  return error === undefined && isDone && isProven && nodes.every(node => node.error === undefined);
}

/**
 * What is there at the end of a run, image ID by platform, by reference: what every node was seen to hold, or the file of a
 * bundle. Nothing when the run failed, and nothing of a run that has not looked: a plan, or a prune.
 */
export function heldOf(report: Report): ReportDocument['images'] {
  const { images, nodes, bundle } = report;
  if (!succeeded(report)) {
    return {};
  }
  if (bundle !== undefined) {
    return images;
  }
  const heldOn = nodes.map(node => node.images.filter(({ isHeld }) => isHeld === true));
  return Object.fromEntries(
    Object.entries(images).flatMap(([reference, ids]) => {
      const seen = heldOn.flatMap(held => held.find(image => image.reference === reference)?.imageId ?? []);
      const here = Object.entries(ids).filter(([, imageId]) => seen.includes(imageId));
      return seen.length === nodes.length ? [[reference, Object.fromEntries(here)]] : [];
    }),
  );
}

/** What a check has found: by image, or for the whole of a node that could not be asked. */
export function driftOf(report: Report): readonly object[] {
  return report.nodes.flatMap(({ node, images, error }) => {
    const found = images.flatMap(({ reference, imageId, drift, error: fault }) =>
      drift === undefined ? [] : [{ node, reference, imageId, drift, code: fault?.code, message: fault?.message }],
    );
    const unasked = error === undefined || found.length > 0 ? [] : [{ node, drift: 'unknown', ...error }];
    return [...found, ...unasked];
  });
}

/** What was found on any node before anything was sent, those of the list first. */
export function allFindings(report: Report): readonly Finding[] {
  return [...report.nodes.flatMap(node => node.findings), ...report.findings];
}

/** Every warning once, with the nodes that share it. */
export function warningsOf(
  report: Report,
): readonly { readonly nodes: readonly string[]; readonly finding: Finding }[] {
  const groups = new Map<string, { readonly nodes: string[]; readonly finding: Finding }>();
  for (const finding of allFindings(report).filter(({ severity }) => severity === 'warning')) {
    const group = groups.get(keyOf(finding)) ?? { nodes: [], finding };
    group.nodes.push(finding.node);
    groups.set(keyOf(finding), group);
  }
  return [...groups.values()];
}

/**
 * Every error once, with a title for people: nodes that have the same to say share one, and what stopped the run as a whole
 * is not said of its nodes again.
 */
export function errorsOf(report: Report): readonly { readonly title: string; readonly error: ErrorReport }[] {
  const stopped = stoppingErrors(report);
  const found = report.nodes.flatMap(node => nodeErrors(node).map(error => ({ node: node.node, error })));
  const groups = new Map<string, { readonly nodes: string[]; readonly error: ErrorReport }>();
  for (const { node, error } of found) {
    if (stopped.every(one => keyOf(one) !== keyOf(error))) {
      const group = groups.get(keyOf(error)) ?? { nodes: [], error };
      group.nodes.push(node);
      groups.set(keyOf(error), group);
    }
  }
  return [
    ...[...groups.values()].map(({ nodes, error }) => ({
      title: `${listOf(nodes)}: ${ERRORS[error.code].title}`,
      error,
    })),
    ...stopped.map(error => ({ title: ERRORS[error.code].title, error })),
  ];
}

function keyOf({ code, message, hint }: ErrorReport): string {
  return [code, message, hint].join('\n');
}

/** What stopped the run as a whole, the first one first. */
export function stoppingErrors({ error, otherErrors = [] }: Report): readonly ErrorReport[] {
  return error === undefined ? otherErrors : [error, ...otherErrors];
}

/** What went wrong on a node, and with each of its images when that is something else. */
function nodeErrors({ error, otherErrors = [], images }: NodeReport): readonly ErrorReport[] {
  // What a look has found is told of the node in one message with a line for each image.
  const isTold = ({ code, message }: ErrorReport) =>
    code === error?.code && error.message.split('\n').includes(message);
  const own = images.flatMap(image => (image.error === undefined || isTold(image.error) ? [] : [image.error]));
  const all = [...(error === undefined ? [] : [error]), ...own, ...otherErrors];
  return [...new Map(all.map(one => [keyOf(one), one])).values()];
}

/**
 * All that failed, in one line: what stopped the run, and the nodes, each with the codes of everything that was found
 * there.
 */
export function causesOf(report: Report): string {
  const stopped = stoppingErrors(report);
  const isOwn = (error: ErrorReport) => stopped.every(one => keyOf(one) !== keyOf(error));
  const failed = report.nodes.filter(node => node.error !== undefined && nodeErrors(node).some(isOwn));
  const named = failed.map(node => {
    const found = node.findings.filter(({ severity }) => severity === 'error');
    const codes = [...nodeErrors(node).filter(isOwn), ...found].map(({ code }) => code);
    return `${node.node} [${[...new Set(codes)].join(', ')}]`;
  });
  const nodes = `${failed.length} of ${report.nodes.length} nodes failed: ${listOf(named)}`;
  return [
    ...new Set(stopped.map(({ code }) => `${ERRORS[code].title} [${code}]`)),
    ...(failed.length > 0 || stopped.length === 0 ? [nodes] : []),
  ].join('; ');
}

/** What a person has given is wrong, or a file of theirs. */
const INPUT_CODES: ReadonlySet<ErrorCode> = new Set([
  'INPUT_INVALID',
  'INVENTORY_INVALID',
  'SSH_KEY_INVALID',
  'KUBECONFIG_INVALID',
]);

/** Whether all that failed is what a person has given, and nothing was done on any node. */
export function isMisused(report: Report): boolean {
  const found = report.nodes.flatMap(({ findings }) => findings.filter(({ severity }) => severity === 'error'));
  const all = [...stoppingErrors(report), ...report.nodes.flatMap(nodeErrors), ...found];
  return all.length > 0 && all.every(({ code }) => INPUT_CODES.has(code)) && bytesSent(report) === 0 && !report.changed;
}

const NAMED = 10;

/** No more names than anybody reads. */
export function listOf(names: readonly string[]): string {
  const others = names.length > NAMED ? ` and ${names.length - NAMED} more` : '';
  return `${names.slice(0, NAMED).join(', ')}${others}`;
}

/** Fields that nodes, kubelets and engines have worded, at least in part. Others are names, which nobody could use with `***` in them. */
const WORDED: ReadonlySet<string> = new Set(['message', 'hint', 'smoke', 'runtime']);

/** The record as people and other programs may see it: every text is {@link harmless}, and no secret is in one that somebody else worded. */
export function redacted<T extends Report>(record: T, redact: (text: string) => string): T {
  const inside = (value: unknown, field: string): unknown => {
    if (typeof value === 'string') {
      return WORDED.has(field) ? redact(value) : harmless(value);
    }
    if (Array.isArray(value)) {
      return value.map(item => inside(item, field));
    }
    return typeof value === 'object' && value !== null
      ? Object.fromEntries(Object.entries(value).map(([name, item]) => [harmless(name), inside(item, name)]))
      : value;
  };
  return inside(record, '') as T;
}

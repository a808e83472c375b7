import { SideloadError } from '../errors.ts';
import { asList, asObject, asText, isMapping, type JsonObject } from '../image/json.ts';
import { normalise } from '../image/reference.ts';
import { readYaml } from '../yaml.ts';

/** The user's own pod: what of its manifest the smoke pods keep. */
export interface PodTemplate {
  readonly labels: Readonly<Record<string, string>>;
  readonly annotations: Readonly<Record<string, string>>;
  readonly spec: JsonObject;
  readonly containers: readonly TemplateContainer[];
}

interface TemplateContainer {
  readonly name: string;
  /** Fully qualified. */
  readonly reference: string;
  /** The same as it is written. */
  readonly spelling: string;
}

/** Where a pod is in an object of each kind (apps/v1, batch/v1 and core/v1). */
const POD_PATHS: Readonly<Record<string, readonly string[]>> = {
  Pod: [],
  PodTemplate: ['template'],
  Deployment: ['spec', 'template'],
  StatefulSet: ['spec', 'template'],
  DaemonSet: ['spec', 'template'],
  ReplicaSet: ['spec', 'template'],
  ReplicationController: ['spec', 'template'],
  Job: ['spec', 'template'],
  CronJob: ['spec', 'jobTemplate', 'spec', 'template'],
};

/**
 * Reads the manifest of a Pod, or of something that makes pods, in YAML or JSON.
 * @param namespace of the smoke pods: the manifest may name no other
 * @throws SideloadError INPUT_INVALID, with everything that is wrong with it
 */
export function parsePodManifest(text: string, namespace: string): PodTemplate {
  const documents = readYaml(text);
  const faults = documents.flatMap(document => document.faults.map(({ line, message }) => `line ${line}: ${message}`));
  const [document] = documents;
  if (faults.length > 0 || document === undefined) {
    throw invalid(faults.length > 0 ? faults : ['it is empty']);
  }
  if (documents.length > 1 || !isMapping(document.value)) {
    throw invalid([documents.length > 1 ? `it has ${documents.length} documents` : 'it is not an object']);
  }
  const object = document.value;
  const kind = asText(object.kind);
  const path = POD_PATHS[kind ?? ''];
  if (path === undefined) {
    throw invalid([`its kind is ${JSON.stringify(kind ?? null)}, not one of ${Object.keys(POD_PATHS).join(', ')}`]);
  }
  const pod = path.reduce((parent, key) => asObject(parent[key]), object);
  const metadata = asObject(pod.metadata);
  const spec = asObject(pod.spec);
  const own = asText(asObject(object.metadata).namespace);
  const containers = asList(spec.containers).map(container => containerOf(asObject(container)));
  faults.push(
    ...(own === undefined || own === namespace
      ? []
      : [`its namespace is ${own}, and that of the smoke pods ${namespace}`]),
    ...(containers.length > 0 ? [] : ['it has no `spec.containers`']),
    ...containers.flatMap(container => ('fault' in container ? [container.fault] : [])),
  );
  if (faults.length > 0) {
    throw invalid(faults);
  }
  return {
    labels: texts(metadata.labels),
    annotations: texts(metadata.annotations),
    spec,
    containers: containers.flatMap(container => ('fault' in container ? [] : [container])),
  };
}

/** The containers that are to run an image; empty when the manifest does not use it. */
export function containersOf({ containers }: PodTemplate, reference: string): readonly string[] {
  return containers.filter(container => container.reference === reference).map(({ name }) => name);
}

/** The manifest with one of its images written in this way; `undefined` when it does not use it. */
export function withSpelling(template: PodTemplate, spelling: string): PodTemplate | undefined {
  const names = containersOf(template, normalise(spelling));
  const containers = asList(template.spec.containers).map(container => {
    const own = asObject(container);
    return names.includes(asText(own.name) ?? '') ? { ...own, image: spelling } : container;
  });
  return names.length === 0 ? undefined : { ...template, spec: { ...template.spec, containers } };
}

/**
 * Sees that a manifest starts at least one of the images that CI built.
 * @throws SideloadError INPUT_INVALID, naming what it starts instead
 */
export function assertUsed(template: PodTemplate, references: readonly string[]): void {
  if (!template.containers.some(({ reference }) => references.includes(reference))) {
    const names = template.containers.map(({ reference }) => reference).join(', ');
    throw invalid([`its containers run ${names}, and none of ${references.join(', ')}`]);
  }
}

function containerOf({ name, image }: JsonObject): TemplateContainer | { readonly fault: string } {
  const label = asText(name);
  const text = asText(image);
  if (label === undefined || text === undefined) {
    return { fault: `a container lacks its ${label === undefined ? 'name' : 'image'}` };
  }
  try {
    return { name: label, reference: normalise(text), spelling: text };
  } catch (thrown) {
    return { fault: `container ${label}: ${(thrown as Error).message}` };
  }
}

function texts(value: unknown): Readonly<Record<string, string>> {
  return Object.fromEntries(
    Object.entries(asObject(value)).flatMap(([key, text]) => (typeof text === 'string' ? [[key, text]] : [])),
  );
}

function invalid(faults: readonly string[]): SideloadError {
  return new SideloadError('INPUT_INVALID', `\`smoke-manifest\`: ${faults.join('; ')}`, {
    hint: 'pass a Pod, or one object that makes pods, such as a Deployment, whose containers run the images of the job',
  });
}

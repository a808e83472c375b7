import { describe, expect, it } from 'vitest';
import { parseAllDocuments } from 'yaml';
import { variableOf } from '../../../src/host/terminal.ts';
import { INPUT_NAMES, inputSpec, parseInputs } from '../../../src/inputs.ts';
import { read } from './validate.ts';

interface Input {
  readonly default: string | number;
  readonly options?: readonly string[];
  readonly regex?: string;
}

interface Job {
  readonly variables?: Readonly<Record<string, string>>;
  readonly script?: readonly string[];
}

const [header, jobs] = parseAllDocuments(read('templates/sideload/template.yml')).map(one => one.toJS() as unknown);
const { inputs } = (header as { readonly spec: { readonly inputs: Readonly<Record<string, Input>> } }).spec;
const job = (jobs as Readonly<Record<string, Job>>)['$[[ inputs.job-name ]]'];

describe('the GitLab component', () => {
  it('has no secret among its inputs, which everybody may read in the pipeline', () => {
    const secrets = INPUT_NAMES.filter(name => inputSpec(name).type === 'secret');
    expect(secrets.filter(name => Object.hasOwn(inputs, name))).toEqual([]);
    expect(secrets.filter(name => Object.hasOwn(job?.variables ?? {}, variableOf(name)))).toEqual([]);
  });

  it('sets a variable for every other input of the program, but for the shard', () => {
    const expected = INPUT_NAMES.filter(name => name !== 'shard' && inputSpec(name).type !== 'secret').map(variableOf);
    const set = Object.keys(job?.variables ?? {}).filter(name => name.startsWith('KUBE_SIDELOAD_'));
    expect(set.sort()).toEqual([...expected].sort());
  });

  it('puts nothing of an input into the script', () => {
    expect(job?.script?.join('\n')).not.toContain('$[[');
  });

  it.each(Object.entries(inputs))('%s has a default that its own rules allow', (_name, input) => {
    expect(input.options ?? [input.default]).toContain(input.default);
    expect(String(input.default)).toMatch(new RegExp(input.regex ?? ''));
  });

  it('with its defaults alone says no more than that it pushes', () => {
    const given = Object.entries(inputs).flatMap(([name, input]) => (input.default === '' ? [] : [name]));
    expect(given.filter(name => INPUT_NAMES.some(one => one === name))).toEqual(['mode']);
    expect(parseInputs(name => String(inputs[name]?.default ?? '')).problems).toEqual([]);
  });
});

import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { isMap, parse, parseDocument, visit } from 'yaml';
import { INPUT_NAMES, inputSpec } from '../../../src/inputs.ts';
import { evaluate } from '../../pipelines/workflow.ts';
import { faultsOf, read, root } from './validate.ts';

const WORKFLOWS = readdirSync(join(root, '.github/workflows')).map(file => `.github/workflows/${file}`);

describe('the files that GitHub reads', () => {
  it.each([...WORKFLOWS, 'action.yml'])('%s is valid', async file => {
    expect(await faultsOf(file, read(file))).toEqual([]);
  });

  it.each(WORKFLOWS)(
    '%s names other people’s actions by commit, with the version beside it, and asks for few rights',
    file => {
      const document = parseDocument(read(file));
      const uses: string[] = [];
      visit(document, {
        Pair(_, { key, value }) {
          if (String(key) === 'uses') {
            uses.push(`${value}${(value as { comment?: string }).comment ?? ''}`);
          }
        },
      });
      const foreign = uses.filter(one => !one.startsWith('./') && !one.startsWith('kube-sideload/kube-sideload@'));
      for (const one of foreign) {
        expect(one).toMatch(/^[\w-]+\/[\w-]+@[0-9a-f]{40} v\d+\.\d+\.\d+$/);
      }
      const permissions = document.get('permissions');
      expect(isMap(permissions) ? permissions.toJSON() : permissions).toSatisfy(
        rights => JSON.stringify(rights) === '{}' || JSON.stringify(rights) === '{"contents":"read"}',
      );
    },
  );
});

it.each(WORKFLOWS)('%s pastes no expression into a shell', file => {
  const scripts: string[] = [];
  visit(parseDocument(read(file)), {
    Pair(_, { key, value }) {
      if (String(key) === 'run') {
        scripts.push(String(value));
      }
    },
  });
  expect(scripts.filter(script => script.includes('${{'))).toEqual([]);
});

describe('a release', () => {
  interface Job {
    readonly needs?: string;
    readonly permissions?: Readonly<Record<string, string>>;
    readonly steps?: readonly { readonly uses?: string; readonly run?: string }[];
  }
  const { jobs } = parse(read('.github/workflows/release.yml')) as { readonly jobs: Readonly<Record<string, Job>> };
  const all = Object.entries(jobs);

  it('is signed and published by a job in which nothing of the repository and nothing from npm runs', () => {
    const mighty = all.filter(([, { permissions = {} }]) => Object.values(permissions).includes('write'));
    expect(mighty.map(([name]) => name)).toEqual(['publish']);
    for (const { uses, run } of mighty.flatMap(([, { steps = [] }]) => steps)) {
      expect(uses ?? '').not.toMatch(/checkout|setup-node/);
      expect(run ?? '').not.toMatch(/\b(npm|npx|node|bash|sh)\b/);
    }
  });

  it('begins with a look at its tag, before anything else runs', () => {
    expect(all.map(([name, { needs }]) => [name, needs])).toEqual([
      ['tag', undefined],
      ['test', 'tag'],
      ['build', 'test'],
      ['publish', 'build'],
    ]);
    const runs = jobs.tag?.steps?.flatMap(({ run }) => run ?? []);
    expect(runs).toEqual(['node scripts/release-tag.ts "$GITHUB_REF_NAME"']);
  });
});

describe('the reusable workflow', () => {
  const text = read('.github/workflows/sideload.yml');
  const { on, jobs } = parse(text) as {
    readonly on: Readonly<
      Record<string, { inputs: Readonly<Record<string, unknown>>; secrets: Readonly<Record<string, unknown>> }>
    >;
    readonly jobs: {
      readonly sideload: { readonly steps: readonly { readonly with: Readonly<Record<string, string>> }[] };
    };
  };

  it('gives the action every input there is', () => {
    expect(Object.keys(jobs.sideload.steps.at(-1)?.with ?? {}).sort()).toEqual([...INPUT_NAMES].sort());
  });

  it('has no secret in its inputs, and declares the secrets that it reads', () => {
    const read = [...text.matchAll(/secrets\.(\w+)/g)].map(([, name]) => name);
    expect([...new Set(read)].sort()).toEqual(Object.keys(on.workflow_call?.secrets ?? {}).sort());
    const secret = INPUT_NAMES.filter(name => inputSpec(name).type === 'secret');
    expect(Object.keys(on.workflow_call?.inputs ?? {}).filter(name => secret.some(one => one === name))).toEqual([]);
  });

  it('passes on nothing that a manual run did not say, so that the inventory counts', () => {
    const form = { mode: 'plan', images: 'app:1', 'nodes-from-cluster': false, 'runs-on': '"edge"', shards: 1 };
    const contexts = { inputs: form, secrets: {}, runner: { temp: '/tmp' }, matrix: { shard: 1 } };
    const given = Object.entries(jobs.sideload.steps.at(-1)?.with ?? {}).map(
      ([name, value]) => [name, evaluate(value, contexts) ?? ''] as const,
    );
    expect(given.filter(([, value]) => value !== '')).toEqual([
      ['mode', 'plan'],
      ['images', 'app:1'],
    ]);
    expect(evaluate(`\${{ inputs.unsaid == false }}`, contexts)).toBe(true);
  });

  it('fits the form of servers that allow ten inputs', () => {
    expect(Object.keys(on.workflow_dispatch?.inputs ?? {}).length).toBeLessThanOrEqual(10);
  });
});

describe('a broken workflow is refused:', () => {
  const workflow = read('.github/workflows/sideload.yml');
  it.each([
    ['a key that does not exist', '    runs-on: $', '    run-on: $', /run-on/],
    ['an event that does not exist', 'workflow_call:', 'workflow_cal:', /workflow_cal/],
    ['a type that does not exist', 'type: number', 'type: integer', /integer/],
    ['an expression that is none', 'fromJSON(inputs.runs-on)', 'fromJSON(inputs.runs-on', /Unexpected symbol/],
    ['a function that does not exist', 'fromJSON(inputs.runs-on)', 'toNumber(inputs.runs-on)', /toNumber/],
    ['an input that does not exist', 'inputs.ssh-user', 'inputs.ssh-usr', /ssh-usr/],
    ['an input that the action lacks', '          ssh-user:', '          ssh-usr:', /ssh-usr/],
    ['a step that does not exist', 'steps.sideload.outputs.nodes', 'steps.sideloads.outputs.nodes', /sideloads/],
    ['a tab in place of spaces', '    steps:', '\tsteps:', /./],
  ])('%s', async (_what, right, wrong, message) => {
    expect(workflow).toContain(right);
    const faults = await faultsOf('.github/workflows/sideload.yml', workflow.replace(right, wrong));
    expect(faults.join('\n')).toMatch(message);
  });

  it('an action without a main file', async () => {
    const faults = await faultsOf('action.yml', read('action.yml').replace('  main: dist/action/index.js\n', ''));
    expect(faults.join('\n')).toMatch(/main/);
  });
});

import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { afterAll, describe, expect, inject, it } from 'vitest';
import type { ReportDocument } from '../../src/report/report.ts';
import { build } from '../engines.ts';
import { faultsOf } from '../json-schema.ts';
import { type Options, push, reach, runAction, runCli } from '../shipped.ts';

const lab = inject('lab');
const directory = mkdtempSync(join(tmpdir(), 'kube-sideload-evidence-'));
afterAll(() => rmSync(directory, { recursive: true, force: true }));

const root = resolve(import.meta.dirname, '..', '..');
const schema: unknown = JSON.parse(readFileSync(join(root, 'schemas', 'report.schema.json'), 'utf8'));
const files = {
  'report-json': join(directory, 'out', 'report.json'),
  'report-junit': join(directory, 'out', 'report.xml'),
  'report-dotenv': join(directory, 'out', 'report.env'),
};

function read(): { readonly json: ReportDocument; readonly junit: string; readonly dotenv: string } {
  const text = (name: keyof typeof files) => readFileSync(files[name], 'utf8');
  return { json: JSON.parse(text('report-json')), junit: text('report-junit'), dotenv: text('report-dotenv') };
}

describe('the record of a real run', () => {
  it('is what its schema says, and tells what was done on each node and when', async () => {
    build(lab, 'docker', 'evidence:1', 'evidence');
    const env = { GITHUB_SHA: 'c0ffee' };
    const outcome = await push({ ...reach(lab), ...files, images: 'evidence:1' }, { lab, env });
    expect(outcome.code).toBe(0);
    const { json, junit, dotenv } = read();
    expect(faultsOf(schema, json, true)).toEqual([]);
    expect(json).toMatchObject({ succeeded: true, changed: true, ci: { commit: 'c0ffee' } });
    expect(json.bytesSent).toBe(Number(outcome.outputs['bytes-sent']));
    expect(JSON.parse(JSON.stringify(json.nodes))).toEqual(outcome.nodes);
    for (const node of json.nodes) {
      expect(node.images).toMatchObject([{ reference: 'docker.io/library/evidence:1', outcome: 'sent' }]);
      expect(Date.parse(node.startedAt)).toBeGreaterThanOrEqual(Date.parse(json.startedAt));
      expect(Date.parse(node.endedAt)).toBeLessThanOrEqual(Date.parse(json.endedAt));
      expect(node.durationMs).toBe(Date.parse(node.endedAt) - Date.parse(node.startedAt));
    }
    expect(json.stages.map(({ title }) => title)).toEqual([
      'Open the images and connect to the nodes',
      'Check what the nodes lack',
      'Send what is missing',
      'Move the references',
      'Start smoke pods',
      'Note what is ours',
      'Look at the nodes a last time',
    ]);
    expect(junit).toContain('tests="3" failures="0" errors="0" skipped="0"');
    expect(dotenv).toContain('KUBE_SIDELOAD_CHANGED=true\n');
    expect(dotenv).toContain(`KUBE_SIDELOAD_IMAGE_1_ID=${json.nodes[0]?.images[0]?.imageId}\n`);
  });

  it('is there of a run that failed, and of every node in it', async () => {
    build(lab, 'docker', 'evidence:2', 'evidence');
    const nodes = [...lab.nodes.slice(0, 2).map(node => `${node.address}=${node.name}`), '127.0.0.1:1=ghost'];
    const { code } = await push({ ...reach(lab, nodes), ...files, images: 'evidence:2' }, { lab });
    expect(code).toBe(1);
    const { json, junit, dotenv } = read();
    expect(faultsOf(schema, json, true)).toEqual([]);
    expect(json).toMatchObject({ succeeded: false, changed: false });
    expect(json.nodes.map(({ node, error }) => [node, error?.code])).toEqual([
      ['n1', undefined],
      ['n2', undefined],
      ['ghost', 'SSH_UNREACHABLE'],
    ]);
    expect(junit).toContain('tests="3" failures="1" errors="0" skipped="2"');
    expect(junit).toContain('all nodes or none');
    expect(dotenv).toContain('KUBE_SIDELOAD_FAILED_NODES=ghost\nKUBE_SIDELOAD_ERROR_CODE=SSH_UNREACHABLE\n');
  });

  it('is all that --json prints', async () => {
    build(lab, 'docker', 'evidence:1', 'evidence');
    const flags = Object.entries({ ...reach(lab), images: 'evidence:1' }).map(([name, value]) => `--${name}=${value}`);
    const outcome = await runCli(['plan', ...flags, '--json', '--quiet'], { lab });
    expect(outcome.code).toBe(0);
    expect(faultsOf(schema, JSON.parse(outcome.stdout), true)).toEqual([]);
    expect(JSON.parse(outcome.stdout)).toMatchObject({ mode: 'plan', succeeded: true, changed: false });
    expect(outcome.stderr.split('\n')[0]).toMatch(/^node +/);
  });
});

describe('a job succeeds', () => {
  const path = `${lab.bin}:${dirname(process.execPath)}:/usr/bin:/bin`;
  it.each<[name: string, options: Options]>([
    ['under GitHub’s contract', {}],
    [
      'under Gitea’s',
      { isBare: true, node: 'node', env: { GITEA_ACTIONS: 'true', GITHUB_STEP_SUMMARY: undefined, PATH: path } },
    ],
    [
      'with nothing around it',
      { isBare: true, env: { GITHUB_ACTIONS: undefined, RUNNER_TEMP: undefined, PATH: path } },
    ],
  ])('%s', async (_name, options) => {
    build(lab, 'docker', 'contract:1', 'contract');
    const outcome = await runAction({ ...reach(lab), ...files, images: 'contract:1' }, { lab, ...options });
    expect(outcome.code).toBe(0);
    expect(outcome.log).toMatch(/\ndone: all 3 nodes hold what CI built; /);
    expect(outcome.log).not.toMatch(/^::(?:error|warning)/m);
    expect(read().json).toMatchObject({ succeeded: true });
    expect(outcome.leftOnRunner).toEqual([]);
  });
});

import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { jsonText, reportDocument } from '../../../src/report/document.ts';
import { VERSION } from '../../../src/version.ts';
import { faultsOf } from '../../json-schema.ts';
import { failedNode, nodeReport, report } from './reports.ts';

const schema: unknown = JSON.parse(
  readFileSync(join(import.meta.dirname, '../../../schemas/report.schema.json'), 'utf8'),
);
const error = { code: 'IMPORT_FAILED', message: 'a "quote"\nand more', hint: 'Look.' } as const;
const finding = { node: 'w9', severity: 'warning', ...error } as const;
const [image] = nodeReport('w1').images;
if (image === undefined) throw new Error('no image');
const everything = report(
  [
    nodeReport('w1', { findings: [finding] }),
    nodeReport('w2', { images: [{ ...image, error }], error }),
    failedNode('w3'),
  ],
  { findings: [finding], error },
);
const ci = { system: 'gitlab', commit: 'c0ffee', ref: 'main', run: '7', runUrl: 'https://git.example/7' };

it('says who wrote it, for which job, and whether all is well', () => {
  expect(reportDocument(everything, ci)).toMatchObject({
    schemaVersion: 1,
    tool: { name: 'kube-sideload', version: VERSION },
    ci,
    succeeded: false,
    durationMs: 20_000,
    bytesSent: 3_000_000,
    run: 't4y1q2abcdef',
  });
  expect(reportDocument(report([nodeReport('w1')]), undefined).succeeded).toBe(true);
});

it('is what the published schema says, and has nothing that the schema does not name', () => {
  for (const record of [everything, report([]), report([nodeReport('w1')], { run: undefined })]) {
    expect(faultsOf(schema, JSON.parse(jsonText(reportDocument(record, ci))), true)).toEqual([]);
  }
});

it('the schema says no', () => {
  const good = JSON.parse(jsonText(reportDocument(everything, ci)));
  const { nodes: _, ...without } = good;
  expect(faultsOf(schema, without)).toEqual(['$: lacks nodes']);
  expect(faultsOf(schema, { ...good, schemaVersion: 2 })).toEqual(['$.schemaVersion: 2 is not 1']);
  expect(faultsOf(schema, { ...good, bytesSent: -1 })).toHaveLength(1);
  expect(faultsOf(schema, { ...good, nodes: [{ ...good.nodes[0], images: 'app:1' }] })).toHaveLength(1);
  expect(faultsOf(schema, { ...good, startedAt: 'yesterday' })).toHaveLength(1);
  expect(faultsOf(schema, { ...good, error: { code: 'lower case', message: '', hint: '' } })).toHaveLength(1);
});

it('lets later versions add fields', () => {
  const more = { ...JSON.parse(jsonText(reportDocument(everything, ci))), more: true };
  expect(faultsOf(schema, more)).toEqual([]);
  expect(faultsOf(schema, more, true)).toEqual(['$: more is not in the schema']);
});

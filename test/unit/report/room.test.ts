import { describe, expect, it } from 'vitest';
import { outputsOf } from '../../../src/report/outputs.ts';
import { markdown } from '../../../src/report/table.ts';
import { ALL_HOSTILE_TEXTS, harmInMarkdown } from '../../hostile/texts.ts';
import { nodeReport, report } from './reports.ts';

/** As many nodes as that, each with other words of a few kilobytes, and the first one with as many as it could find. */
function fleet(count: number) {
  const errorOf = (index: number) =>
    ({
      code: 'IMPORT_FAILED',
      message: `node ${index}: ${index === 0 ? ALL_HOSTILE_TEXTS.repeat(2000) : 'said a lot, '.repeat(600)}`,
      hint: 'Try again.',
    }) as const;
  const nodes = Array.from({ length: count }, (_, index) => {
    const error = index % 2 === 0 ? errorOf(index) : undefined;
    const findings = [{ node: `w${index}`, severity: 'warning', ...errorOf(index) } as const];
    return nodeReport(`w${index}`, { error, findings });
  });
  return report(nodes);
}

describe.each([150, 5000])('of %i nodes that failed', count => {
  it('the page is one that GitHub takes, and says what it leaves out', () => {
    const page = markdown(fleet(count), false);
    expect(Buffer.byteLength(page)).toBeLessThan(1 << 20);
    expect(harmInMarkdown(page)).toEqual([]);
    expect(page.includes('node 2: said a lot')).toBe(true);
    expect(/^\d+ more errors are in the file of <code>report-json<\/code>\.$/m.test(page)).toBe(true);
  });

  it('the outputs are ones that a job may have, and failed nodes come before others', () => {
    const outputs = outputsOf(fleet(count));
    const texts = Object.values(outputs).join('');
    expect(2 * texts.length).toBeLessThan(1_000_000);
    const nodes = JSON.parse(outputs.nodes ?? '') as readonly { readonly error?: object; readonly leftOut?: number }[];
    const { leftOut = 0 } = nodes.at(-1) ?? {};
    expect(nodes.filter(node => node.leftOut === undefined)).toHaveLength(count - leftOut);
    expect(nodes[0]).toMatchObject({ node: 'w0', error: { code: 'IMPORT_FAILED' } });
    expect(leftOut > 0).toBe(count === 5000);
    if (leftOut > 0) {
      expect(nodes.every(node => node.error !== undefined || node.leftOut !== undefined)).toBe(true);
    }
  });
});

it('of a few nodes nothing is left out', () => {
  const few = report([nodeReport('w1'), nodeReport('w2')]);
  expect(JSON.parse(outputsOf(few).nodes ?? '')).toEqual(JSON.parse(JSON.stringify(few.nodes)));
  expect(markdown(few, true)).not.toContain('report-json');
});

import { describe, expect, it } from 'vitest';
import type { ImageReport, NodeReport, Report } from '../../../src/report/report.ts';
import { findingsTable, markdown, textTable } from '../../../src/report/table.ts';
import { failedNode, nodeReport, report } from './reports.ts';

/** The cells of the table in the log, without the headings. */
function rows(record: Report): readonly (readonly string[])[] {
  return textTable(record)
    .slice(1)
    .map(line => line.split(/ {2,}/));
}

describe('the table', () => {
  it('has one row for each image on each node, and one for a node that was not reached', () => {
    const image = nodeReport('w1').images[0];
    if (image === undefined) throw new Error('no image');
    const two = nodeReport('w1', {
      images: [image, { ...image, reference: 'db:2', outcome: 'present', bytesSent: 0 }],
    });
    expect(rows(report([two, failedNode('w2')]))).toEqual([
      ['w1', 'linux/amd64', 'containerd v2.1.4', 'docker.io/library/app:1', 'sent', '1.5 MB', 'Running', '12.3 s'],
      ['w1', 'linux/amd64', 'containerd v2.1.4', 'db:2', 'present', '0 B', 'Running', '12.3 s'],
      ['w2', '–', '–', '–', 'SSH_UNREACHABLE', '–', '–', '0.4 s'],
    ]);
  });

  it('has the code where an image did not get through, and says so where nothing was tried', () => {
    const image = {
      reference: 'app:1',
      imageId: 'sha256:a',
      outcome: 'none',
      estimatedBytes: 9,
      isEstimateExact: true,
      bytesSent: 7,
      smoke: undefined,
    } as const;
    const error = { code: 'DISK_FULL', message: 'full', hint: 'make room' } as const;
    const outcomes = rows(
      report([nodeReport('w1', { images: [image], error }), nodeReport('w2', { images: [image] })]),
    );
    expect(outcomes.map(row => row[4])).toEqual(['DISK_FULL', 'unchanged']);
  });

  it('is aligned in the log', () => {
    const [heading = '', first = '', second = ''] = textTable(report([nodeReport('a-long-name'), failedNode('w2')]));
    const column = heading.indexOf('platform');
    expect(first.slice(column)).toMatch(/^linux\/amd64 /);
    expect(second.slice(column)).toMatch(/^– /);
  });
});

describe('in a terminal of 100 columns', () => {
  const widest = (lines: readonly string[]) => Math.max(...lines.map(line => line.length));
  const table = (changes: Partial<ImageReport>, node = 'w1') => {
    const images = nodeReport('w').images.map(image => ({ ...image, ...changes }));
    return textTable(report([nodeReport(node, { images }), failedNode('w2')]), 100);
  };

  it('nothing is left out that fits', () => {
    expect(table({ reference: 'app:1' })[0]).toMatch(/^node .*platform .*runtime /);
    const images = textTable(report([nodeReport('w1')]), 100);
    expect(images[1]).toContain(' docker.io/library/app:1 ');
  });

  it('Docker Hub’s names are short, then what the log has told already goes, then names are cut in their middle', () => {
    expect(table({ reference: 'docker.io/library/app:1' })[1]).toMatch(/ linux\/amd64 .* app:1 /);
    const long = table({ reference: `registry.example/team/${'x'.repeat(20)}:1.2` });
    expect(long[0]).not.toContain('platform');
    expect(long[0]).not.toContain('runtime');
    expect(long[1]).toContain(` registry.example/team/${'x'.repeat(20)}:1.2 `);
    const longer = table({ reference: `registry.example/${'x'.repeat(90)}:1.2`, smoke: 'exit code 3: '.repeat(9) });
    expect(longer[1]).toMatch(/ registry\.example\/x+…x+:1\.2 /);
    for (const lines of [long, longer]) expect(widest(lines)).toBeLessThanOrEqual(100);
    expect(widest(table({ reference: 'app:1' }, 'n'.repeat(200)))).toBeLessThanOrEqual(100);
  });

  it('findings go on in the next line, at a word', () => {
    const finding = { node: 'w1', severity: 'error', code: 'DISK_FULL', hint: '' } as const;
    const lines = findingsTable([{ ...finding, message: 'one two '.repeat(12) }], 60);
    expect(widest(lines)).toBeLessThanOrEqual(70);
    expect(lines.length).toBeGreaterThan(3);
    expect(lines[2]).toMatch(/^ {27}\S/);
  });
});

describe('a plan', () => {
  const [image] = nodeReport('w1').images;
  const finding = {
    node: 'w2',
    severity: 'error',
    code: 'DISK_FULL',
    message: 'the layers alone are 4.0 MB;\n1.0 MB are free',
    hint: 'Make room.',
  } as const;
  const missing = {
    ...finding,
    node: 'w9',
    severity: 'warning',
    code: 'NODE_NOT_LISTED',
    message: 'not in it',
  } as const;
  const planned = report(
    [
      nodeReport('w1', { images: [{ ...image, outcome: 'present', estimatedBytes: 0 }] as NodeReport['images'] }),
      nodeReport('w2', { images: [{ ...image, outcome: 'none' }] as NodeReport['images'], findings: [finding] }),
    ],
    { mode: 'plan', findings: [missing] },
  );

  it('says who has the image, what would be sent to whom, and what was found', () => {
    expect(rows(planned).map(row => row.slice(-3))).toEqual([
      ['has it', '0 B', 'none'],
      ['send', 'up to 4.0 MB', 'DISK_FULL'],
    ]);
  });

  it('says of a further name that the image is sent once', () => {
    const named = [{ ...image, reference: 'alias:1', outcome: 'none', estimatedBytes: 0 }] as NodeReport['images'];
    expect(rows(report([nodeReport('w1', { images: named })], { mode: 'plan' }))[0]).toContain(
      'sent once, by another name',
    );
  });

  it('has the findings in full in a table of their own, those on nodes that are not in the list last', () => {
    expect(findingsTable([finding, missing])).toEqual([
      'node  severity  code             what',
      'w2    error     DISK_FULL        the layers alone are 4.0 MB; 1.0 MB are free',
      'w9    warning   NODE_NOT_LISTED  not in it',
    ]);
    expect(findingsTable([])).toEqual(['nothing stands in the way']);
    const page = markdown(planned, false);
    expect(page).toContain('## kube-sideload: a push would not start');
    expect(page).toMatch(/\| w2 \| error \| DISK_FULL \| .*\n\| w9 \| warning \| NODE_NOT_LISTED \| not in it \|/);
    expect(markdown(planned, true)).toContain('a push would start');
  });
});

describe('the page of the job', () => {
  it('begins with the verdict, and tells of each failure what to do', () => {
    const page = markdown(report([nodeReport('w1'), failedNode('w2')]), false);
    expect(page.split('\n')[0]).toBe('## kube-sideload: failed');
    expect(page).toContain('### w2: The node cannot be reached over SSH (`SSH_UNREACHABLE`)');
    expect(page).toContain('```text\nconnect ECONNREFUSED 10.0.0.12:22\n```\n**Next step:** Check that sshd runs.');
  });

  it('says once what several nodes have to say', () => {
    const page = markdown(report([failedNode('w1'), failedNode('w2')]), false);
    expect(page.match(/^### .*/gm)).toEqual(['### w1, w2: The node cannot be reached over SSH (`SSH_UNREACHABLE`)']);
  });

  it('cannot be broken by what nodes and kubelets say', () => {
    const error = { code: 'IMPORT_FAILED', message: 'a\n```\n<script>', hint: 'x' } as const;
    const image = {
      reference: 'a|b',
      imageId: 'sha256:a',
      outcome: 'sent',
      estimatedBytes: 9,
      isEstimateExact: true,
      bytesSent: 0,
      smoke: '<b>|\n| x',
    } as const;
    const page = markdown(report([nodeReport('w|1', { images: [image], error })]), false);
    const table = page.split('\n').filter(line => line.startsWith('|'));
    expect(table).toHaveLength(3);
    expect(table[2]).toContain('<code>w&#124;1</code>');
    expect(table[2]).not.toContain('<b>');
    expect(page.match(/^```/gm)).toHaveLength(2);
  });
});

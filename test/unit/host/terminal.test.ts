import { describe, expect, it } from 'vitest';
import { gitlabHost } from '../../../src/host/gitlab.ts';
import { EXIT } from '../../../src/host/host.ts';
import { type TerminalOptions, terminalHost, variableOf } from '../../../src/host/terminal.ts';
import { reportDocument } from '../../../src/report/document.ts';
import { nodeReport, report } from '../report/reports.ts';
import { emulate, stream } from './stream.ts';

type Options = Partial<TerminalOptions> & { readonly isTTY?: boolean; readonly columns?: number };

function terminal({ isTTY = false, columns = 40, ...options }: Options = {}, make = terminalHost) {
  const out = stream({ isTTY, columns });
  const err = stream({ isTTY, columns });
  const host = make({ flags: {}, env: {}, ...options, stdout: out.stream, stderr: err.stream });
  return { host, out, err };
}

const DOCUMENT = reportDocument(report([nodeReport('w1')]), undefined);

describe('inputs', () => {
  it('are flags first, then variables', () => {
    const { host } = terminal({
      flags: { 'ssh-user': 'flag' },
      env: { KUBE_SIDELOAD_SSH_USER: 'env', KUBE_SIDELOAD_SSH_PORT: '23' },
    });
    expect([host.input('ssh-user'), host.input('ssh-port'), host.input('nodes')]).toEqual(['flag', '23', undefined]);
    expect(variableOf('ssh-private-key')).toBe('KUBE_SIDELOAD_SSH_PRIVATE_KEY');
    expect(host.defaultConfig).toBe('kube-sideload.yaml');
  });
});

describe('the story', () => {
  it('goes to standard error, the outputs to standard output', async () => {
    const { host, out, err } = terminal();
    host.info('one');
    host.warning('two');
    host.error('three', 'Title');
    await host.group('Stage', async () => host.info('four'));
    host.result('table');
    host.output('changed', 'true');
    host.output('images', 'app:1\ndb:2');
    await host.summary('# page');
    host.saveState('run', 'x');
    host.report(DOCUMENT);
    expect(err.text()).toBe('one\nwarning: two\nerror: Title\nthree\nStage\nfour\ntable\n');
    expect(out.text()).toBe('changed=true\nimages="app:1\\ndb:2"\n');
  });

  it('has no secret in it, line by line, and none that is a part of another', () => {
    const { host, err } = terminal();
    host.mask('sesame', 'job');
    host.mask('line one\r\nline two\n\n', 'job');
    host.mask('sesame-open', 'job');
    host.info('a sesame-open b');
    host.error('x line two y', 'line one');
    host.progress(['sesame']);
    host.fail('sesame', EXIT.failed);
    expect(err.text()).toBe('a *** b\nerror: ***\nx *** y\n***\nfailed: ***\n');
    expect(host.redact('sesame')).toBe('***');
  });

  it.each([true, false])('cannot steer the terminal of whoever reads it: in one %s', isTTY => {
    const { host, err } = terminal({ isTTY, env: { NO_COLOR: '1' } });
    host.info('\u001b[31mred\u001b[0m\u0007\u009b2J\r');
    expect(err.text()).toBe('red\n');
  });

  it('fails when told so, and not before', () => {
    const { host } = terminal();
    expect(host.exitCode).toBe(0);
    host.fail('no', EXIT.SIGINT);
    expect(host.exitCode).toBe(130);
  });
});

describe('with --quiet', () => {
  it('only errors and the table are told', async () => {
    for (const make of [terminalHost, gitlabHost]) {
      const { host, err } = terminal({ isQuiet: true }, make);
      host.info('one');
      host.warning('two');
      await host.group('Stage', async () => host.info('three'));
      host.progress(['four']);
      host.result('table');
      host.error('five', 'Title');
      host.fail('six', EXIT.failed);
      expect(err.text()).toBe('table\nerror: Title\nfive\nfailed: six\n');
    }
  });
});

describe('with --json', () => {
  it('standard output is the record, and nothing else', () => {
    for (const make of [terminalHost, gitlabHost]) {
      const { host, out } = terminal({ isJson: true, isTTY: true }, make);
      host.output('changed', 'true');
      host.report(DOCUMENT);
      expect(JSON.parse(out.text())).toEqual(JSON.parse(JSON.stringify(DOCUMENT)));
    }
  });
});

describe('for somebody who looks on', () => {
  it('stages stand apart, and nobody sees outputs', async () => {
    const { host, out, err } = terminal({ isTTY: true, env: { NO_COLOR: '1' } });
    await host.group('One', async () => host.info('a'));
    await host.group('Two', async () => host.info('b'));
    host.result('node  sent');
    host.result('w1    1 MB');
    host.output('changed', 'true');
    expect(err.text()).toBe('One\na\n\nTwo\nb\n\nnode  sent\nw1    1 MB\n');
    expect(out.text()).toBe('');
  });

  it('long lines go on at a word, a little to the right', () => {
    const { host, err } = terminal({ isTTY: true });
    host.info('n1: containerd 2.1 at /run/containerd/containerd.sock, as root');
    expect(err.text()).toBe('n1: containerd 2.1 at\n    /run/containerd/containerd.sock, as\n    root\n');
  });

  it('marks, titles and errors have colours, unless NO_COLOR or TERM=dumb says otherwise', async () => {
    const told = async (env: NodeJS.ProcessEnv) => {
      const { host, err } = terminal({ isTTY: true, env });
      await host.group('Stage', async () => host.info('n1: app ✔ Running'));
      host.error('why', 'Title');
      return err.text();
    };
    expect(await told({})).toBe(
      '\u001b[1mStage\u001b[0m\nn1: app \u001b[32m✔\u001b[0m Running\n\n\u001b[31merror: Title\u001b[0m\nwhy\n',
    );
    expect(await told({ NO_COLOR: '1' })).toBe('Stage\nn1: app ✔ Running\n\nerror: Title\nwhy\n');
    expect(await told({ TERM: 'dumb' })).toBe('Stage\nn1: app ✔ Running\nerror: Title\nwhy\n');
  });
});

describe('progress', () => {
  it('is lines of the log where nobody looks', () => {
    const { host, err } = terminal();
    expect(host.isLive).toBe(false);
    host.progress(['w1 10 %']);
    host.progress(['w1 20 %']);
    host.progress([]);
    expect(err.text()).toBe('w1 10 %\nw1 20 %\n');
  });

  it('is lines that change in a terminal, below what stays, and gone at the end', () => {
    const { host, err } = terminal({ isTTY: true, columns: 12 });
    expect(host.isLive).toBe(true);
    const seen = () => emulate(err.text());
    host.info('first');
    host.progress(['w1 10 %', 'w2 20 %']);
    expect(seen()).toEqual(['first', 'w1 10 %', 'w2 20 %']);
    host.progress(['w1 5 %', 'w2 30 % and more']);
    expect(seen()).toEqual(['first', 'w1 5 %', 'w2 30 % an…']);
    host.info('second');
    expect(seen()).toEqual(['first', 'second', 'w1 5 %', 'w2 30 % an…']);
    host.progress(['w2 40 %']);
    expect(seen()).toEqual(['first', 'second', 'w2 40 %']);
    host.progress(['a', 'b', 'c']);
    host.progress([]);
    host.info('third');
    expect(seen()).toEqual(['first', 'second', 'third', '']);
  });

  it('is written in one piece, and never erased first: it does not flicker', () => {
    const { host, err } = terminal({ isTTY: true });
    host.progress(['one', 'two']);
    const writes = err.writes().length;
    host.progress(['one', 'three']);
    expect(err.writes()).toHaveLength(writes + 1);
    expect(err.writes().at(-1)).toBe('\u001b[1A\rone\u001b[K\nthree\u001b[K');
  });

  it('never has more lines than the screen', () => {
    const { host, err } = terminal({ isTTY: true });
    host.progress(Array.from({ length: 50 }, (_, index) => `w${index}`));
    expect(emulate(err.text())).toHaveLength(host.size.rows - 1);
  });
});

describe('GitLab', () => {
  it('folds each stage, whatever happens in it, and has no outputs in its log', async () => {
    const { host, out, err } = terminal({ env: { GITLAB_CI: 'true', CI_COMMIT_SHA: 'c0ffee' } }, gitlabHost);
    await host.group('Send', async () => host.info('sent'));
    await expect(host.group('Move', () => Promise.reject(new Error('no')))).rejects.toThrow('no');
    host.output('changed', 'true');
    host.fail('no', EXIT.failed);
    const mark = '\u001b\\[0K';
    const section = (number: number, title: string, body: string) =>
      `${mark}section_start:\\d{10}:kube_sideload_${number}\\[collapsed=true\\]\\r${mark}${title}\n${body}${mark}section_end:\\d{10}:kube_sideload_${number}\\r${mark}\n`;
    expect(err.text()).toMatch(new RegExp(`^${section(1, 'Send', 'sent\n')}${section(2, 'Move', '')}failed: no\n$`));
    expect(out.text()).toBe('');
    expect([host.exitCode, host.ci?.system, host.isLive]).toEqual([1, 'gitlab', false]);
  });

  it('has secrets replaced that it cannot mask itself: of several lines, and short ones', () => {
    const { host, err } = terminal({}, gitlabHost);
    host.mask('-----BEGIN\nabc\n', 'job');
    host.info('abc -----BEGIN');
    expect(err.text()).toBe('*** ***\n');
  });
});

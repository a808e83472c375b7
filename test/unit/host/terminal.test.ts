import { describe, expect, it } from 'vitest';
import { terminalHost, variableOf } from '../../../src/host/terminal.ts';
import type { InputName } from '../../../src/inputs.ts';

interface Screen {
  readonly stream: NodeJS.WriteStream;
  text(): string;
}

function screen(isTTY: boolean): Screen {
  let text = '';
  const stream = {
    isTTY,
    columns: 40,
    write: (chunk: string) => {
      text += chunk;
      return true;
    },
  };
  return { stream: stream as unknown as NodeJS.WriteStream, text: () => text };
}

function terminal({
  isTTY = false,
  flags = {},
  env = {},
}: {
  isTTY?: boolean;
  flags?: Partial<Record<InputName, string>>;
  env?: NodeJS.ProcessEnv;
} = {}) {
  const out = screen(isTTY);
  const err = screen(isTTY);
  return { host: terminalHost({ flags, env, stdout: out.stream, stderr: err.stream }), out, err };
}

describe('inputs', () => {
  it('are flags first, then variables', () => {
    const { host } = terminal({
      flags: { 'ssh-user': 'flag' },
      env: { KUBE_SIDELOAD_SSH_USER: 'env', KUBE_SIDELOAD_SSH_PORT: '23' },
    });
    expect([host.input('ssh-user'), host.input('ssh-port'), host.input('nodes')]).toEqual(['flag', '23', undefined]);
    expect(variableOf('ssh-private-key')).toBe('KUBE_SIDELOAD_SSH_PRIVATE_KEY');
  });
});

describe('the story', () => {
  it('goes to standard error, the outputs to standard output', async () => {
    const { host, out, err } = terminal();
    host.info('one');
    host.warning('two');
    host.error('three', 'Title');
    await host.group('Stage', async () => host.info('four'));
    host.output('changed', 'true');
    host.output('images', 'app:1\ndb:2');
    await host.summary('# page');
    host.saveState('run', 'x');
    expect(err.text()).toBe('one\nwarning: two\nerror: Title\nthree\nStage\nfour\n');
    expect(out.text()).toBe('changed=true\nimages="app:1\\ndb:2"\n');
  });

  it('has no secret in it, line by line, and none that is a part of another', () => {
    const { host, err } = terminal();
    host.mask('sesame');
    host.mask('line one\r\nline two\n\n');
    host.mask('sesame-open');
    host.info('a sesame-open b');
    host.error('x line two y', 'line one');
    host.fail('sesame');
    expect(err.text()).toBe('a *** b\nerror: ***\nx *** y\nfailed: ***\n');
  });

  it('cannot steer the terminal of whoever reads a log file', () => {
    const { host, err } = terminal();
    host.info('\u001b[31mred\u001b[0m');
    expect(err.text()).toBe('red\n');
  });

  it('fails when told so, and not before', () => {
    const { host } = terminal();
    expect(host.failed).toBe(false);
    host.fail('no');
    expect(host.failed).toBe(true);
  });
});

describe('progress', () => {
  it('is a line of the log where nobody looks', () => {
    const { host, err } = terminal();
    expect(host.isLive).toBe(false);
    host.progress('w1 10 %');
    host.progress('w1 20 %');
    expect(err.text()).toBe('w1 10 %\nw1 20 %\n');
  });

  it('is one line that changes in a terminal, fits into it, and is gone before the next', () => {
    const { host, err } = terminal({ isTTY: true });
    expect(host.isLive).toBe(true);
    host.progress('x'.repeat(100));
    host.progress('w1 20 %');
    host.info('done');
    expect(err.text()).toBe(`\r\u001b[K${'x'.repeat(39)}\r\u001b[Kw1 20 %\r\u001b[Kdone\n`);
  });
});

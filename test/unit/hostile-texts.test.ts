import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it, onTestFinished, vi } from 'vitest';
import { githubHost } from '../../src/host/github.ts';
import { gitlabHost } from '../../src/host/gitlab.ts';
import { EXIT, type Host } from '../../src/host/host.ts';
import { secretStore } from '../../src/host/secrets.ts';
import { terminalHost } from '../../src/host/terminal.ts';
import { publish } from '../../src/report/publish.ts';
import type { NodeReport, Report } from '../../src/report/report.ts';
import { harmless, markdownSentence, markdownText } from '../../src/report/text.ts';
import { ALL_HOSTILE_TEXTS, commandsIn, HOSTILE_TEXTS, harmIn, harmInMarkdown } from '../hostile/texts.ts';
import { stream } from './host/stream.ts';
import { nodeReport, report } from './report/reports.ts';

const GITHUB = { GITHUB_ACTIONS: 'true' };

interface Told {
  readonly host: Host;
  /** Everything that people see of it, by where. */
  seen(): Readonly<Record<string, string>>;
}

/** One for all tests: @actions/core keeps the path of the page. */
const directory = mkdtempSync(join(tmpdir(), 'kube-sideload-hostile-'));
afterAll(() => rmSync(directory, { recursive: true }));

function onGithub(env: NodeJS.ProcessEnv): Told {
  let stdout = '';
  const spy = vi.spyOn(process.stdout, 'write').mockImplementation(chunk => {
    stdout += chunk;
    return true;
  });
  const files = ['GITHUB_OUTPUT', 'GITHUB_STATE', 'GITHUB_STEP_SUMMARY'].map(name => {
    const file = join(directory, name);
    writeFileSync(file, '');
    vi.stubEnv(name, file);
    return [name, file] as const;
  });
  onTestFinished(() => {
    spy.mockRestore();
    vi.unstubAllEnvs();
    process.exitCode = undefined;
  });
  const host = githubHost({ ...env, ...Object.fromEntries(files) });
  return {
    host,
    seen: () => ({ stdout, ...Object.fromEntries(files.map(([name, file]) => [name, readFileSync(file, 'utf8')])) }),
  };
}

function onTerminal(
  make: typeof terminalHost,
  options: { readonly isJson?: boolean; readonly isTTY?: boolean } = {},
): Told {
  const { isJson = false, isTTY = false } = options;
  const out = stream({ isTTY, columns: 40 });
  const err = stream({ isTTY, columns: 40 });
  const env = { NO_COLOR: '1' };
  const host = make({ flags: {}, env, isJson, stdout: out.stream, stderr: err.stream });
  return { host, seen: () => ({ stdout: out.text(), stderr: err.text() }) };
}

const HOSTS: Readonly<Record<string, () => Told>> = {
  'GitHub’s': () => onGithub(GITHUB),
  'Gitea’s': () => onGithub({ ...GITHUB, GITEA_ACTIONS: 'true' }),
  'Forgejo’s': () => onGithub({ ...GITHUB, FORGEJO_ACTIONS: 'true' }),
  'no one’s': () => onGithub({}),
  'GitLab’s': () => onTerminal(gitlabHost),
  'a shell’s': () => onTerminal(terminalHost),
  'a shell’s, with --json': () => onTerminal(terminalHost, { isJson: true }),
};

/** A record in which everybody who can word something has. */
function recordOf(text: string): Report {
  const error = { code: 'IMPORT_FAILED', message: text, hint: `Try \`${text}\`, or ${text}` } as const;
  const finding = { node: text, severity: 'warning', ...error } as const;
  const images = nodeReport('w1').images.map(image => ({ ...image, smoke: text, error }));
  const node = nodeReport('w1', {
    images,
    error,
    findings: [finding],
    platform: text,
    runtime: text,
    kubernetesName: text,
  });
  const nodes: readonly NodeReport[] = [node, { ...node, node: text, error: { ...error, hint: 'Wait.' } }];
  return report(nodes, { findings: [finding], error, images: { 'docker.io/library/app:1': { [text]: text } } });
}

describe.each(Object.entries(HOSTILE_TEXTS))('%s', (_what, text) => {
  it.each(Object.entries(HOSTS))('is a text and nothing else in a log of %s', async (_where, make) => {
    const { host, seen } = make();
    host.info(text);
    host.info(`n1: ${text}`);
    host.result(text);
    host.warning(text);
    host.error(text, text);
    host.progress([text]);
    await host.group(text, async () => host.info(text));
    host.fail(text, EXIT.failed);
    for (const [where, log] of Object.entries(seen())) {
      expect(harmIn(log), `${where}: ${JSON.stringify(log)}`).toEqual([]);
    }
  });

  it.each(Object.entries(HOSTS))('is one in everything that a run publishes on %s', async (_where, make) => {
    const { host, seen } = make();
    const files = {
      json: join(directory, 'report.json'),
      junit: join(directory, 'report.xml'),
      dotenv: join(directory, 'report.env'),
    };
    await publish(recordOf(text), host, files);
    const { GITHUB_STEP_SUMMARY: page = '', ...logs } = seen();
    expect(harmInMarkdown(page), page).toEqual([]);
    const written = Object.entries(files).map(([kind, file]) => [kind, readFileSync(file, 'utf8')] as const);
    for (const [where, log] of [...Object.entries(logs), ...written]) {
      expect(harmIn(log), `${where}: ${JSON.stringify(log)}`).toEqual([]);
    }
    const [, junit = '', dotenv = ''] = written.map(([, content]) => content);
    expect(dotenv).toMatch(/^(?:KUBE_SIDELOAD_[A-Z0-9_]+=[^\n]+\n)+$/);
    expect(dotenv.match(/^KUBE_SIDELOAD_SUCCEEDED=/gm)).toHaveLength(1);
    expect(junit.match(/<failure /g)).toHaveLength(junit.match(/<\/failure>/g)?.length ?? 0);
    expect(junit).not.toMatch(/<!\[CDATA|&evil;|evil='?>|\]\]>/);
  });

  it('is one in Markdown, within a line and within a sentence', () => {
    for (const page of [markdownText(text), markdownSentence(text), markdownSentence(`Set \`${text}\`, ${text}.`)]) {
      expect(harmInMarkdown(page), page).toEqual([]);
    }
  });

  it('changes no more when it passes again', () => {
    expect(harmless(harmless(text))).toBe(harmless(text));
  });
});

it('a terminal in which lines change shows no more of them than there are', () => {
  const { host, seen } = onTerminal(terminalHost, { isTTY: true });
  host.progress([ALL_HOSTILE_TEXTS.replaceAll('\n', ' ')]);
  host.info(ALL_HOSTILE_TEXTS);
  host.progress([]);
  // biome-ignore lint/suspicious/noControlCharactersInRegex: what the screen itself writes.
  expect(harmIn((seen().stderr ?? '').replaceAll(/\u001b\[(?:\d*A|[JK])|\r/g, ''))).toEqual([]);
});

it('words stay as they are', () => {
  const said = 'ärger: 10 % of /var/lib (ext4) — “no space”; see app::main() and #4 [x]\n  a:\tb — 日本語 ✔ 🙂';
  expect(harmless(said)).toBe(said);
  expect(harmless('::1\n [::1]:22 and ::ffff:10.0.0.1')).toBe('::1\n [::1]:22 and ::ffff:10.0.0.1');
  expect(markdownText('docker.io/library/app:1')).toBe('docker.io/library/app:1');
  expect(markdownText('containerd 2.1.4~ds2-6+b1')).toBe('containerd 2.1.4~ds2-6+b1');
  expect(markdownText('a~b c~d')).toBe('<code>a&#126;b c&#126;d</code>');
  expect(markdownSentence('Raise `smoke-timeout`,\nor wait.')).toBe('Raise <code>smoke-timeout</code>, or wait.');
});

it('a long text takes no longer than its length', () => {
  for (const part of ['\u001b]', '\u001b[1;', '\u0090', '\u001b[[', '##a', ' ', ':', '\u00ad', '`', '@a ']) {
    const startedAt = process.cpuUsage();
    harmless(part.repeat(1 << 20));
    markdownSentence(part.repeat(1 << 14));
    // A quadratic one would take hours.
    expect(process.cpuUsage(startedAt).user).toBeLessThan(20_000_000);
  }
});

describe('secrets', () => {
  const store = (secret: string) => {
    const announced: string[] = [];
    const secrets = secretStore(line => announced.push(line));
    return { ...secrets, announced, secret };
  };

  it('are found after what is not seen has gone, and in what programs make of them', () => {
    const { add, redact } = store('');
    add('pass##[word]"\\x', 'runner');
    for (const said of ['pa\u0000ss##[wo\u200brd]"\\x', 'p\u001b[1mass#\u00ad#[word]"\\x', 'pass## [word]\\"\\\\x']) {
      expect(redact(`it was ${said}.`)).toBe('it was ***.');
    }
    expect(redact(Buffer.from('pass##[word]"\\x').toString('base64'))).toBe('***');
    expect(redact(encodeURIComponent('pass##[word]"\\x'))).toBe('***');
  });

  it('that are short count where they stand alone, and never in the name of an image', () => {
    const { add, redact } = store('');
    add('app', 'job');
    expect(redact('sudo read app, "app", app: no; password=app')).toBe('sudo read ***, "***", ***: no; password=***');
    const names = 'docker.io/library/app:1 shop:app app-1 my_app application app@sha256:0 /opt/app app.example app:1';
    expect(redact(names)).toBe(names);
  });

  it('of a file on the runner are announced to no one, nor is what is short', () => {
    const { add, redact, announced } = store('');
    add('-----BEGIN KEY-----\nc2VjcmV0IGtleQ\n', 'runner');
    add('hunter2', 'job');
    add('first line\r\nsecond line\n', 'job');
    expect(announced).toEqual(['first line', 'second line']);
    expect(redact('c2VjcmV0IGtleQ hunter2')).toBe('*** ***');
  });

  it('stay out of annotations and titles, which the runner is not asked to mask', async () => {
    for (const make of Object.values(HOSTS)) {
      const { host, seen } = make();
      host.mask('a key in a file', 'runner');
      host.error('a key in a file', 'a key in a file');
      host.warning('a key in a file');
      await host.group('a key in a file', async () => host.result('a key in a file'));
      expect(JSON.stringify(seen())).not.toContain('a key in a file');
    }
  });
});

it('the judge of these tests sees each command that GitHub’s runner would', () => {
  expect(commandsIn('a\r\u0085 :\u200b:error::x\n##[warning]y').map(({ name }) => name)).toEqual(['error', 'warning']);
  expect(harmIn('::notice::x')).toEqual(['the command notice']);
  expect(harmInMarkdown('[x](y)')).not.toEqual([]);
  for (const [what, text] of Object.entries(HOSTILE_TEXTS)) {
    expect([...harmIn(text), ...harmInMarkdown(text), ...(/\n|"/.exec(text) ?? [])], what).not.toEqual([]);
  }
});

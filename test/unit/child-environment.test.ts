import { readdirSync, readFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { expect, it, onTestFinished, vi } from 'vitest';
import { childEnvironment } from '../../src/child-environment.ts';

const src = resolve(import.meta.dirname, '../../src');

it('has everything of ours but inputs, and what is wanted besides', () => {
  vi.stubEnv('INPUT_SSH-PRIVATE-KEY', 'key');
  vi.stubEnv('INPUT_MISSPELT_KEY', 'key');
  vi.stubEnv('KUBE_SIDELOAD_SUDO_PASSWORD', 'word');
  vi.stubEnv('HTTPS_PROXY', 'http://proxy');
  onTestFinished(() => void vi.unstubAllEnvs());
  const env = childEnvironment({ LC_ALL: 'C' });
  expect(env).toMatchObject({ HTTPS_PROXY: 'http://proxy', LC_ALL: 'C', PATH: process.env.PATH });
  expect(Object.keys(env).filter(name => /^(?:INPUT|KUBE_SIDELOAD)_/.test(name))).toEqual([]);
});

it('is what every program gets that is started anywhere in the source', () => {
  const files = readdirSync(src, { recursive: true, encoding: 'utf8' }).filter(name => name.endsWith('.ts'));
  const calls = files.flatMap(name => {
    const text = readFileSync(join(src, name), 'utf8');
    if (!/from 'node:child_process'|from '@actions\/exec'/.test(text)) return [];
    // Not the calls of other things that are named likewise.
    return text
      .split('\n')
      .flatMap((line, index, lines) =>
        /(?<![.\w])(?:spawn|exec|execFile|fork|spawnSync|execFileSync|getExecOutput)\(/.test(line)
          ? [[name, lines.slice(Math.max(0, index - 3), index + 8).join('\n')] as const]
          : [],
      );
  });
  expect(calls.length).toBeGreaterThan(3);
  for (const [name, text] of calls) expect(text, name).toContain('childEnvironment(');
});

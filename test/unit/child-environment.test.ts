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
  const starting = files
    .map(name => [name, readFileSync(join(src, name), 'utf8')] as const)
    .filter(([, text]) => /^import .*\{[^}]*\b(?:spawn|exec|execFile|fork)\b.*from 'node:child_process'/m.test(text));
  expect(starting.length).toBeGreaterThanOrEqual(3);
  for (const [name, text] of starting) {
    expect(text, name).toContain('env: childEnvironment(');
    expect(text, name).not.toContain('...process.env');
  }
});

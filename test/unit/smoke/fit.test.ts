import { describe, expect, it, vi } from 'vitest';
import { SideloadError } from '../../../src/errors.ts';
import { parseConfig } from '../../../src/image/config.ts';
import { confinementOf, type Fit, type FitSettings, firstFit, fitPod } from '../../../src/smoke/fit.ts';
import { fakeCluster } from './cluster.ts';

const RESOURCES = { requests: { cpu: '10m', memory: '16Mi' }, limits: {} };
const AUTO: FitSettings = { security: 'auto', resources: RESOURCES };

function refused(code: 'POD_SECURITY' | 'QUOTA_EXCEEDED', message: string): SideloadError {
  return new SideloadError(code, message);
}

/** Fits a pod to an API server that refuses so and so often, and gives what it was asked. */
async function fitted(refusals: readonly unknown[], settings = AUTO, user = '') {
  const cluster = fakeCluster();
  cluster.fail.create.push(...refusals);
  const asked: Fit[] = [];
  const fit = fitPod(cluster.kubectl, firstFit(user, settings), settings, one => {
    asked.push(one);
    return { metadata: { name: 'smoke' } };
  });
  return { asked, result: await fit.catch((thrown: SideloadError) => thrown) };
}

describe('the user of an image', () => {
  it.each([
    ['10001', 'restricted'],
    ['10001:10001', 'restricted'],
    ['', 'image'],
    ['0', 'image'],
    ['00', 'image'],
    ['root', 'image'],
    ['app', 'image'],
    ['1app', 'image'],
    ['app1', 'image'],
  ])('%j decides what is tried first: %s', (user, level) => {
    expect(firstFit(user, AUTO).security.level).toBe(level);
  });

  it('is that of the config', () => {
    const userOf = (config: object | null) => {
      const rootfs = { diff_ids: [`sha256:${'0'.repeat(64)}`] };
      const text = JSON.stringify({ os: 'linux', architecture: 'amd64', rootfs, config });
      return parseConfig(Buffer.from(text), 'the config').user;
    };
    expect(userOf({ User: '10001' })).toBe('10001');
    expect(userOf(null)).toBe('');
  });

  it('is replaced under `restricted` only where the kubelet could not compare it', () => {
    const settings: FitSettings = { ...AUTO, security: 'restricted' };
    expect(firstFit('10001', settings).security).toEqual({ level: 'restricted', runAsUser: undefined });
    expect(firstFit('app', settings).security).toEqual({ level: 'restricted', runAsUser: 65534 });
  });

  it('means nothing with `image`', () => {
    expect(firstFit('10001', { ...AUTO, security: 'image' }).security).toEqual({ level: 'image' });
  });
});

describe('a namespace', () => {
  const strict = refused('POD_SECURITY', 'violates PodSecurity "restricted:latest"');
  const quota = refused(
    'QUOTA_EXCEEDED',
    'failed quota: q: must specify limits.cpu for: smoke; limits.memory for: smoke',
  );

  it('that takes everything gets the image as it is', async () => {
    const { asked, result } = await fitted([]);
    expect(result).toEqual({ fit: { security: { level: 'image' }, resources: RESOURCES }, changes: [] });
    expect(asked).toHaveLength(1);
  });

  it('that wants Pod Security and limits gets both', async () => {
    const { result } = await fitted([strict, quota]);
    expect(result).toMatchObject({
      fit: { security: { level: 'restricted', runAsUser: 65534 }, resources: { limits: { memory: '128Mi' } } },
      changes: [expect.stringContaining('65534'), expect.stringContaining('128Mi')],
    });
  });

  it.each<[string, readonly SideloadError[], FitSettings]>([
    ['refuses a pod that the user wants', [strict], { ...AUTO, security: 'image' }],
    ['wants other limits', [quota], { ...AUTO, resources: { ...RESOURCES, limits: { memory: '1Gi' } } }],
    ['is used up', [refused('QUOTA_EXCEEDED', 'exceeded quota: q, requested: pods=1')], AUTO],
  ])('that %s is the error', async (_what, refusals, settings) => {
    const { result } = await fitted(refusals, settings);
    expect(result).toBe(refusals.at(-1));
  });

  it('that refuses even the strictest pod is the error, and the next step is not to ask for that pod', async () => {
    const { result } = await fitted([strict, strict], AUTO);
    expect(result).toMatchObject({ code: 'POD_SECURITY', message: strict.message });
    expect((result as SideloadError).hint).not.toContain('smoke-security');
  });

  it('that makes the kubelet pull is refused', async () => {
    const cluster = fakeCluster();
    const spec = { containers: [{ name: 'smoke', imagePullPolicy: 'Always' }] };
    vi.spyOn(cluster.kubectl, 'createPod').mockResolvedValue({ metadata: { name: 'a', uid: 'u' }, spec });
    await expect(fitPod(cluster.kubectl, firstFit('', AUTO), AUTO, () => ({}))).rejects.toMatchObject({
      code: 'PULL_FORCED',
    });
  });
});

describe('a pod that may do less than its image', () => {
  it.each<[what: string, user: string, security: FitSettings['security'], says: RegExp, hint: RegExp]>([
    [
      'by the input',
      '',
      'restricted',
      /as user 65534, .* as `smoke-security: restricted` wants it/,
      /`smoke-security: image`/,
    ],
    [
      'by the image’s own user',
      '10001',
      'auto',
      /without capabilities, .* a user of its own/,
      /`smoke-security: image`/,
    ],
  ])('says so, and how it gets the rest: %s', (_what, user, security, says, hint) => {
    const settings = { ...AUTO, security };
    const confinement = confinementOf(firstFit(user, settings), settings);
    expect(confinement).toEqual({ says: expect.stringMatching(says), hint: expect.stringMatching(hint) });
  });

  it('since the namespace wants it is not told to ask for what the namespace refuses', () => {
    const fit = { security: { level: 'restricted', runAsUser: 65534 }, resources: RESOURCES } as const;
    const confinement = confinementOf(fit, AUTO);
    expect(confinement?.says).toMatch(/as user 65534, .* since the namespace wants it/);
    expect(confinement?.hint).toMatch(/`namespace`/);
    expect(confinement?.hint).not.toContain('smoke-security');
  });

  it('is no pod that runs as its image says', () => {
    expect(confinementOf(firstFit('', AUTO), AUTO)).toBeUndefined();
  });
});

import { describe, expect, it } from 'vitest';
import { bestMatch, formatPlatform, fromUname, matches, type Platform } from '../../../src/image/platform.ts';

/** As `formatPlatform` writes it. */
function platform(text: string): Platform {
  const [os = '', architecture = '', variant] = text.split('/');
  return { os, architecture, ...(variant === undefined ? {} : { variant }) };
}

describe('the platform of a node', () => {
  it.each([
    ['x86_64', 'linux/amd64'],
    ['aarch64', 'linux/arm64/v8'],
    ['armv7l', 'linux/arm/v7'],
    ['armv6l', 'linux/arm/v6'],
    ['i686', 'linux/386'],
    ['ppc64le', 'linux/ppc64le'],
    ['s390x', 'linux/s390x'],
    ['riscv64', 'linux/riscv64'],
  ])('uname -m %s is %s', (machine, text) => {
    const found = fromUname(machine);
    expect(found && formatPlatform(found)).toBe(text);
  });

  it.each(['vax', '', 'toString', 'x86_64\n'])('uname -m %j is not guessed at', machine => {
    expect(fromUname(machine)).toBeUndefined();
  });
});

describe('which images a node runs', () => {
  it.each([
    ['linux/amd64', 'linux/amd64', true],
    ['linux/amd64/v1', 'linux/amd64', true],
    ['linux/amd64/v3', 'linux/amd64', false],
    ['linux/amd64/v2', 'linux/amd64/v3', true],
    ['linux/arm64', 'linux/arm64/v8', true],
    ['linux/arm64/v8', 'linux/arm64', true],
    ['linux/arm64/8', 'linux/arm64/v8', true],
    ['linux/arm64/v9', 'linux/arm64/v8', false],
    ['linux/arm/v6', 'linux/arm/v7', true],
    ['linux/arm', 'linux/arm/v7', true],
    ['linux/arm', 'linux/arm/v6', false],
    ['linux/arm/v7', 'linux/arm/v6', false],
    ['linux/arm/v7', 'linux/arm64/v8', false],
    ['linux/arm64', 'linux/amd64', false],
    ['windows/amd64', 'linux/amd64', false],
    ['linux/arm/weird', 'linux/arm/v8', false],
  ])('%s on %s: %s', (image, node, expected) => {
    expect(matches(platform(image), platform(node))).toBe(expected);
  });

  it('prefers the highest variant that the node runs', () => {
    const variants = ['linux/arm/v5', 'linux/arm/v7', 'linux/arm/v6', 'linux/arm64'].map(text => ({
      platform: platform(text),
    }));
    expect(bestMatch(variants, platform('linux/arm/v7'))?.platform.variant).toBe('v7');
    expect(bestMatch(variants, platform('linux/arm/v6'))?.platform.variant).toBe('v6');
    expect(bestMatch(variants, platform('linux/amd64'))).toBeUndefined();
  });
});
